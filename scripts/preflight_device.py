"""Looks at one device and says, a line a problem, what keeps it from being deployed to."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepstream import devices
from deepstream.job import write_json
from jetson import preflight
from jetson.job import reported
from jetson.session import Session
from jetson.settings import Remote

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("jetson")


def preflight_device(name: str, section: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Check a device against its section of the config; write what it is to `output`.

    Raises:
        JetsonError, DeepStreamError: a line a problem, with the remedy.
    """
    with Session(Remote.from_config(name, section)) as session:
        seen = preflight.check(session, devices.resolve(name, section))
    log.info("%s: ready: %s", name, seen.summary())
    found = {"device": name, "host": str(session.endpoint), **seen.versions()}
    if output is not None:
        write_json(found, output)
    return found


if __name__ == "__main__":
    with reported(snakemake.log):
        preflight_device(
            snakemake.wildcards.device,
            snakemake.params.device,
            Path(snakemake.output[0]) if snakemake.output else None,
        )
