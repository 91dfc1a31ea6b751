"""Writes the annotations of drawn pictures in the four published layouts, broken rows included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

import numpy as np

from scenes.figure import Face
from scenes.matfile import cells, structs, write_mat
from scenes.plan import Picture

_VOC_CLASS = {"mask": "mask", "poor": "poor", "bare": "none"}
_FDDB_FOLDS = 10


@dataclass(frozen=True)
class Annotated:
    """A picture and those of its faces that an annotator marks."""

    picture: Picture
    faces: tuple[Face, ...]


def write_annotations(dataset: str, root: Path, pictures: Sequence[Annotated]) -> None:
    """The annotation files of one data set into the raw tree `root`."""
    if dataset == "medical-masks":
        _write_voc(root / "medical-masks/labels", pictures)
    elif dataset == "mafa-train":
        rows = [
            {
                "orgimgname": f"org_{index}.jpg",
                "imgname": PurePosixPath(item.picture.path).name,
                "label": _mafa_train(item),
            }
            for index, item in enumerate(pictures)
        ]
        write_mat(root / "mafa/MAFA-Label-Train/LabelTrainAll.mat", {"label_train": structs(rows)})
    elif dataset == "mafa-test":
        rows = [
            {"name": PurePosixPath(item.picture.path).name, "label": _mafa_test(item)}
            for item in pictures
        ]
        write_mat(root / "mafa/MAFA-Label-Test/LabelTestAll.mat", {"LabelTest": structs(rows)})
    elif dataset == "fddb":
        _write_fddb(root / "fddb/FDDB-folds", pictures)
    else:
        part = dataset.removeprefix("widerface-")
        path = root / f"widerface/wider_face_split/wider_face_{part}.mat"
        _write_wider(path, pictures, train=part == "train")


def _corners(item: Annotated, face: Face) -> tuple[int, int, int, int]:
    # Annotators stay inside of the picture, most of the time.
    x1, y1, x2, y2 = (round(value) for value in face.box)
    picture = item.picture
    if picture.repairable == "outside":
        return x1, y1, x2, y2
    return max(x1, 0), max(y1, 0), min(x2, picture.width - 1), min(y2, picture.height - 1)


def _boxes(item: Annotated) -> list[tuple[int, int, int, int]]:
    """Each face's x, y, width, height; the first has no width where the plan says so."""
    boxes = []
    for face in item.faces:
        x1, y1, x2, y2 = _corners(item, face)
        empty = item.picture.defect == "empty_box" and face is item.faces[0]
        boxes.append((x1, y1, 0 if empty else x2 - x1, y2 - y1))
    return boxes


