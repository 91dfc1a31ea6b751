"""The drawn raw tree: the same bytes for a seed, and what the published layouts promise."""

import hashlib
import math
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import scipy.io
from scenes import ScenesError, write_raw_tree

IMAGES = {
    "medical-masks": 24,
    "mafa-train": 12,
    "mafa-test": 6,
    "fddb": 12,
    "widerface-train": 16,
    "widerface-val": 6,
}
SIZE = (240, 180)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "raw"
    counts = write_raw_tree(folder, images=IMAGES, seed=7, size=SIZE, defects=0.25)
    return folder, counts


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_gives_same_bytes_however_many_processes(tmp_path):
    few = {"medical-masks": 4, "mafa-train": 2, "fddb": 2, "widerface-val": 2}
    write_raw_tree(tmp_path / "a", images=few, seed=3, size=SIZE)
    write_raw_tree(tmp_path / "b", images=few, seed=3, size=SIZE, processes=2)
    write_raw_tree(tmp_path / "c", images=few, seed=4, size=SIZE)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    other = digests(tmp_path / "c")
    pictures = {name for name in first if name.endswith(".jpg")}
    assert not {first[name] for name in pictures} & set(other.values())


def test_counts_are_what_was_written(tree):
    folder, counts = tree
    assert {name: count.images for name, count in counts.items()} == IMAGES
    assert sum(count.broken for count in counts.values()) == 6 + 3 + 1 + 3 + 4 + 1
    names = [
        element.text
        for path in (folder / "medical-masks/labels").glob("*.xml")
        for element in _objects(path)
    ]
    faces = counts["medical-masks"].faces
    # The annotation that was cut off and the picture without one are left out here.
    assert 0.7 * sum(faces.values()) <= len(names) <= sum(faces.values())
    assert set(names) <= {"mask", "none", "poor"}


def _objects(path: Path) -> list[ElementTree.Element]:
    try:
        return ElementTree.parse(path).findall("object/name")
    except ElementTree.ParseError:
        return []


def test_voc_has_every_kind_of_defect(tree):
    folder, _ = tree
    images = {path.stem: path for path in (folder / "medical-masks/images").iterdir()}
    labels = {path.stem: path for path in (folder / "medical-masks/labels").iterdir()}
    assert {path.suffix for path in images.values()} == {".jpg", ".jpeg", ".png"}
    assert any(" (" in stem for stem in images)
    assert len(set(labels) - set(images)) == 1  # annotation without picture
    assert len(set(images) - set(labels)) == 1  # picture without annotation
    unreadable = [path for path in images.values() if cv2.imread(str(path)) is None]
    whole = [path for path in images.values() if path.read_bytes()[-2:] == b"\xff\xd9"]
    assert len(unreadable) == 1
    cut = [p for p in images.values() if p.suffix != ".png" and p not in whole + unreadable]
    assert len(cut) == 1
    inverted = no_corner = cut_off = 0
    for path in labels.values():
        try:
            boxes = ElementTree.parse(path).findall("object/bndbox")
        except ElementTree.ParseError:
            cut_off += 1
            continue
        for box in boxes:
            if box.find("xmax") is None:
                no_corner += 1
            else:
                inverted += int(box.findtext("xmin")) > int(box.findtext("xmax"))
    assert (inverted, no_corner, cut_off) == (1, 1, 1)


def test_sizes_stay_within_the_limit(tree):
    folder, _ = tree
    seen = set()
    for path in folder.rglob("*.jpg"):
        picture = cv2.imread(str(path))
        if picture is not None:
            height, width = picture.shape[:2]
            assert max(width, height) <= SIZE[0]
            seen.add((width, height))
    assert len(seen) > 10


