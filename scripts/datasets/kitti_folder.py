"""Who owns which file of a split's KITTI folder, and the removal of files that nobody owns.

The pictures and labels of all datasets lie in the same two folders, images and labels. The names
that a dataset's job owns are those of the form `{8 hex digits}-{dataset}-...`.
"""

import os
import re
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from datasets import tables
from datasets.errors import DatasetError

PLACES = (("images", ".jpg"), ("labels", ".txt"))


def remove_owned(folder: Path, dataset: str, keep: Set[str]) -> int:
    """Remove a dataset's pictures and labels whose names are not in `keep`; how many.

    Half-written files are removed in any case.
    """
    owned = re.compile(rf"[0-9a-f]{{8}}-{re.escape(dataset)}-")
    return _remove(folder, lambda name, stem: owned.match(name) is not None and stem not in keep)


def remove_parts(folder: Path, dataset: str) -> None:
    """Remove what a dataset's job has left half-written."""
    owned = re.compile(rf"[0-9a-f]{{8}}-{re.escape(dataset)}-.*\.part")
    _remove(folder, lambda name, stem: owned.fullmatch(name) is not None)


def remove_orphans(folder: str | Path, manifests: Iterable[str | Path]) -> int:
    """Remove every picture and label in a split's KITTI folder that no manifest lists; how many.

    To be called when no conversion into the folder runs.
    """
    keep = {
        row["name"]
        for manifest in manifests
        for row in tables.read(manifest, tables.MANIFEST)
        if not row["error"]
    }
    return _remove(Path(folder), lambda name, stem: stem not in keep)


def remove_other_tables(folder: str | Path, manifests: Iterable[str | Path]) -> int:
    """Remove the manifests and journals of datasets that have none of `manifests`; how many.

    A dataset that is taken out of the config and put back would else count as converted, though
    `remove_orphans` has removed its files: so this comes first.
    """
    keep = {Path(manifest).name.split(".")[0] for manifest in manifests}
    others = [
        path
        for pattern in ("*.manifest.csv", "*.journal.csv")
        for path in Path(folder).glob(pattern)
        if path.name.split(".")[0] not in keep
    ]
    for path in others:
        path.unlink(missing_ok=True)
    return len(others)


def check_complete(folder: str | Path, manifest: str | Path) -> None:
    """Raise DatasetError when a picture or label that `manifest` lists is not in the folder."""
    names = [row["name"] for row in tables.read(manifest, tables.MANIFEST) if not row["error"]]
    for place, suffix in PLACES:
        there = set(_names(Path(folder, place)))
        absent = [name for name in names if name + suffix not in there]
        if absent:
            raise DatasetError(
                f"{Path(folder, place, absent[0] + suffix)} is absent, {len(absent)} of"
                f" {len(names)} {place} that {manifest} lists: delete that manifest, so that its"
                " dataset is converted again"
            )


def _remove(folder: Path, unwanted: Callable[[str, str], bool]) -> int:
    """Remove the files whose name and stem are unwanted; the stem of a strange file is ""."""
    removed = 0
    for place, suffix in PLACES:
        for name in _names(folder / place):
            stem = name[: -len(suffix)] if name.endswith(suffix) else ""
            if unwanted(name, stem):
                (folder / place / name).unlink(missing_ok=True)
                removed += 1
    return removed


def _names(folder: Path) -> list[str]:
    """Names of the files in a folder, none when it is not there."""
    if not folder.is_dir():
        return []
    return os.listdir(folder)  # noqa: PTH208 - no Path for each of many files
