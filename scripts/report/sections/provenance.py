"""Chapter on where the results come from: versions, seeds, times and the configuration."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import pandas as pd
import yaml

from report.blocks import Block, Listing, Section, Table
from report.results import Results, run_label

PACKAGES = (
    *("snakemake", "torch", "numpy", "pandas", "opencv-python-headless", "pillow", "h5py"),
    *("onnx", "onnxruntime", "protobuf", "pycocotools", "paramiko", "av", "matplotlib"),
)
# Where a device stands and who logs in there is nobody else's business.
PRIVATE = ("host", "user", "port", "identity_file", "jump_host")
# Where a camera streams from is as private, and often has its password in it.
PRIVATE_OF_CAMERAS = ("uri",)


def section(results: Results, revision: str | None) -> Section:
    """Versions, seeds, running times and the whole configuration; `revision` is the code's."""
    blocks: list[Block] = [versions(results, revision), seeds(results)]
    times = running_times(results)
    if times:
        blocks.append(times)
    blocks.append(Listing("Configuration", yaml.safe_dump(shown(results.config), sort_keys=False)))
    return Section("provenance", "Versions, seeds and configuration", "", blocks)


def versions(results: Results, revision: str | None) -> Table:
    """What the report was made with."""
    rows = [
        ("toolkit", str(results.config["toolkit"])),
        *([("revision of the workflow", revision)] if revision else []),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
    ]
    for name in PACKAGES:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return Table("Versions", ("what", "version"), rows, "Of the computer that made this report.")


def seeds(results: Results) -> Table:
    """What makes the run repeatable."""
    train = results.config["train"]
    retrain = results.config.get("retrain", {})
    rows = [
        ("train.seed", str(train["seed"]), "first weights, order of the images, augmentation"),
        ("retrain.seed", str(retrain.get("seed", train["seed"])), "the same, after pruning"),
        ("choice of the faces", "no seed", "ordered by SHA-256 of dataset and file name"),
        ("validation fold", "no seed", "the first names, which start with a hash of the group"),
    ]
    return Table("Seeds", ("setting", "value", "decides"), rows)


def running_times(results: Results) -> Table | None:
    """How long the trainings took and how much memory, from the rules' benchmark files."""
    rows = []
    for run in results.runs:
        file = "train/unpruned" if run == "unpruned" else f"retrain/{run.partition('/')[2]}"
        path = f"benchmarks/{file}.tsv"
        if not results.exists(path):
            continue
        measured = pd.read_csv(results.root / path, sep="\t").iloc[-1]
        memory = pd.to_numeric(measured.get("max_rss"), errors="coerce")
        rows.append(
            (
                run_label(run),
                str(measured.get("h:m:s", "–")),
                "–" if pd.isna(memory) else f"{memory / 1024:.2f}",
            )
        )
    if not rows:
        return None
    return Table("Running times", ("training of", "h:m:s", "memory at its highest, GB"), rows)


def shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the addresses of devices and cameras."""
    result = dict(config)
    deploy = dict(result.get("deploy", {}))
    if "devices" in deploy:
        deploy["devices"] = {
            name: _shown_device(device) for name, device in deploy["devices"].items()
        }
        result["deploy"] = deploy
    return result


def _shown_device(device: Mapping[str, Any]) -> dict[str, Any]:
    shown = _without(device, PRIVATE)
    if "cameras" in shown:
        shown["cameras"] = {
            name: _without(camera, PRIVATE_OF_CAMERAS) for name, camera in shown["cameras"].items()
        }
    return shown


def _without(section: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
