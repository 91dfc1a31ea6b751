"""Looks at one device and says, a line a problem, what keeps it from being deployed to."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepstream import devices
from deepstream.errors import DeepStreamError
from jetson import preflight
from jetson.errors import JetsonError
from jetson.session import Session
from jetson.settings import Remote

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def preflight_device(name: str, section: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Check a device against its section of the config; write what it is to `output`.

    Raises:
        JetsonError, DeepStreamError: a line a problem, with the remedy.
    """
    with Session(Remote.from_config(name, section)) as session:
        seen = preflight.check(session, devices.resolve(name, section))
    logging.info("%s: ready: %s", name, seen.summary())
    found = {"device": name, "host": str(session.endpoint), **seen.versions()}
    if output is not None:
        part = output.with_name(output.name + ".part")
        part.write_text(json.dumps(found, indent=2) + "\n")
        os.replace(part, output)
    return found


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[logging.StreamHandler(), *(logging.FileHandler(path) for path in snakemake.log)],
    )
    try:
        preflight_device(
            snakemake.wildcards.device,
            snakemake.params.device,
            Path(snakemake.output[0]) if snakemake.output else None,
        )
    except (JetsonError, DeepStreamError) as error:
        logging.error("%s", error)
        sys.exit(1)
