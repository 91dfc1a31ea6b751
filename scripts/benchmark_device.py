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
        JetsonError, DeepStreamError: a line a case that was not measured; no output is written.
    """
    remote = Remote.from_config(name, section)
    pushed = json.loads(receipt.read_text())
    cases = [Case(**case) for case in pushed["cases"]]
    with Session(remote) as session:
        # A benchmark that runs there already may be this very one, which is followed.
        seen = preflight.check(session, devices.resolve(name, section), busy_is_wrong=False)
        log.info("%s: %s", name, seen.summary())
        benchmark.run(session, pushed["release"], cases, seen, logs, poll_s=poll_s)
    measured, failures = [], []
    for case in cases:
        try:
            measured.append(results.read(case, logs / case.name))
        except JetsonError as error:
            failures.append(f"{name}: {error}")
    for case in measured:
        case["published_fps"] = table.published(seen.board, case["model"], case["engine"])
        _warn(name, case)
    found = {
        "device": name,
        "release": pushed["release"],
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": seen.versions(),
        "settings": {key: getattr(remote, key) for key in MEASURED_WITH},
        "map_percent": {m: json.loads(path.read_text())["mAP"] for m, path in metrics.items()},
        "cases": measured,
        "published": {"source": table.SOURCE, "map_percent": table.PUBLISHED_MAP},
    }
    text = table.table([found])
    if measured:
        log.info("%s", text)
    if failures:
        raise JetsonError("\n".join(failures))
    part = table_output.with_name(table_output.name + ".part")
    part.write_text(text)
    part.replace(table_output)
    write_json(found, output)
    return found


def _warn(name: str, case: Mapping[str, Any]) -> None:
    """Say what makes a figure worth less than it looks."""
    label = f"{name}: {case['case']}"
    build = case["engine_build"]
    if case["throttled_by"]:
        log.warning("%s: the board was throttled by %s", label, ", ".join(case["throttled_by"]))
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
