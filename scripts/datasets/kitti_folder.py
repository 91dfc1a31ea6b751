"""Who owns which file of a split's KITTI folder, and the removal of files that nobody owns.

The pictures and labels of all datasets lie in the same two folders, images and labels. The names
that a dataset's job owns are those of the form `{8 hex digits}-{dataset}-...`.
"""

import os
import re
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from datasets import tables


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


def _remove(folder: Path, unwanted: Callable[[str, str], bool]) -> int:
    """Remove the files whose name and stem are unwanted; the stem of a strange file is ""."""
    removed = 0
    for place, suffix in (("images", ".jpg"), ("labels", ".txt")):
        if not (folder / place).is_dir():
            continue
        for name in os.listdir(folder / place):  # noqa: PTH208 - no Path for each of many files
            stem = name[: -len(suffix)] if name.endswith(suffix) else ""
            if unwanted(name, stem):
                (folder / place / name).unlink(missing_ok=True)
                removed += 1
    return removed
