"""Run a program that is watched on a terminal and kept in a log file, each as it suits them.

    python -m detectnet_v2.tee [--append] [--also FILE] LOG PROGRAM [ARGUMENT ...]

`program 2>&1 | tee log` hides the terminal from the program, so that nobody ever sees a progress
bar. Here the program has a terminal where this one has, and draws its bars; in the log file a bar
is a line every half minute. Elsewhere the program writes into a pipe, and all of it is in both
places. The exit status is the program's, 128 + n if signal n ended it. For a file that cannot be
written there is a line on stderr, and the program goes on.
"""

import argparse
import contextlib
import errno
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from detectnet_v2.errors import DetectNetError
from detectnet_v2.progress import draws_bars
from detectnet_v2.whole_file import cannot_write, whole_file

SECONDS_BETWEEN_BARS = 30.0
CHUNK = 65536
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class LineLog:
    """Turns what a terminal is sent into lines of a file.

    A line that a carriage return takes back was a progress bar's: such lines are kept now and then,
    and the last one, which a line feed ends.
    """

    def __init__(self, file: "LogFile | BinaryIO", seconds: float = SECONDS_BETWEEN_BARS):
        self._file = file
        self._seconds = seconds
        self._rest = b""
        self._kept = time.monotonic()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        # A terminal driver may have put a carriage return before each line feed.
        text = ESCAPE.sub(b"", self._rest + data).replace(b"\r\n", b"\n")
        *pieces, self._rest = re.split(rb"(?<=[\r\n])", text)
        if self._rest == b"" and pieces and pieces[-1].endswith(b"\r"):
            # Whether a line feed follows is not known yet.
            self._rest = pieces.pop()
        for piece in pieces:
            self._piece(piece)
        self._file.flush()

    def _piece(self, piece: bytes) -> None:
        if piece.endswith(b"\n"):
            self._file.write(piece)
            return
        now = time.monotonic()
        if piece.strip() and now - self._kept >= self._seconds:
            self._kept = now
            self._file.write(piece.rstrip() + b"\n")

    def close(self) -> None:
        """Write what no line feed ended."""
        if self._rest.strip():
            self._file.write(self._rest.strip(b"\r") + b"\n")
        self._rest = b""
        self._file.flush()


class LogFile:
    """A file that takes what it can: the first failure is a line on stderr, and nothing follows."""

    def __init__(self, path: Path, *, append: bool) -> None:
        """Open the file, whose folder is made; ``start`` is where its new content begins."""
        self._path = path
        self._file: BinaryIO | None = None
        self.start = 0
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab" if append else "wb")
            self.start = self._file.tell()

    @property
    def whole(self) -> bool:
        """Whether the file has all that it was given so far."""
        return self._file is not None

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        if self._file is not None:
            with self._told():
                self._file.write(data)

    def flush(self) -> None:
        """Hand over to the system what is held back."""
        if self._file is not None:
            with self._told():
                self._file.flush()

    def close(self) -> None:
        """Close the file; it is ``whole`` still if nothing was lost."""
        if self._file is not None:
            with self._told():
                self._file.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _say(f"{cannot_write(self._path, error)}; going on without it")
            if self._file is not None:
                # It tries once more to write what it has kept.
                with contextlib.suppress(OSError):
                    self._file.close()
            self._file = None


def run(command: Sequence[str], log: LogFile) -> int:
    """Run the program and return its exit status, as a shell would give it.

    SIGINT is the program's own affair, which the terminal sends to both; SIGTERM is passed on.

    Raises:
        OSError: the program cannot be started.
    """
    reading, writing = _terminal() if draws_bars() else os.pipe()
    try:
        program = subprocess.Popen(command, stdout=writing, stderr=writing)
    finally:
        os.close(writing)
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: program.terminate()),
    }
    try:
        lines = LineLog(log)
        while data := _read(reading):
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
            lines.write(data)
        lines.close()
        status = program.wait()
    finally:
        os.close(reading)
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _terminal() -> tuple[int, int]:
    """Return both ends of a pseudo-terminal as wide as the one on stderr."""
    reading, writing = pty.openpty()
    settings = termios.tcgetattr(writing)
    # The terminal behind this one puts a carriage return before each line feed itself.
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(writing, termios.TCSANOW, settings)
    columns, lines = os.get_terminal_size(sys.stderr.fileno())
    # A terminal that tells no size has none, and tqdm draws nothing on it.
    size = struct.pack("HHHH", lines or 24, columns or 80, 0, 0)
    fcntl.ioctl(writing, termios.TIOCSWINSZ, size)
    return reading, writing


def _read(descriptor: int) -> bytes:
    """Return the next bytes; none at the end, which a pseudo-terminal tells by EIO."""
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _copy(log: Path, start: int, path: Path) -> None:
    """Copy the log from byte ``start`` on, or say why that cannot be done."""
    try:
        with whole_file(path) as part, log.open("rb") as source, part.open("wb") as copy:
            source.seek(start)
            shutil.copyfileobj(source, copy)
    except DetectNetError as error:
        _say(str(error))


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"tee: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tee", description=__doc__.splitlines()[0])
    parser.add_argument("--append", action="store_true", help="keep what is in the log")
    parser.add_argument("--also", type=Path, help="a file that gets what the log gets")
    parser.add_argument("log", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its arguments")
    args = parser.parse_args(arguments)
    if not args.command:
        parser.error("no program given")
    if shutil.which(args.command[0]) is None:
        print(f"{args.command[0]}: no such program on the PATH", file=sys.stderr)
        return 127
    log = LogFile(args.log, append=args.append)
    status = run(args.command, log)
    log.close()
    if args.also is not None:
        if log.whole:
            _copy(args.log, log.start, args.also)
        else:
            _say(f"{args.also} is not written, since {args.log} is not whole")
    return status


if __name__ == "__main__":
    sys.exit(main())
