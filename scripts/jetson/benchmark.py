"""Runs a benchmark detached on the device and follows it, however often the connection breaks."""

import hashlib
import logging
import math
import posixpath
import shlex
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from detectnet_v2.progress import draws_bars
from tqdm import tqdm

from jetson.cases import Case
from jetson.errors import ConnectionLost, JetsonError
from jetson.preflight import Probe
from jetson.session import Session, device_script, facts
from jetson.settings import Remote

POLL_S = 2.0
REPORT_EVERY_S = 30.0
START_TIMEOUT_S = 20.0
OVERDUE_S = 120.0
"""How much longer than the device's own limit a phase may take until it counts as stuck."""
PHASES = {
    "build": "building the engine",
    "start": "starting",
    "warm-up": "warming up",
    "measure": "measuring",
}
_ENDED = ("done", "failed")

log = logging.getLogger(__name__)


def run(
    session: Session,
    release: str,
    cases: Sequence[Case],
    seen: Probe,
    folder: Path,
    *,
    poll_s: float = POLL_S,
) -> str | None:
    """Measure the cases on the device and bring the logs of each to `folder`/{case}.

    The device does all of it by itself; this side starts it, follows it and fetches what it wrote.
    A run that went on while nobody was connected is followed further, and one that ended is fetched
    instead of being started again.

    Args:
        session: a session with the device, connected or not.
        release: the release to measure, as the receipt names it.
        cases: what to measure, in this order.
        seen: what the preflight told.
        folder: where the logs go; `state` of the whole run comes last.
        poll_s: seconds between two looks at the device.

    Returns:
        A line that tells why the run ended before its time, None where every case was tried. The
        logs of what was measured until then have been fetched all the same.

    Raises:
        JetsonError: the device is busy or was lost for too long; nothing was fetched.
    """
    remote = session.remote
    request = _request(remote, release, cases, seen)
    run_id = hashlib.sha256(request.encode()).hexdigest()[:12]
    patience = remote.reconnect_timeout_s
    driver = device_script("common", "engines", "driver")
    try:
        session.persist(lambda: _start(session, run_id, request, driver, poll_s), patience)
        state, problem = _follow(session, run_id, poll_s)
    except KeyboardInterrupt:
        log.info("%s: interrupted; asking the device to stop", remote.name)
        try:
            session.persist(lambda: _script(session, "stop", run_id), patience_s=0)
        except JetsonError as error:
            log.warning("%s", error)
        raise
    except ConnectionLost as lost:
        raise JetsonError(
            f"{lost}; given up after {patience:g} s. The benchmark goes on there: run it again and "
            "its result is fetched"
        ) from lost
    for case in cases:
        # What an earlier run left must not pass for this one's where a case was not reached.
        shutil.rmtree(folder / case.name, ignore_errors=True)
    if "run" in state:
        session.persist(lambda: _fetch(session, state["run"], folder, cases), patience)
    session.persist(lambda: _script(session, "forget", run_id), patience)
    if state.get("power") == "not-restored":
        log.warning(
            "%s: nvpmodel or jetson_clocks could not be put back; see %s/power.restore",
            remote.name,
            seen.root,
        )
    if problem is None and state["state"] == "failed":
        reason = state.get("reason") or state.get("driver_log") or "no reason given"
        problem = f"{remote.name}: the benchmark could not run: {reason}"
    return problem


def _request(remote: Remote, release: str, cases: Sequence[Case], seen: Probe) -> str:
    """Return the request as sh assignments; equal requests are the same run."""
    values: dict[str, object] = {
        "release": release,
        "cases": " ".join(case.name for case in cases),
        "warm_up_s": math.ceil(remote.warm_up_s),
        "duration_s": math.ceil(remote.duration_s),
        "engine_timeout_s": math.ceil(remote.engine_timeout_s),
        "stop_timeout_s": math.ceil(remote.stop_timeout_s),
        "nvpmodel": "" if remote.nvpmodel is None else remote.nvpmodel,
        "clocks": "yes" if remote.jetson_clocks else "no",
    }
    for number, case in enumerate(cases, 1):
        values[f"app_{number}"] = case.app
        values[f"models_{number}"] = posixpath.dirname(case.model_file) or "."
        names = ("engine", "sha", "calibration", "file")
        for key, value in zip(names, case.engine_on(seen.model, seen.tensorrt), strict=True):
            values[f"{key}_{number}"] = value
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())


def _script(session: Session, name: str, run_id: str, *arguments: str) -> dict[str, str]:
    script = device_script("common", name)
    return facts(session.run(script, session.remote.folder, run_id, *arguments))