def test_mafa_labels_have_the_published_columns(tree):
    folder, counts = tree
    train = scipy.io.loadmat(folder / "mafa/MAFA-Label-Train/LabelTrainAll.mat")["label_train"]
    assert train.shape == (1, IMAGES["mafa-train"])
    assert train.dtype.names == ("orgimgname", "imgname", "label")
    assert train[0, 0]["imgname"].item().startswith("train_")
    rows = np.concatenate([row["label"] for row in train[0]])
    assert rows.dtype == np.int16 and rows.shape[1] == 21
    kind, degree = rows[:, 12], rows[:, 13]
    faces = counts["mafa-train"].faces
    assert np.sum((kind != 3) & (degree > 2)) == faces["mask"]
    assert np.sum(kind == 3) == faces["bare"]
    assert np.sum(rows[:, 2] == 0) == 1  # the box without a width
    test = scipy.io.loadmat(folder / "mafa/MAFA-Label-Test/LabelTestAll.mat")["LabelTest"]
    assert test.shape == (1, IMAGES["mafa-test"]) and test.dtype.names == ("name", "label")
    rows = np.concatenate([row["label"] for row in test[0]])
    assert rows.dtype == np.int16 and rows.shape[1] == 18
    assert set(rows[:, 4].tolist()) <= {1, 2, 3}


def test_fddb_ellipses_are_in_radians_and_faces_counted(tree):
    folder, counts = tree
    faces = 0
    names = []
    for fold in range(1, 11):
        lines = (folder / f"fddb/FDDB-folds/FDDB-fold-{fold:02d}-ellipseList.txt").read_text()
        listed = (folder / f"fddb/FDDB-folds/FDDB-fold-{fold:02d}.txt").read_text().split()
        rows = iter(lines.splitlines())
        own = []
        for name in rows:
            own.append(name)
            for _ in range(int(next(rows))):
                major, minor, angle, _, _, one = map(float, next(rows).split())
                assert major > minor > 0 and abs(angle) <= math.pi / 2 and one == 1
                faces += 1
        assert own == listed
        names += own
    assert faces == sum(counts["fddb"].faces.values())
    assert len(names) == IMAGES["fddb"] and len({name.split("/")[-1] for name in names}) < 12
    assert sum(not (folder / f"fddb/{name}.jpg").exists() for name in names) == 1


@pytest.mark.parametrize("part", ["train", "val"])
def test_wider_matches_the_nesting_of_the_published_file(tree, part, shared_data):
    folder, counts = tree
    name = f"widerface/wider_face_split/wider_face_{part}.mat"
    drawn, real = scipy.io.loadmat(folder / name), scipy.io.loadmat(shared_data / "raw" / name)
    for field in ("event_list", "file_list", "face_bbx_list", "occlusion_label_list"):
        assert _shape(drawn[field]) == _shape(real[field])
    total = sum(
        len(boxes) for (event,) in drawn["face_bbx_list"] for (boxes,) in event if boxes.size
    )
    assert total == sum(counts[f"widerface-{part}"].faces.values())
    stems = {
        f"{event.item()}/{stem.item()}"
        for (event,), (files,) in zip(drawn["event_list"], drawn["file_list"], strict=True)
        for (stem,) in files
    }
    images = folder / f"widerface/WIDER_{part}/images"
    found = {path.relative_to(images).with_suffix("").as_posix() for path in images.rglob("*.jpg")}
    assert found <= stems and len(found) >= len(stems) - 1


def _shape(value: np.ndarray) -> tuple:
    """Dimensions, kind and, for cells, the same of the first one; lengths of columns left out."""
    inner = _shape(value.flat[0]) if value.dtype == object else None
    return value.ndim, value.shape[1:] if value.ndim > 1 else (), value.dtype.kind, inner


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": {"celeba": 3}}, "no data set 'celeba'"),
        ({"images": {"fddb": -1}}, "fddb: -1 pictures"),
        ({"size": (40, 30)}, "size 40x30 is too small"),
        ({"defects": 2.0}, "defects 2.0"),
        ({"processes": 0}, "0 processes"),
    ],
)
def test_wrong_requests_say_what_to_do(tmp_path, arguments, message):
    with pytest.raises(ScenesError, match=message):
        write_raw_tree(tmp_path / "raw", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_content_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ScenesError, match="has content already"):
        write_raw_tree(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
