"""Asks a device whether it still has what was pushed, and writes why it has to be pushed to."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepstream import devices
from deepstream.job import write_json
from jetson import preflight
from jetson.job import reported
from jetson.session import Session, device_script, facts
from jetson.settings import Remote

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("jetson")

# What another flash or upgrade changes, and figures depend on.
SOFTWARE = ("model", "l4t", "deepstream", "tensorrt")


def check_device(
    name: str, section: Mapping[str, Any], receipt: Path, output: Path
) -> dict[str, Any]:
    """Write why the device was last found to lack what its receipt says.

    As long as the device has it, that is the reason that the receipt itself was written for, word
    for word: whatever takes the output as its input sees no change. A device that was wiped,
    flashed, upgraded or switched to another release gives a new reason. Before the first push it is
    looked at for what would keep it from the work, which is better known before hours of training.

    Args:
        name: the device's name in the config.
        section: its section of the config.
        receipt: what the last push wrote, if there was one.
        output: push_reason.json.

    Raises:
        JetsonError, DeepStreamError: the device cannot be asked, or a line a problem before the
            first push.
    """
    pushed = _read(receipt)
    reason = pushed.get("push_reason")
    why = _why(name, section, pushed) if reason else _first_look(name, section)
    if why is not None:
        log.info("%s: %s", name, why)
        reason = {"device": name, "reason": why, "found_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_json(reason, output)
    return reason


def _read(receipt: Path) -> dict[str, Any]:
    try:
        return json.loads(receipt.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _first_look(name: str, section: Mapping[str, Any]) -> str:
    with Session(Remote.from_config(name, section)) as session:
        preflight.check(session, devices.resolve(name, section))
    return "nothing was pushed yet"


def _why(name: str, section: Mapping[str, Any], pushed: Mapping[str, Any]) -> str | None:
    """Return what differs from the receipt on the device, None if nothing does."""
    with Session(Remote.from_config(name, section)) as session:
        script, release = device_script("common", "held"), pushed["release"]
        held = facts(session.run(script, session.remote.folder, release))
        if "benchmark" in held:
            # Reading every file would disturb it; it may be the one that is to be followed.
            return None
        if held["release"] != "whole":
            return f"release {release} is {held['release']} there; was the device wiped or flashed?"
        if held["current"] != release:
            return f"its current release is {held['current'] or 'none'} instead of {release}"
        seen, _ = preflight.probe(session)
    now = seen.versions()
    changed = [
        f"{key} {pushed['versions'].get(key)} then, {now[key]} now"
        for key in SOFTWARE
        if pushed["versions"].get(key) != now[key]
    ]
    return f"it is not as it was: {', '.join(changed)}" if changed else None


if __name__ == "__main__":
    with reported(snakemake.log):
        check_device(
            snakemake.wildcards.device,
            snakemake.params.device,
            Path(snakemake.params.receipt),
            Path(snakemake.output[0]),
        )
