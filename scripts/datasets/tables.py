"""The CSV tables between the steps: written whole or not at all, names of any bytes kept.

File names need not be UTF-8, but a table is: bytes that are not become `\\xNN` and a backslash
becomes two, both undone on reading.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from datasets.errors import DatasetError

INDEX = ("image", "width", "height", "class", "x1", "y1", "x2", "y2", "dropped")
GROUPS = ("dataset", "image", "group")
SELECTION = (
    *("dataset", "image", "name", "width", "height"),
    *("class", "x1", "y1", "x2", "y2"),
)
MANIFEST = ("name", "image_sha256", "label_sha256", "error")

ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2}|n|r)")
UNESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}


def escape(path: str) -> str:
    """A path as the tables hold it: valid UTF-8 in one line."""
    text = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    if text.isascii():
        return text
    return "".join(
        f"\\x{ord(character) - 0xDC00:02x}" if 0xDC80 <= ord(character) <= 0xDCFF else character
        for character in text
    )


def unescape(text: str) -> str:
    """The path that `escape` was given."""
    if "\\" not in text:
        return text
    return ESCAPED.sub(
        lambda match: UNESCAPED.get(match[1]) or chr(0xDC00 + int(match[1][1:], 16)), text
    )


def number(value: float) -> str:
    """A coordinate with at most three decimals."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


@contextmanager
def replacing(path: str | Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends without an error."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(part, path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(part)  # write() does not name its file
        part.unlink(missing_ok=True)
        raise


def write(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a header line."""
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read(path: str | Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The rows of a table; raises DatasetError when its columns are others than `columns`."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != tuple(columns):
            raise DatasetError(
                f"{path}: columns are {','.join(header)}, not {','.join(columns)};"
                " delete the file so that it is made again"
            )
        for row in reader:
            yield dict(zip(columns, row, strict=True))
