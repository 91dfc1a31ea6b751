"""status.json: one JSON object a line about the progress of a task, as NVIDIA's toolkits write."""

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from detectnet_v2.errors import DetectNetError


class StatusLog:
    """Appends lines to a status file.

    `categorical`, `graphical` and `kpi` are written with every line until they are changed.

    Args:
        path: the file; None writes nothing.
        append: keep the lines that are there, as train does; the other tasks start afresh.

    Raises:
        DetectNetError: the file cannot be written.
    """

    def __init__(self, path: Path | None, *, append: bool = False):
        self.path = path
        self.categorical: dict = {}
        self.graphical: dict = {}
        self.kpi: dict = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if append else "w", encoding="utf-8"):
                pass
        except OSError as error:
            raise DetectNetError(f"cannot write {path}: {error.strerror or error}") from error

    def write(
        self,
        message: str | None = None,
        *,
        status: str = "RUNNING",
        verbosity: str = "INFO",
        **fields: object,
    ) -> None:
        """Add a line.

        Args:
            status: STARTED, RUNNING, SUCCESS, FAILURE or SKIPPED.
            verbosity: a level of the logging module.
            fields: more of the line, e.g. epoch, max_epoch, time_per_epoch, eta.
        """
        if self.path is None:
            return
        now = datetime.now()
        line = dict(fields)
        line["date"] = f"{now.month}/{now.day}/{now.year}"
        line["time"] = f"{now.hour}:{now.minute}:{now.second}"
        line["status"] = status
        line["verbosity"] = verbosity
        if message:
            line["message"] = message
        for name in ("categorical", "graphical", "kpi"):
            if getattr(self, name):
                line[name] = getattr(self, name)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def task_status(
    results_dir: Path | str | None, task: str, *, append: bool = False
) -> Iterator[StatusLog]:
    """Yield the log of a task; it begins with STARTED and ends with SUCCESS or FAILURE.

    Args:
        results_dir: where status.json goes; None for no file.
        task: what the messages call the task, e.g. "DetectNet_v2 Evaluation".
    """
    path = None if results_dir is None else Path(results_dir) / "status.json"
    log = StatusLog(path, append=append)
    log.write(f"Starting {task}", status="STARTED")
    try:
        yield log
    except KeyboardInterrupt:
        log.write(f"{task} was interrupted", status="FAILURE")
        raise
    except BaseException as error:
        log.write(str(error) or type(error).__name__, status="FAILURE", verbosity="ERROR")
        raise
    log.write(f"{task} finished successfully.", status="SUCCESS")
