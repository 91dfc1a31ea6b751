"""Brings rendered configs and models to a device and writes a receipt of what is there."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepstream import devices
from deepstream.job import write_json
from jetson import preflight
from jetson import push as transfer
from jetson.job import reported
from jetson.release import gather, key_from_environment
from jetson.session import Session
from jetson.settings import Remote

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("jetson")


def push(
    name: str,
    section: Mapping[str, Any],
    folders: Mapping[str, Path],
    key_name: str,
    output: Path,
    *,
    reason: Path | None = None,
) -> dict[str, Any]:
    """Push a release to a device and write the receipt.

    Args:
        name: the device's name in the config.
        section: its section of the config.
        folders: rendered config folders by case, `{model}-{engine}`.
        key_name: the environment variable with the key of encrypted models.
        output: the receipt.
        reason: push_reason.json of check_device, which becomes part of the receipt.

    Raises:
        JetsonError, DeepStreamError: with the remedy; the device keeps its last good release.
    """
    release = gather(folders, key=key_from_environment(key_name), key_name=key_name)
    with Session(Remote.from_config(name, section)) as session:
        seen = preflight.check(session, devices.resolve(name, section))
        log.info("%s: %s", name, seen.summary())
        sent = transfer.push(session, release, seen)
    receipt = {
        "device": name,
        "host": str(session.endpoint),
        "folder": seen.root,
        "release": release.digest,
        "pushed_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": seen.versions(),
        "push_reason": json.loads(reason.read_text(encoding="utf-8")) if reason else None,
        "sent": {
            "files": sent.files,
            "bytes": sent.bytes,
            "resumed_bytes": sent.resumed_bytes,
        },
        "files": [
            {
                "path": file.path,
                "bytes": file.size if not file.keyed else None,
                "sha256": file.public_sha256,
                "mode": f"{file.mode:o}",
                "key": "inserted on the way" if file.keyed else None,
            }
            for file in release.files
        ],
        "cases": [case.to_json() for case in release.cases],
    }
    write_json(receipt, output)
    return receipt


if __name__ == "__main__":
    with reported(snakemake.log):
        push(
            snakemake.wildcards.device,
            snakemake.params.device,
            {case: Path(folder) for case, folder in snakemake.params.folders.items()},
            snakemake.params.key_name,
            Path(snakemake.output.receipt),
            reason=Path(snakemake.input.reason),
        )
