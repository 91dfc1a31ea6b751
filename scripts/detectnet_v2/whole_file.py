"""Output files that appear whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.program import REMEDIES

from detectnet_v2.errors import DetectNetError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the name to write to; it becomes `path` at the end, or goes away after an exception.

    Folders are created.

    Raises:
        DetectNetError: instead of an OSError.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> DetectNetError:
    """One line for a failed write, with a remedy where there is one."""
    reason = os.strerror(error.errno) if error.errno else error
    remedy = REMEDIES.get(error.errno or 0)
    return DetectNetError(f"cannot write {path}: {reason}" + (f"; {remedy}" if remedy else ""))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that people can read too."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def refuse_existing(path: Path) -> None:
    """Raise a DetectNetError when `path` is there, as NVIDIA's tasks do."""
    if path.exists():
        raise DetectNetError(f"{path} exists already: remove it or choose another -o")
