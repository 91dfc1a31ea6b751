"""Measures the pushed models with deepstream-app on a device: benchmark.json and a table."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepstream import devices
from deepstream.job import write_json
from jetson import benchmark, preflight, results, table
from jetson.cases import Case
from jetson.errors import JetsonError
from jetson.job import reported
from jetson.session import Session
from jetson.settings import Remote

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("jetson")

# A clock that is fixed still reads a little differently from second to second.
CLOCK_TOLERANCE = 0.05
MEASURED_WITH = ("nvpmodel", "jetson_clocks", "warm_up_s", "duration_s", "clip")


def benchmark_device(
    name: str,
    section: Mapping[str, Any],
    receipt: Path,
    metrics: Mapping[str, Path],
    output: Path,
    table_output: Path,
    logs: Path,
    *,
    poll_s: float = benchmark.POLL_S,
) -> dict[str, Any]:
    """Measure every case of a receipt on its device.

    Args:
        name: the device's name in the config.
        section: its section of the config.
        receipt: what the push wrote.
        metrics: metrics.json of the evaluation by model, for the mAP beside the figures.
        output: benchmark.json.
        table_output: the table, Markdown.
        logs: folder for the device's logs, a folder a case.
        poll_s: seconds between two looks at the device.

    Raises:
        JetsonError, DeepStreamError: a line a case that was not measured. What was measured is kept
            in benchmark.partial.json beside the output, and is not measured again by a later call
            for the same release, device software and settings.
    """
    remote = Remote.from_config(name, section)
    pushed = json.loads(receipt.read_text())
    cases = [Case(**case) for case in pushed["cases"]]
    partial = output.with_name("benchmark.partial.json")
    with Session(remote) as session:
        # A benchmark that runs there already may be this very one, which is followed.
        seen = preflight.check(session, devices.resolve(name, section), busy_is_wrong=False)
        log.info("%s: %s", name, seen.summary())
        same = {
            "device": name,
            "release": pushed["release"],
            "versions": seen.versions(),
            "settings": {key: getattr(remote, key) for key in MEASURED_WITH},
        }
        measured = _measured_before(partial, same)
        for case in measured:
            log.info("%s: %s was measured at %s", name, case, measured[case]["measured_at"])
        missing = [case for case in cases if case.name not in measured]
        problem = None
        if missing:
            problem = benchmark.run(session, pushed["release"], missing, seen, logs, poll_s=poll_s)
    measured_at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    failures = {}
    for case in missing:
        try:
            one = results.read(case, logs / case.name)
        except JetsonError as error:
            failures[case.name] = str(error)
            continue
        one["measured_at"] = measured_at
        one["published_fps"] = table.published(seen.board, one["model"], one["engine"])
        _warn(name, one)
        measured[case.name] = one
    found = {
        **same,
        "measured_at": measured_at,
        "map_percent": {m: json.loads(path.read_text())["mAP"] for m, path in metrics.items()},
        "cases": [measured[case.name] for case in cases if case.name in measured],
        "published": {"source": table.SOURCE, "map_percent": table.PUBLISHED_MAP},
    }
    text = table.table([found])
    if measured:
        log.info("%s", text)
    if failures:
        lines = [f"{name}: {line}" for line in failures.values()]
        if problem is not None:
            lines = [problem]
        if measured:
            write_json({**found, "not_measured": problem or failures}, partial)
            lines.append(
                f"{name}: not measured: {', '.join(failures)}; the figures of "
                f"{', '.join(measured)} are kept in {partial}, the next run measures the rest"
            )
        raise JetsonError("\n".join(lines))
    part = table_output.with_name(table_output.name + ".part")
    part.write_text(text)
    part.replace(table_output)
    write_json(found, output)
    partial.unlink(missing_ok=True)
    return found


def _measured_before(partial: Path, same: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cases, by name, that a run which failed in part has measured under the same terms.

    An unreadable file counts as none, since all of it can be measured again.
    """
    try:
        before = json.loads(partial.read_text())
        if {key: before[key] for key in same} == json.loads(json.dumps(same)):
            return {case["case"]: case for case in before["cases"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _warn(name: str, case: Mapping[str, Any]) -> None:
    """Say what makes a figure worth less than it looks."""
    label = f"{name}: {case['case']}"
    build = case["engine_build"]
    stats = case["tegrastats"] or {}
    if not stats:
        log.warning(
            "%s: tegrastats printed nothing, so power, loads and clocks are not known", label
        )
    clock = stats.get("gpu_mhz")
    if clock and clock["lowest"] < (1 - CLOCK_TOLERANCE) * clock["highest"]:
        log.warning(
            "%s: the GPU's clock went from %d to %d MHz; fix it with jetson_clocks: true",
            label,
            clock["lowest"],
            clock["highest"],
        )
    if case["throttled_by"]:
        log.warning("%s: the board was throttled by %s", label, ", ".join(case["throttled_by"]))
    if case["precision"] != case["asked_precision"]:
        log.warning(
            "%s: deepstream-app built the engine in %s instead of %s; the figure is of that, see "
            "build.log for why",
            label,
            case["precision"].upper(),
            case["asked_precision"].upper(),
        )
    if build["rebuilt"]:
        log.warning(
            "%s: deepstream-app built the engine again instead of loading it; is the name in "
            "model-engine-file the one it writes?",
            label,
        )
    if not build["files"]:
        log.warning("%s: no engine file was written, so it is built at every start", label)
    if case["app_status"] != 0:
        log.warning("%s: deepstream-app ended with %d", label, case["app_status"])


if __name__ == "__main__":
    with reported(snakemake.log):
        benchmark_device(
            snakemake.wildcards.device,
            snakemake.params.device,
            Path(snakemake.input.receipt),
            {model: Path(path) for model, path in snakemake.params.metrics.items()},
            Path(snakemake.output.benchmark),
            Path(snakemake.output.table),
            Path(snakemake.params.logs),
        )