def _write_voc(folder: Path, pictures: Sequence[Annotated]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in pictures:
        picture = item.picture
        if picture.defect == "unannotated":
            continue
        name = PurePosixPath(picture.path)
        lines = [
            "<annotation>",
            "\t<folder>images</folder>",
            f"\t<filename>{escape(name.name)}</filename>",
            f"\t<size><width>{picture.width}</width><height>{picture.height}</height>"
            "<depth>3</depth></size>",
            "\t<segmented>0</segmented>",
        ]
        for index, face in enumerate(item.faces):
            x1, y1, x2, y2 = _corners(item, face)
            if index == 0:
                if picture.repairable == "inverted":
                    x1, x2 = x2, x1
                if picture.defect == "empty_box":
                    x2 = x1
            right = "" if index == 0 and picture.defect == "no_corner" else f"<xmax>{x2}</xmax>"
            lines.append(
                f"\t<object><name>{_VOC_CLASS[face.state]}</name><pose>Unspecified</pose>"
                "<truncated>0</truncated><difficult>0</difficult>"
                f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>{right}<ymax>{y2}</ymax></bndbox>"
                "</object>"
            )
        lines.append("</annotation>")
        text = "\n".join(lines)
        if picture.defect == "not_xml":
            text = text[: 2 * len(text) // 3]
        (folder / f"{name.stem}.xml").write_text(text, encoding="utf-8")


def occlusion(face: Face) -> tuple[int, int]:
    """MAFA's type (1 simple, 2 complex, 3 human body) and degree (covered parts of the face)."""
    if face.state == "bare":
        return 3, 2 if face.hand == "half" else 1
    kind = 2 if face.complex_mask else 1
    return kind, 3 if face.state == "mask" else 2


def _part(part: tuple[float, float, float, float] | None) -> list[int]:
    return [-1, -1, -1, -1] if part is None else [round(value) for value in part]


def _orientation(face: Face) -> int:
    # 1 left, 2 left frontal, 3 frontal, 4 right frontal, 5 right.
    return 3 + int(np.clip(round(face.yaw / 0.45), -2, 2))


def _mafa_train(item: Annotated) -> np.ndarray:
    rows = []
    for face, box in zip(item.faces, _boxes(item), strict=True):
        kind, degree = occlusion(face)
        eyes = [round(value) for eye in face.eyes for value in eye]
        tail = [kind, degree, -1, -1, _orientation(face), *_part(face.glasses)]
        rows.append([*box, *eyes, *_part(face.occluder), *tail])
    return np.array(rows, np.int16).reshape(-1, 21)


def _mafa_test(item: Annotated) -> np.ndarray:
    rows = []
    for face, box in zip(item.faces, _boxes(item), strict=True):
        kind, degree = occlusion(face)
        face_type = 1 if face.state != "bare" or face.hand == "half" else 2
        degree = 0 if face_type == 2 else degree
        tail = [kind, degree, -1, -1, _orientation(face), *_part(face.glasses)]
        rows.append([*box, face_type, *_part(face.occluder), *tail])
    return np.array(rows, np.int16).reshape(-1, 18)


def _write_fddb(folder: Path, pictures: Sequence[Annotated]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for fold in range(_FDDB_FOLDS):
        names, lists = [], []
        for item in pictures[fold::_FDDB_FOLDS]:
            name = item.picture.path.removeprefix("fddb/").removesuffix(".jpg")
            names.append(name)
            lists += [name, str(len(item.faces))]
            for face in item.faces:
                lists.append(" ".join(f"{value:.6f}" for value in face.ellipse) + "  1")
        stem = f"FDDB-fold-{fold + 1:02d}"
        for suffix, lines in (("", names), ("-ellipseList", lists)):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{stem}{suffix}.txt").write_text(text, encoding="ascii")


def _write_wider(path: Path, pictures: Sequence[Annotated], *, train: bool) -> None:
    # The published training file holds doubles, the one for validation small integers.
    box_type, label_type = (np.float64, np.float64) if train else (np.int32, np.uint8)
    events: dict[str, list[Annotated]] = defaultdict(list)
    for item in pictures:
        events[PurePosixPath(item.picture.path).parent.name].append(item)
    columns: dict[str, list] = defaultdict(list)
    for event in sorted(events):
        items = events[event]
        columns["event_list"].append(event)
        columns["file_list"].append(cells([PurePosixPath(i.picture.path).stem for i in items]))
        boxes = [np.array(_boxes(item), box_type).reshape(-1, 4) for item in items]
        columns["face_bbx_list"].append(cells(boxes))
        for field, label in _WIDER_LABELS.items():
            values = [
                np.array([label(face) for face in item.faces], label_type).reshape(-1, 1)
                for item in items
            ]
            columns[field].append(cells(values))
    write_mat(path, {name: cells(values) for name, values in columns.items()})


def _wider_occlusion(face: Face) -> int:
    # 0 none, 1 partial (up to 30 %), 2 heavy.
    hidden = max(face.hidden, {"mouth": 0.25, "half": 0.5}.get(face.hand, 0.0))
    return 0 if hidden < 0.05 else 1 if hidden < 0.3 else 2


_WIDER_LABELS = {
    "blur_label_list": lambda face: int(face.box[3] - face.box[1] < 40),
    "expression_label_list": lambda face: 0,
    "illumination_label_list": lambda face: 0,
    "invalid_label_list": lambda face: 0,
    "occlusion_label_list": _wider_occlusion,
    "pose_label_list": lambda face: int(abs(face.yaw) > 0.6),
}
