"""Builders of small raw datasets in the four layouts, and of the logs that the functions want."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from datasets.program import Log
from PIL import Image

VOC_OBJECT = (
    "<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
    "<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
)


@pytest.fixture
def log(tmp_path):
    """A log whose text is `log.text()`."""
    path = tmp_path / "log.txt"
    log = Log(path)
    log.text = lambda: path.read_text(encoding="utf-8")
    yield log
    log.close()


@pytest.fixture
def photo():
    """A function that writes a picture with structure of its own: path, size, seed."""

    def write(path, size=(64, 48), seed=0, **options) -> Path:
        path = Path(os.fsdecode(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        suffix = path.suffix.lower()
        with path.open("wb") as file:
            image.save(file, "PNG" if suffix == ".png" else "JPEG", **options)
        return path

    return write


@pytest.fixture
def voc(tmp_path, photo):
    """A function that makes a VOC dataset: {image name: [(class, x1, y1, x2, y2), ...]}."""

    def make(images, root=None, class_map=None, **options):
        root = root or tmp_path / "voc"
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "labels").mkdir(parents=True, exist_ok=True)
        for seed, (name, faces) in enumerate(images.items()):
            photo(root / "images" / name, seed=seed)
            objects = "".join(
                VOC_OBJECT.format(name=face[0], x1=face[1], y1=face[2], x2=face[3], y2=face[4])
                for face in faces
            )
            label = root / "labels" / Path(name).with_suffix(".xml")
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"<annotation>{objects}</annotation>", encoding="utf-8")
        return {
            "root": str(root),
            "layout": "voc",
            "class_map": class_map or {"mask": "mask", "none": "no-mask", "poor": None},
            "splits": {"train": {"images": "images", "annotations": "labels"}},
            **options,
        }

    return make


def mafa_struct(fields, entries):
    """A MATLAB struct array of (name, ..., label matrix) as scipy writes it back."""
    array = np.empty((1, len(entries)), dtype=[(field, "O") for field in fields])
    for index, entry in enumerate(entries):
        array[0, index] = entry
    return array


@pytest.fixture
def mafa(tmp_path, photo):
    """A function that makes a MAFA train split: {image name: label matrix}."""

    def make(images, size=(64, 48), **options):
        root = tmp_path / "mafa"
        root.mkdir(exist_ok=True)
        for seed, name in enumerate(images):
            photo(root / "images" / name, size, seed)
        entries = [(name, name, np.array(rows, np.int16)) for name, rows in images.items()]
        scipy.io.savemat(
            root / "LabelTrainAll.mat",
            {"label_train": mafa_struct(("orgimgname", "imgname", "label"), entries)},
        )
        return {
            "root": str(root),
            "layout": "mafa",
            "class_map": {"mask": "mask", "no-mask": "no-mask"},
            "splits": {"train": {"images": "images", "annotations": "LabelTrainAll.mat"}},
            **options,
        }

    return make


def mafa_row(box, occ_type, occ_degree):
    """A row of MAFA's `label_train`: 18 columns."""
    return [*box, 0, 0, 0, 0, 0, 0, 0, 0, occ_type, occ_degree, -1, -1, -1, -1]


def cells(values):
    """A MATLAB cell column of `values`."""
    array = np.empty((len(values), 1), dtype=object)
    for index, value in enumerate(values):
        array[index, 0] = value
    return array


@pytest.fixture
def widerface(tmp_path, photo):
    """A function that makes a WIDER FACE split: {event: {image: [[x, y, w, h, occlusion], ...]}}.

    Returns the dataset; the .mat nests cells as the published one does.
    """

    def make(annotated, **options):
        root = tmp_path / "wider"
        root.mkdir(exist_ok=True)
        files, boxes, occlusions = [], [], []
        for event, images in annotated.items():
            for seed, name in enumerate(images):
                photo(root / "images" / event / f"{name}.jpg", seed=seed)
            rows = [np.array(faces, float).reshape(-1, 5) for faces in images.values()]
            files.append(cells(list(images)))
            boxes.append(cells([row[:, :4] for row in rows]))
            occlusions.append(cells([row[:, 4:].astype(np.uint8) for row in rows]))
        scipy.io.savemat(
            root / "wider_face_train.mat",
            {
                "event_list": cells(list(annotated)),
                "file_list": cells(files),
                "face_bbx_list": cells(boxes),
                "occlusion_label_list": cells(occlusions),
            },
        )
        return {
            "root": str(root),
            "layout": "widerface",
            "class_map": {"face": "no-mask"},
            "splits": {"train": {"images": "images", "annotations": "wider_face_train.mat"}},
            **options,
        }

    return make


@pytest.fixture
def fddb(tmp_path, photo):
    """A function that makes an FDDB dataset from the text of one ellipse list."""

    def make(text, images, **options):
        root = tmp_path / "fddb"
        for seed, name in enumerate(images):
            photo(root / f"{name}.jpg", (100, 80), seed)
        (root / "FDDB-folds").mkdir(parents=True, exist_ok=True)
        (root / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt").write_text(text, encoding="utf-8")
        return {
            "root": str(root),
            "layout": "fddb",
            "class_map": {"face": "no-mask"},
            "splits": {"train": {"images": ".", "annotations": "FDDB-folds"}},
            **options,
        }

    return make
