"""Watch the trainings of a run: TensorBoard on the results folder, and a line for each epoch."""

import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

POLL_S = 2.0
NO_RUN_YET = "{folder}: no training yet; each appears here when it starts"

log = logging.getLogger("watch")


def trainings(results: Path) -> Iterator[tuple[str, Path]]:
    """Yield name, `unpruned` or `retrained/<threshold>`, and status.json of each training."""
    for path in sorted(
        [*results.glob("unpruned/status.json"), *results.glob("retrained/*/status.json")]
    ):
        yield str(path.parent.relative_to(results)), path


def last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a status.json; empty while there is none."""
    with contextlib.suppress(FileNotFoundError):
        for line in reversed(path.read_text(encoding="utf-8").splitlines()):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(line)
    return {}


def changes(results: Path, seen: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each training whose status is not the one in `seen`, which is brought up."""
    for name, path in trainings(results):
        status = last_line(path)
        if status and status != seen.get(name):
            seen[name] = status
            said = status.get("message", status["status"])
            yield f"{_clock(status.get('time', ''))}  {name}: {said}{_eta(status)}"


def _clock(time: str) -> str:
    """NVIDIA's toolkits write 9:5:3 for 09:05:03."""
    return ":".join(part.zfill(2) for part in time.split(":")) if time else ""


def _eta(status: dict[str, Any]) -> str:
    is_running = status.get("status") == "RUNNING" and "eta" in status
    return f", {status['eta']} left" if is_running else ""


def tensorboard(results: Path) -> str:
    """Start a TensorBoard in this process and return its address.

    Raises OSError when no port is free.
    """
    # Slow to import, and of no use to the lines.
    from tensorboard import program  # noqa: PLC0415

    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(results), "--reload_interval", "5"])
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    try:
        return server.launch()
    except program.TensorBoardServerException as error:
        raise OSError(f"TensorBoard cannot start: {error}") from error


def watch(results: Path, *, poll_s: float = POLL_S) -> None:
    """Serve TensorBoard and log what the trainings tell, until SIGINT or SIGTERM."""
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(True))
    seen: dict[str, dict[str, Any]] = {}
    log.info("TensorBoard on %s: %s   (Ctrl-C ends it)", results, tensorboard(results))
    if not any(trainings(results)):
        log.info(NO_RUN_YET.format(folder=results))
    while not stopped:
        for line in changes(results, seen):
            log.info("%s", line)
        time.sleep(poll_s)


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[logging.StreamHandler(), *(logging.FileHandler(path) for path in snakemake.log)],
    )
    log.setLevel(logging.INFO)
    try:
        watch(Path(snakemake.params.results))
    except OSError as error:
        log.error("%s", error)
        sys.exit(1)
