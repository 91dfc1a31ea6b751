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


def missing_dataset_message(
    name: str, dataset: Mapping[str, Any], missing: str | Path | None = None
) -> str:
    """One line for a dataset that is not on disk: the setting, the path, the source, the demo.

    `missing` is the absent path when that is not the dataset's root itself.
    """
    root = dataset.get("root", "")
    layout = dataset.get("layout", "")
    source = (
        f"get it from {SOURCES[layout]} and unpack it there"
        if layout in SOURCES
        else "put it there"
    )
    where = f"datasets.{name}.root is {root!s}"
    what = f"{missing} does not exist ({where})" if missing else f"{where}, which does not exist"
    return (
        f"dataset {name}: {what}; {source}, or set datasets.{name}.root in the config,"
        " or run `make demo`, which needs no data"
    )
