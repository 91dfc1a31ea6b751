"""What a benchmark's logs say: frames per second and power of each case, or why there are none."""

import re
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepstream.render import NETWORK_MODES

from jetson import perf, tegrastats
from jetson.cases import Case
from jetson.errors import JetsonError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = re.compile(r"error|fail|cannot|could not|unable|killed|fault|no such", re.I)
_ERROR = re.compile(r"(\*\* )?ERROR\b")
# These follow every failure, or come with every start without a display or an engine, and explain
# none.
_HOLLOW = re.compile(
    r"app run failed|^\s*\*\* error: <main|quitting|failed to set pipeline|EGL display"
    r"|deserializ\w* (engine|backend)|failed to load plugin|gst-plugin-scanner",
    re.I,
)
_KILLED, _SIGNALS = 137, 128


def read(case: Case, folder: Path) -> dict[str, Any]:
    """Read the fetched logs of a case.

    Returns:
        The case as benchmark.json holds it: frames per second per stream and in total (medians
        after the warm-up), seconds, engines, tegrastats.

    Raises:
        JetsonError: the case was not measured; the line tells why.
    """
    marks = _marks(folder / "result")
    phase = marks["phase"][-1] if marks["phase"] else None
    if phase is None:
        raise JetsonError(f"{case.name}: was not reached; an earlier line tells why")
    verdict = _last(marks, f"{phase}_verdict", "ended")
    status = int(_last(marks, f"{phase}_status", "-1"))
    if verdict != "complete":
        raise JetsonError(f"{case.name}: {_failure(phase, verdict, status, marks, folder)}")
    log = (folder / "measure.log").read_bytes()
    start, end = int(marks["warm_log"][0]), int(marks["end_log"][0])
    measured = perf.throughput(perf.parse(perf.window(log, start, end)))
    if measured is None:
        raise JetsonError(
            f"{case.name}: no PERF line in {_seconds(marks)} s of measurement; set duration_s to "
            f"several times perf-measurement-interval-sec ({case.perf_interval_s} s)"
        )
    return {
        "case": case.name,
        "model": case.model,
        "engine": case.engine,
        "precision": _precision(case, marks),
        "asked_precision": case.precision,
        "batch": case.batch,
        "streams": case.streams,
        "model_sha256": case.model_sha256,
        "fps": {**asdict(measured), "per_stream": list(measured.per_stream)},
        "measured_s": _seconds(marks),
        "app_status": status,
        "engine_build": _build(marks),
        "tegrastats": _tegrastats(marks, folder),
        "throttled_by": tegrastats.throttled(
            _text(folder / "throttle.before"), _text(folder / "throttle.after")
        ),
    }


def _marks(path: Path) -> dict[str, list[str]]:
    marks: dict[str, list[str]] = defaultdict(list)
    for line in _text(path).splitlines():
        name, _, value = line.partition("=")
        marks[name].append(value)
    return marks


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _last(marks: dict[str, list[str]], name: str, default: str) -> str:
    return marks[name][-1] if marks[name] else default


def _seconds(marks: dict[str, list[str]]) -> int:
    return int(marks["end_uptime"][0]) - int(marks["warm_uptime"][0])


def _precision(case: Case, marks: dict[str, list[str]]) -> str:
    """Return the precision that ran: nvinfer names its engine by the one that it settled for.

    It builds FP16 where the board has no INT8 or TensorRT does not take the calibration cache.
    """
    names = {case.engine_name(precision): precision for precision in NETWORK_MODES}
    wanted = case.engine_name(case.precision)
    beside = marks["engine_file"]
    order = [*reversed(marks["built_engine"]), *(beside if wanted not in beside else ())]
    return next((names[name] for name in order if name in names), case.precision)


def _build(marks: dict[str, list[str]]) -> dict[str, Any]:
    """Return how the engine came to be; `rebuilt` if the measured run did not take it.

    An engine that lay beside the model and was taken as it is counts as one from the cache.
    """
    built = marks["built_engine"]
    cached = _last(marks, "cached", "no") == "yes" or bool(marks["engine_file"] and not built)
    seconds = None
    if marks["build_ended"] and not cached:
        seconds = int(marks["build_ended"][0]) - int(marks["build_started"][0])
    return {
        "from_cache": cached,
        "build_s": seconds,
        "files": sorted(set(marks["engine_file"])),
        "rebuilt": len(built) > (0 if cached else 1),
    }


def _tegrastats(marks: dict[str, list[str]], folder: Path) -> dict[str, Any] | None:
    path = folder / "tegrastats.log"
    if not path.is_file():
        return None
    start, end = int(marks["warm_tegrastats"][0]), int(marks["end_tegrastats"][0])
    return tegrastats.summarise(tegrastats.parse(perf.window(path.read_bytes(), start, end)))


def _failure(
    phase: str, verdict: str, status: int, marks: dict[str, list[str]], folder: Path
) -> str:
    log = folder / f"{phase}.log"
    # The build, which comes before, has left a mark of its own.
    flowing = phase == "measure" and len(marks["flowing"]) > len(marks["build_ended"])
    doing = "measuring" if flowing else "building the engine" if phase == "build" else "starting"
    if verdict == "stopped":
        return "stopped on request"
    if verdict == "timeout":
        return (
            f"no frame came within engine_timeout_s while {doing}: {cause(log)}; raise it if the "
            f"board is slow, log in {log}"
        )
    if status == _KILLED:
        return (
            f"deepstream-app was killed while {doing}, most likely for lack of memory; stop the "
            f"desktop, add swap or set a smaller workspace, log in {log}"
        )
    if flowing and status == 0:
        return (
            "the clip ended before the measurement did; set file-loop=1 in [tests] of the app "
            "config or take a longer clip"
        )
    how = f"signal {status - _SIGNALS}" if status > _SIGNALS and status != 255 else f"exit {status}"
    return f"deepstream-app failed ({how}) while {doing}: {cause(log)}; log in {log}"


def cause(log: Path) -> str:
    """Return the line of a deepstream-app log that tells most about a failure."""
    lines = [_COLOUR.sub("", line).strip() for line in _text(log).splitlines()]
    lines = [line for line in lines if line and "PERF" not in line and not _HOLLOW.search(line)]
    errors = [line for line in lines if _ERROR.match(line)]
    telling = [line for line in lines if _CAUSE.search(line)]
    # The first complaint is the cause, those after it are what came of it.
    return (errors or telling or lines[-1:] or ["it printed nothing"])[0][:300]
