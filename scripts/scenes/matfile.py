"""Writes MATLAB 5 files whose bytes depend on their content only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io

# The first 116 bytes are free text, in which SciPy puts the time of day.
_HEADER = b"MATLAB 5.0 MAT-file Platform: posix, drawn scenes"


def write_mat(path: Path, variables: dict[str, np.ndarray]) -> None:
    """Write the variables as scipy.io.savemat does, without the date."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=True)
    content = _HEADER.ljust(116) + buffer.getvalue()[116:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cells(values: Sequence) -> np.ndarray:
    """A column of MATLAB cells: object array (n, 1)."""
    column = np.empty((len(values), 1), object)
    for index, value in enumerate(values):
        column[index, 0] = value
    return column


def structs(rows: Sequence[dict]) -> np.ndarray:
    """A row of MATLAB structs, shape (1, n); every row has the same fields in the same order."""
    fields = list(rows[0]) if rows else []
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for index, row in enumerate(rows):
        for field in fields:
            array[0, index][field] = row[field]
    return array
