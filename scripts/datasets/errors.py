"""Errors of the raw data that a user can put right, each one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCES = {
    "voc": "https://www.kaggle.com/ivandanilovich/medical-masks-dataset-images-tfrecords"
    " (or any Pascal VOC dataset)",
    "mafa": "https://drive.google.com/drive/folders/1nbtM1n0--iZ3VVbNGhocxbnBGhMau_OG",
    "fddb": "http://vis-www.cs.umass.edu/fddb/",
    "widerface": "http://shuoyang1213.me/WIDERFACE/",
}


class DatasetError(Exception):
    """Raw data or settings that cannot be used; the message is one line for the user."""


# Closes the lines of a plan that lacks data.
WITHOUT_DATA = (
    "data_root and datasets.<name>.root say where the folders are, docs/datasets.md what is in"
    " them; the section of a dataset that you do not have goes out of config/config.yaml;"
    " `make demo` needs no data"
)
# What can be had all the same of a run whose raw data is gone.
WITH_RESULTS = "what was converted is enough for `snakemake report --rerun-triggers mtime`"
# Levels below a dataset's root in which a path that is missing is looked for.
MAX_DEPTH = 3


def missing_dataset_message(
    name: str, dataset: Mapping[str, Any], missing: str | Path | None = None
) -> str:
    """One line for a dataset that is not on disk: the setting, the path, and what to do.

    `missing` is the absent path when that is not the dataset's root itself; where the same name
    lies deeper, as after unpacking into a folder too many, the line says so.
    """
    root = Path(dataset.get("root", "")).expanduser()
    layout = dataset.get("layout", "")
    key = f"datasets.{name}.root"
    if missing is not None:
        what = f"dataset {name}: {missing} does not exist ({key} is {root})"
        return f"{what}; {_elsewhere(name, dataset, Path(missing))}"
    source = (
        f"get it from {SOURCES[layout]} and unpack it there"
        if layout in SOURCES
        else "put it there"
    )
    return f"dataset {name}: {key} is {root}, which does not exist; {source}, or correct {key}"


def missing_data(name: str, dataset: Mapping[str, Any]) -> str | None:
    """The line for what a dataset lacks of its root, images and annotations; None if nothing."""
    root = Path(dataset["root"]).expanduser()
    if not root.is_dir():
        return missing_dataset_message(name, dataset)
    absent = next((path for path in _tails(dataset) if not (root / path).exists()), None)
    return absent and missing_dataset_message(name, dataset, root / absent)


def folder_with(root: Path, *tails: str | Path) -> Path | None:
    """The nearest folder below `root` that holds all of the relative paths, None without one."""
    level = [root]
    for _ in range(MAX_DEPTH):
        try:
            level = sorted(path for folder in level for path in folder.iterdir() if path.is_dir())
        except OSError:
            return None
        for folder in level:
            if all((folder / tail).exists() for tail in tails):
                return folder
    return None


def _tails(dataset: Mapping[str, Any]) -> list[str]:
    """Images and annotations of each split, relative to the root."""
    return [paths[key] for paths in dataset["splits"].values() for key in ("images", "annotations")]


def _elsewhere(name: str, dataset: Mapping[str, Any], missing: Path) -> str:
    """What to do about a path that is missing: said of the one of its name that is there."""
    root = Path(dataset["root"]).expanduser()
    if whole := folder_with(root, *_tails(dataset)):
        deeper = whole.relative_to(root)
        return f"{whole} has it all: put /{deeper} at the end of datasets.{name}.root"
    tail = missing.relative_to(root) if missing.is_relative_to(root) else missing
    for wanted in (tail, tail.name) if tail.suffix else (tail,):
        if found := folder_with(root, wanted):
            relative = found.relative_to(root) / wanted
            return f"{root / relative} does: name {relative} in datasets.{name}.splits, or move it"
    return f"unpack it there, or correct datasets.{name}.splits (docs/datasets.md)"
