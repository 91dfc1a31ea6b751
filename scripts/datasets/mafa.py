"""MAFA: one struct array per split, `label_train` or `LabelTest`, with a matrix of faces an image.

Columns of `label_train` rows: x, y, w, h, eyes (4), occluder (4), occ_type, occ_degree, ...
Columns of `LabelTest` rows: x, y, w, h, face_type, occluder (4), occ_type, occ_degree, ...
occ_type 1 is a simple occluder, 2 a complex one, 3 a part of the body; occ_degree counts the
covered ones of four face regions; face_type 1 is masked, 2 unmasked, 3 invalid.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotation import AnnotatedImage, Face
from datasets.errors import DatasetError
from datasets.matfile import load, variables

BODY_PART = 3
MASKED, UNMASKED = 1, 2


def read(images: Path, annotations: Path, options: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Read `LabelTrainAll.mat` or `LabelTestAll.mat`; which one decides the columns.

    The raw class is `mask` or `no-mask` by the recipe's rule; a face that is neither is dropped.
    Raises DatasetError when the file holds neither of the two struct arrays.
    """
    contents = load(annotations)
    variable = next((name for name in VARIABLES if name in contents), None)
    if variable is None:
        raise DatasetError(
            f"{annotations} has neither {' nor '.join(VARIABLES)} but {variables(contents)};"
            " is it MAFA's LabelTrainAll.mat or LabelTestAll.mat?"
        )
    name_field, columns, rule = VARIABLES[variable]
    entries = contents[variable]
    if not {name_field, "label"} <= set(entries.dtype.names or ()):
        raise DatasetError(f"{annotations}: {variable} has no fields {name_field} and label")
    return [
        _annotated(index, entry[name_field], entry["label"], columns, rule)
        for index, entry in enumerate(entries.ravel())
    ]


def train_class(row: Sequence[float]) -> str:
    """Class of a training face, "" for neither: what covers it, and how much of it."""
    occ_type, occ_degree = row[12], row[13]
    if occ_type != BODY_PART and occ_degree > 2:
        return "mask"
    if occ_type == BODY_PART and occ_degree < 2:
        return "no-mask"
    return ""


def test_class(row: Sequence[float]) -> str:
    """Class of a test face, "" for neither."""
    face_type, occ_type, occ_degree = row[4], row[9], row[10]
    if face_type == MASKED and occ_type != BODY_PART and occ_degree > 2:
        return "mask"
    if face_type == UNMASKED:
        return "no-mask"
    return ""


# The field with the image's name, the columns that the rule needs, the rule.
Rule = Callable[[Sequence[float]], str]
VARIABLES: dict[str, tuple[str, int, Rule]] = {
    "label_train": ("imgname", 14, train_class),
    "LabelTest": ("name", 11, test_class),
}


def _annotated(index: int, name: Any, label: Any, columns: int, rule: Rule) -> AnnotatedImage:
    names = np.asarray(name).ravel()
    if names.size != 1 or not isinstance(names[0], str) or not names[0].strip():
        return AnnotatedImage(f"entry {index + 1}", error="entry without an image name")
    path = names[0].strip()
    rows = np.asarray(label)
    if rows.size == 0:
        return AnnotatedImage(path)
    if rows.dtype.kind not in "iuf" or rows.ndim != 2 or rows.shape[1] < columns:
        shape = "x".join(map(str, rows.shape))
        return AnnotatedImage(
            path, error=f"label is {shape} of {rows.dtype}, not numbers in {columns} columns"
        )
    # The published integers are 16 bits wide: a sum could overflow.
    return AnnotatedImage(path, [_face(row, rule) for row in rows.astype(float).tolist()])


def _face(row: list[float], rule: Rule) -> Face:
    x, y, width, height = row[:4]
    if not np.isfinite(row[:4]).all():
        return Face("face", None, malformed=f"box is {row[:4]}, not numbers")
    raw_class = rule(row)
    reason = "" if raw_class else "neither mask nor no-mask by occ_type, occ_degree and face_type"
    return Face(raw_class or "face", (x, y, x + width, y + height), dropped=reason)
