"""Runs the rendered configs on this computer: video with boxes, KITTI dumps, benchmark.json."""

import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from deepstream.errors import DeepStreamError
from deepstream.job import reported, write_json
from deepstream.render import BENCHMARK, VIDEO
from jetson import perf, release
from jetson.cases import Case
from jetson.errors import JetsonError

log = logging.getLogger("deepstream")

_POLL_S = 0.1
_STOP_S = 30


def deploy_local(
    releases: Mapping[str, str | Path],
    output: str | Path,
    *,
    metrics: Mapping[str, str | Path],
    duration_s: float = 10,
    warm_up_s: float = 2,
) -> dict[str, Any]:
    """Run each release of the device `local`: its clip once with boxes, then the benchmark.

    Args:
        releases: rendered folders by case, `{model}-{engine}`.
        output: benchmark.json; beside it, a folder a case gets video.mp4, kitti/ and the logs.
        metrics: metrics.json of the evaluation by model, for the mAP beside the figures.
        duration_s: seconds of the measurement, after `warm_up_s` from the first frame on.

    Raises:
        DeepStreamError: a config cannot run, or gave no frame within the measurement.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    folders = {case: Path(folder) for case, folder in releases.items()}
    try:
        cases = release.gather(folders, key=None, key_name="").cases
    except JetsonError as error:
        raise DeepStreamError(str(error)) from error
    measured = []
    for case in cases:
        logs = output.parent / case.name
        with _copied(folders[case.name]) as work:
            shown = show(work, logs)
            fps, seconds = measure(work, logs, case, duration_s, warm_up_s)
        log.info("%s: %.2f frames per second, %s", case.name, fps["total"], _counted(shown))
        measured.append(_case(case, fps, seconds, shown))
    result = {
        "device": "local",
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "settings": {"warm_up_s": warm_up_s, "duration_s": duration_s},
        "map_percent": {
            model: json.loads(Path(path).read_text(encoding="utf-8"))["mAP"]
            for model, path in metrics.items()
        },
        "cases": measured,
    }
    write_json(result, output)
    return result


def show(work: Path, logs: Path) -> dict[str, Any]:
    """Run the video config in a release's folder; keep video.mp4 and kitti/ and count the boxes.

    Returns the number of frames and the boxes by label.
    """
    dump = work / "kitti"
    dump.mkdir()
    with _started(work, VIDEO, logs / "video.log") as process:
        status = process.wait()
    if status != 0:
        raise DeepStreamError(_cause(logs / "video.log", status))
    files = sorted(dump.iterdir())
    labels = Counter(
        line.split()[0] for path in files for line in path.read_text(encoding="utf-8").splitlines()
    )
    shutil.rmtree(logs / "kitti", ignore_errors=True)
    shutil.move(dump, logs / "kitti")
    os.replace(work / "video.mp4", logs / "video.mp4")
    return {"frames": len(files), "boxes": dict(sorted(labels.items()))}


def measure(
    work: Path, logs: Path, case: Case, duration_s: float, warm_up_s: float
) -> tuple[dict[str, Any], float]:
    """Run the benchmark config and return its throughput and the seconds that it was measured.

    Beside measure.log, `result` holds the log's sizes at the start and the end of the measurement.
    """
    path = logs / "measure.log"
    with _started(work, BENCHMARK, path) as process:
        while not any(any(sample.now) for sample in perf.parse(_text(path))):
            _check(process, path)
        _sleep(process, path, warm_up_s)
        start, begun = path.stat().st_size, time.monotonic()
        _sleep(process, path, duration_s)
        end, seconds = path.stat().st_size, time.monotonic() - begun
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=_STOP_S)
    if status != 0:
        raise DeepStreamError(_cause(path, status))
    found = perf.throughput(perf.parse(perf.window(path.read_bytes(), start, end)))
    if found is None:
        raise DeepStreamError(
            f"{case.name}: no frame in {duration_s:g} s of measurement; raise "
            f"deploy.local.duration_s to several times {case.perf_interval_s} s"
        )
    (logs / "result").write_text(f"warm_log={start}\nend_log={end}\n", encoding="utf-8")
    return asdict(found), seconds


def versions() -> dict[str, Any]:
    """What ran, for the report."""
    return {
        "board": None,
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "deepstream": "this project's desk program",
        "onnxruntime": metadata.version("onnxruntime"),
        "python": platform.python_version(),
    }


def _case(case, fps, seconds, shown):
    return {
        "case": case.name,
        "model": case.model,
        "engine": case.engine,
        "precision": case.precision,
        "batch": case.batch,
        "streams": case.streams,
        "model_sha256": case.model_sha256,
        "fps": fps,
        "measured_s": round(seconds, 1),
        "app_status": 0,
        "video": {**shown, "file": f"{case.name}/video.mp4", "kitti": f"{case.name}/kitti"},
    }


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    """Yield a copy of a release to run in, so that what a run writes stays out of the release."""
    with tempfile.TemporaryDirectory(prefix="deepstream-") as parent:
        work = Path(parent) / folder.name
        shutil.copytree(folder, work, ignore=shutil.ignore_patterns("*.part"))
        yield work


@contextmanager
def _started(work: Path, config: str, path: Path) -> Iterator[subprocess.Popen]:
    """Start the desk program in a release's folder, logged; no child is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scripts = str(Path(__file__).resolve().parent)
    with path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deepstream", "-c", config],
            cwd=work,
            env={**os.environ, "PYTHONPATH": scripts},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _sleep(process, path, seconds):
    """Wait, unless the program ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _check(process, path)


def _check(process, path):
    try:
        status = process.wait(timeout=_POLL_S)
    except subprocess.TimeoutExpired:
        return
    raise DeepStreamError(_cause(path, status))


def _text(path):
    return path.read_text(encoding="utf-8", errors="replace")


def _cause(path, status):
    """The program's own line about a failure, with where to read on."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("** ERROR: ")]
    told = (errors or lines or ["it printed nothing"])[-1].removeprefix("** ERROR: ")
    return f"{told} (deepstream-app ended with {status}, log in {path})"


def _counted(shown):
    boxes = ", ".join(f"{count} {label}" for label, count in shown["boxes"].items()) or "no boxes"
    return f"{boxes} in {shown['frames']} frames"


def _processor():
    """The processor's name where the kernel tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    with reported(snakemake.log[0]):
        deploy_local(
            snakemake.params.releases,
            snakemake.output.benchmark,
            metrics=snakemake.params.metrics,
            **snakemake.params.get("measurement", {}),
        )
