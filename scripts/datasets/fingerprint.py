"""A cheap digest of a dataset's files, for Snakemake to compare while it parses the rules.

Only the standard library is imported, and nothing is read: names, sizes and times decide.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MISSING = "missing"


def walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Every file below `folder`, links followed, each folder once; in no fixed order.

    Raises OSError when `folder` or a folder below it cannot be listed.
    """
    pending = [os.fspath(folder)]
    seen = set()
    while pending:
        current = pending.pop()
        status = os.stat(current)  # noqa: PTH116 - Path objects cost a fifth of the time allowed
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                else:
                    yield entry


def split_paths(dataset: Mapping[str, Any], split: str) -> tuple[Path, Path]:
    """The images folder and the annotations (file or folder) of a split.

    Raises KeyError when the dataset has no such split.
    """
    root = Path(dataset["root"]).expanduser()
    paths = dataset["splits"][split]
    return root / paths["images"], root / paths["annotations"]


def fingerprint(dataset: Mapping[str, Any], split: str) -> str:
    """Digest of names, sizes and times of a split's images and annotations; never raises.

    What is not there, or cannot be listed, gives a text that starts with `missing` and names it.
    """
    try:
        paths = [*split_paths(dataset, split)]
        if "image_set" in dataset["splits"][split]:
            paths.append(Path(dataset["root"]).expanduser() / dataset["splits"][split]["image_set"])
    except (KeyError, TypeError) as error:
        return f"{MISSING}: {error}"
    lines: set[str] = set()
    for path in paths:
        try:
            if path.is_dir():
                entries = [(entry.path, entry.stat()) for entry in walk(path)]
            else:
                entries = [(os.fspath(path), path.stat())]
        except OSError as error:
            return f"{MISSING}: {error.filename}: {error.strerror}"
        lines.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}" for name, status in entries)
    text = "\n".join(sorted(lines))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
