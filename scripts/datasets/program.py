"""What every rule's script does around its work: a log file, a progress bar, one-line errors."""

import errno
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from detectnet_v2.progress import draws_bars
from tqdm import tqdm

from datasets.errors import DatasetError

Item = TypeVar("Item")
LOG_INTERVAL_S = 10.0
REMEDIES = {
    errno.ENOSPC: "free space or put results_dir on another disk",
    errno.EDQUOT: "free space or put results_dir on another disk",
    errno.EACCES: "give this user the permission",
    errno.EPERM: "give this user the permission",
    errno.EROFS: "put results_dir on a disk that can be written",
}


class Log:
    """Lines for a log file, and for stderr too."""

    def __init__(self, path: str | Path | None, echo: bool = True) -> None:
        """Open `path` anew; None logs to stderr alone. Without `echo`, stderr is left alone."""
        self._file = None
        self._echo = echo
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = Path(path).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __call__(self, line: str) -> None:
        """Write a line to both."""
        self.to_file(line)
        if self._echo:
            tqdm.write(_printable(line), file=sys.stderr)

    def to_file(self, line: str) -> None:
        """Write a line to the log file only."""
        if self._file:
            self._file.write(_printable(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _shows_bar(self) -> bool:
        return self._echo and draws_bars()

    def progress(self, items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        """Pass `items` on, with a bar on a terminal; a line every so often goes everywhere else."""
        last = time.monotonic()
        shows_bar = self._shows_bar()
        tell = self.to_file if shows_bar else self
        bar = tqdm(items, total=total, desc=what, unit="image", disable=not shows_bar)
        for done, item in enumerate(bar, start=1):
            yield item
            if time.monotonic() - last >= LOG_INTERVAL_S:
                last = time.monotonic()
                tell(f"{what}: {done} of {total}")


def _printable(line: str) -> str:
    # File names can hold bytes that are no UTF-8.
    return line.encode("utf-8", "backslashreplace").decode()


def describe(error: OSError) -> str:
    """One line for an error of the operating system, with a remedy where there is one."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {remedy}" if remedy else "")


@contextmanager
def reported(path: str | Path | None) -> Iterator[Log]:
    """Run a script's work: errors that a user can put right end it with one line and exit 1."""
    log = Log(path)
    try:
        yield log
    except (DatasetError, OSError) as error:
        message = describe(error) if isinstance(error, OSError) else str(error)
        log.to_file(f"error: {message}")
        sys.exit(_printable(f"error: {message}"))
    finally:
        log.close()
