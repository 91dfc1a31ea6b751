"""WIDER FACE: MATLAB cell arrays, per event a list of images, per image a matrix of faces.

A face is x, y, w, h; `occlusion_label_list` holds 0 (none), 1 (partial) or 2 (heavy) for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotation import AnnotatedImage, Face
from datasets.errors import DatasetError
from datasets.matfile import load, variables

LISTS = ("event_list", "file_list", "face_bbx_list", "occlusion_label_list")


@dataclass(slots=True)
class _OccludedFace(Face):
    occlusion: float = 0.0


def read(images: Path, annotations: Path, options: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Read `wider_face_train.mat` or `wider_face_val.mat`; raw class `face`.

    `events` are the events taken; a face more occluded than `max_occlusion` is dropped,
    and then every face of an image that still has more than `max_faces`.
    Raises DatasetError when the file does not hold WIDER FACE's lists.
    """
    contents = load(annotations)
    missing = [name for name in LISTS if name not in contents]
    if missing:
        raise DatasetError(
            f"{annotations} has no {', '.join(missing)} but {variables(contents)};"
            " is it WIDER FACE's wider_face_train.mat or wider_face_val.mat?"
        )
    events, files, boxes, occlusions = (contents[name].ravel() for name in LISTS)
    if not len(events) == len(files) == len(boxes) == len(occlusions):
        raise DatasetError(f"{annotations}: the lists differ in their number of events")
    annotated = []
    for event, event_files, event_boxes, event_occlusions in zip(
        events, files, boxes, occlusions, strict=True
    ):
        folder = _text(event)
        picked = folder in options["events"]
        cells = [np.asarray(cell).ravel() for cell in (event_files, event_boxes, event_occlusions)]
        if len({len(cell) for cell in cells}) != 1:
            raise DatasetError(f"{annotations}: event {folder} has lists of different lengths")
        for file, box, occlusion in zip(*cells, strict=True):
            image = _annotated(f"{folder}/{_text(file)}.jpg", box, occlusion)
            _apply_rules(image, picked, options)
            annotated.append(image)
    return annotated


def _text(cell: Any) -> str:
    values = np.asarray(cell).ravel()
    while values.size == 1 and isinstance(values[0], np.ndarray):
        values = values[0].ravel()
    return str(values[0]) if values.size else ""


def _annotated(path: str, boxes: Any, occlusions: Any) -> AnnotatedImage:
    boxes, occlusions = np.asarray(boxes), np.asarray(occlusions).ravel()
    if boxes.dtype.kind not in "iuf" or occlusions.dtype.kind not in "iuf":
        return AnnotatedImage(path, error="boxes or occlusion labels are no numbers")
    if boxes.size == 0:
        return AnnotatedImage(path)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(occlusions) != len(boxes):
        shape = "x".join(map(str, boxes.shape))
        return AnnotatedImage(
            path, error=f"boxes are {shape} with {len(occlusions)} occlusion labels, not n x 4"
        )
    return AnnotatedImage(
        path,
        [
            _face(box, occlusion)
            for box, occlusion in zip(boxes.astype(float).tolist(), occlusions, strict=True)
        ],
    )


def _face(box: list[float], occlusion: float) -> _OccludedFace:
    x, y, width, height = box
    if not np.isfinite(box).all():
        return _OccludedFace("face", None, malformed=f"box is {box}, not numbers")
    return _OccludedFace("face", (x, y, x + width, y + height), occlusion=float(occlusion))


def _apply_rules(image: AnnotatedImage, picked: bool, options: Mapping[str, Any]) -> None:
    for face in image.faces:
        if not picked:
            face.dropped = "event is not in the pick list"
        elif face.occlusion > options["max_occlusion"]:
            face.dropped = f"occlusion {face.occlusion:g}"
    left = [face for face in image.faces if not face.dropped]
    if len(left) > options["max_faces"]:
        for face in left:
            face.dropped = f"more than {options['max_faces']} faces are left (max_faces)"