def _start(session: Session, run_id: str, request: str, driver: str, poll_s: float) -> None:
    name = session.remote.name
    answer = _script(session, "start", run_id, request, driver)
    if "stopping" in answer:
        # Ctrl-C at a desk returns before the device has ended the app and put its power back.
        log.info("%s: waiting until benchmark %s, which was stopped, ends", name, _run_of(answer))
        deadline = time.monotonic() + session.remote.stop_timeout_s + OVERDUE_S
        while "stopping" in answer and time.monotonic() < deadline:
            time.sleep(poll_s)
            answer = _script(session, "start", run_id, request, driver)
    if "found" in answer:
        log.info("%s: benchmark %s ended earlier; fetching its result", name, run_id)
    elif "started" in answer:
        log.info("%s: benchmark %s started", name, run_id)
    elif "stopping" in answer:
        raise JetsonError(
            f"{name}: benchmark {answer['benchmark']} was stopped but does not end; reboot the "
            "device and run the benchmark again"
        )
    elif _run_of(answer) == run_id:
        log.info("%s: benchmark %s is going on; following it", name, run_id)
    else:
        stop = f"{session.remote.folder}/benchmarks/{_run_of(answer)}/stop"
        raise JetsonError(
            f"{name}: benchmark {answer.get('benchmark')} is running there; wait for its end, or "
            f"end it there with: touch {shlex.quote(stop)}"
        )


def _run_of(answer: dict[str, str]) -> str:
    """Return the id of the run that holds the device."""
    return answer.get("benchmark", "").partition(" ")[0]


def _follow(session: Session, run_id: str, poll_s: float) -> tuple[dict[str, str], str | None]:
    """Look at the run until it ended; return its last state, and why if it ended too early."""
    # How long an engine takes to build is not known before: a line with a clock, and no bar.
    with tqdm(bar_format="{desc}", leave=False, disable=not draws_bars()) as line:
        return _until_ended(session, run_id, poll_s, line)


def _until_ended(
    session: Session, run_id: str, poll_s: float, line: tqdm
) -> tuple[dict[str, str], str | None]:
    name = session.remote.name
    boot_id, was_running = None, False
    begun = time.monotonic()
    reported = ("", -math.inf)
    while True:
        state = session.persist(
            lambda: _script(session, "poll", run_id), session.remote.reconnect_timeout_s
        )
        boot_id = boot_id or state["boot_id"]
        if state.get("state") in _ENDED:
            return state, None
        if state["boot_id"] != boot_id:
            return state, (
                f"{name}: the device was rebooted in the middle of benchmark {run_id}; if nobody "
                "did it, look at its power supply and temperature, then run the benchmark again"
            )
        running = state.get("locked", "").startswith(run_id)
        was_running = was_running or running
        if not running and (was_running or time.monotonic() - begun > START_TIMEOUT_S):
            # One more look: it may have ended between the two halves of the answer.
            state = _script(session, "poll", run_id)
            if state.get("state") in _ENDED:
                return state, None
            return state, _vanished(name, run_id, state)
        if _overdue(session.remote, state):
            return state, (
                f"{name}: {_course(state)}: that should long be over, and deepstream-app does not "
                "end even when it is killed: reboot the device and run the benchmark again"
            )
        line.set_description_str(f"{name}: {_course(state)}")
        reported = _report(name, state, reported)
        time.sleep(poll_s)


def _vanished(name: str, run_id: str, state: dict[str, str]) -> str:
    if "run" not in state:
        return f"{name}: benchmark {run_id} was removed there; run it again"
    said = state.get("driver_log") or "it left no message"
    return (
        f"{name}: benchmark {run_id} was killed there ({said}); often memory ran out: close other "
        "programs or add swap, then run it again"
    )


def _report(name: str, state: dict[str, str], reported: tuple[str, float]) -> tuple[str, float]:
    """Log a new phase at once and an old one every so often."""
    phase = _phase(state)
    if phase == reported[0] and time.monotonic() - reported[1] < REPORT_EVERY_S:
        return reported
    log.info("%s: %s", name, _course(state))
    return phase, time.monotonic()


def _overdue(remote: Remote, state: dict[str, str]) -> bool:
    """Whether a phase lasts much longer than the device itself lets it last."""
    limits = {
        "build": remote.engine_timeout_s,
        "start": remote.engine_timeout_s,
        "warm-up": remote.warm_up_s,
        "measure": remote.duration_s,
    }
    limit = limits.get(state.get("phase", ""), math.inf)
    return _age(state) > limit + remote.stop_timeout_s + OVERDUE_S


def _phase(state: dict[str, str]) -> str:
    return f"{state.get('case', '')}: {PHASES.get(state.get('phase', ''), 'preparing')}"


def _course(state: dict[str, str]) -> str:
    """What the device does, for how long, and the last frames per second."""
    figures = state.get("perf", "").strip()
    return f"{_phase(state)}, {_age(state)} s{f', {figures}' if figures else ''}"


def _age(state: dict[str, str]) -> int:
    """Seconds since the phase began."""
    since = state.get("since", "")
    return int(state["uptime"]) - int(since) if since.isdigit() else 0


def _fetch(session: Session, run: str, folder: Path, cases: Sequence[Case]) -> None:
    """Copy the run's files; a case that was not reached has no folder."""
    with session.sftp() as sftp:
        for place in ("", *(case.name for case in cases)):
            source = posixpath.join(run, place)
            try:
                names = [
                    entry.filename
                    for entry in sftp.listdir_attr(source)
                    if stat.S_ISREG(entry.st_mode or 0)
                ]
            except FileNotFoundError:
                continue
            target = folder / place
            target.mkdir(parents=True, exist_ok=True)
            for file in names:
                part = target / f"{file}.part"
                sftp.get(posixpath.join(source, file), str(part))
                part.replace(target / file)
