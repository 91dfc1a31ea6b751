"""The recipe's numbers on real photographs, from annotation to selection and fold 0."""

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from choose_faces import choose, selection
from datasets import tables
from datasets.conversion import Settings, convert, tasks_of
from datasets.program import Log
from group_duplicates import group_duplicates
from index import index

CLASSES = ("mask", "no-mask")
LAYOUTS = {
    "kaggle": {
        "root": "medical-masks",
        "layout": "voc",
        "class_map": {"mask": "mask", "none": "no-mask", "poor": None},
        "splits": {"train": ("images", "labels")},
    },
    "mafa": {
        "root": "mafa",
        "layout": "mafa",
        "class_map": {"mask": "mask", "no-mask": "no-mask"},
        "splits": {
            "train": ("train-images/images", "MAFA-Label-Train/LabelTrainAll.mat"),
            "val": ("test-images/images", "MAFA-Label-Test/LabelTestAll.mat"),
        },
    },
    "fddb": {
        "root": "fddb",
        "layout": "fddb",
        "class_map": {"face": "no-mask"},
        "splits": {"train": (".", "FDDB-folds")},
    },
    "widerface": {
        "root": "widerface",
        "layout": "widerface",
        "class_map": {"face": "no-mask"},
        "splits": {
            "train": ("WIDER_train/images", "wider_face_split/wider_face_train.mat"),
            "val": ("WIDER_val/images", "wider_face_split/wider_face_val.mat"),
        },
    },
}


@pytest.fixture(scope="module")
def datasets(shared_data):
    return {
        name: {
            **layout,
            "root": str(shared_data / "raw" / layout["root"]),
            "splits": {
                split: {"images": images, "annotations": annotations}
                for split, (images, annotations) in layout["splits"].items()
            },
        }
        for name, layout in LAYOUTS.items()
    }


def write_indexes(datasets, split, folder):
    """Index every dataset that has the split; the paths by name."""
    paths = {}
    for name, dataset in datasets.items():
        if split in dataset["splits"]:
            rows = index(name, dataset, split, CLASSES, 0.0, Log(folder / "log"), threads=2)
            paths[name] = folder / f"{name}.csv"
            tables.write(paths[name], tables.INDEX, rows)
    return paths


@pytest.fixture(scope="module")
def train(datasets, tmp_path_factory):
    return write_indexes(datasets, "train", tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def val(datasets, tmp_path_factory):
    return write_indexes(datasets, "val", tmp_path_factory.mktemp("val"))


def by_cell(counts, column):
    return {row[:2]: row[column] for row in counts if row[column]}


def test_train_counts_are_the_recipes_in_faces(train):
    taken, counts = choose(train, CLASSES, 6000)
    assert len(taken) == 4842
    assert Counter(image.dataset for image in taken) == {
        "kaggle": 1127,
        "mafa": 868,
        "fddb": 1507,
        "widerface": 1340,
    }
    labelled = {
        ("kaggle", "mask"): 4185,
        ("kaggle", "no-mask"): 796,
        ("mafa", "mask"): 841,
        ("mafa", "no-mask"): 139,
        ("fddb", "no-mask"): 2868,
        ("widerface", "no-mask"): 2133,
    }
    assert by_cell(counts, 2) == labelled
    assert by_cell(counts, 3) == {**labelled, ("widerface", "no-mask"): 2131}
    assert sum(row[3] for row in counts if row[1] == "mask") == 5026
    assert sum(row[3] for row in counts if row[1] == "no-mask") == 796 + 139 + 2868 + 2131


def test_every_face_left_out_of_train_has_its_reason(train):
    reasons = {
        name: Counter(row["dropped"] for row in tables.read(path, tables.INDEX) if row["dropped"])
        for name, path in train.items()
    }
    assert reasons == {
        "kaggle": {"class poor is mapped to null": 39},
        "mafa": {"neither mask nor no-mask by occ_type, occ_degree and face_type": 50},
        "fddb": {},
        "widerface": {"box is empty": 2},
    }
    assert sum(1 for _ in tables.read(train["kaggle"], tables.INDEX)) == 4185 + 796 + 39


def test_inverted_boxes_are_put_right_and_all_boxes_lie_inside(train, datasets):
    for path in train.values():
        for row in tables.read(path, tables.INDEX):
            if row["class"] and not row["dropped"]:
                x1, y1, x2, y2 = (float(row[corner]) for corner in ("x1", "y1", "x2", "y2"))
                assert 0 <= x1 < x2 <= int(row["width"])
                assert 0 <= y1 < y2 <= int(row["height"])
    inverted = 0
    for label in Path(datasets["kaggle"]["root"], "labels").glob("*.xml"):
        text = label.read_text(encoding="utf-8")
        for box in text.split("<xmin>")[1:]:
            inverted += int(box.split("<")[0]) > int(box.split("<xmax>")[1].split("<")[0])
    assert inverted == 91


@pytest.mark.slow
def test_every_image_that_the_recipe_writes_is_written(train, datasets, tmp_path):
    taken, _ = choose(train, CLASSES, 6000)
    groups = {
        (image.dataset, image.image): sha256(f"{image.dataset} {image.image}".encode()).hexdigest()
        for image in taken
    }
    groups = {key: digest[:8] for key, digest in groups.items()}
    folders = {name: dataset["splits"]["train"]["images"] for name, dataset in datasets.items()}
    log = Log(tmp_path / "log")
    rows = selection(taken, groups, folders, 20, 0.02, log)
    tables.write(tmp_path / "train.csv", tables.SELECTION, rows)
    settings = Settings(960, 544, 90)
    faces = Counter(row[5] for row in rows)
    for name, dataset in datasets.items():
        tasks = tasks_of(name, tmp_path / "train.csv", dataset["root"], settings)
        manifest = convert(name, tasks, tmp_path / "kitti", settings, 0.0, log, threads=2)
        assert [row[0] for row in manifest] == [task.name for task in tasks]
    images = {path.stem for path in (tmp_path / "kitti/images").iterdir()}
    labels = list((tmp_path / "kitti/labels").iterdir())
    assert len(images) == 4842
    assert {path.stem for path in labels} == images
    lines = [line.split() for path in labels for line in path.read_text().splitlines()]
    assert Counter(line[0] for line in lines) == {name: faces[name] for name in CLASSES}
    assert all(len(line) == 15 for line in lines)
    # NVIDIA's converter of tfrecords takes whole pixels, and throws away what has no area then.
    boxes = [[int(float(value)) for value in line[4:8]] for line in lines]
    assert sum(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in boxes) == 0


def test_val_counts_with_no_mask_of_mafa_test(val):
    taken, counts = choose(val, CLASSES, 6000)
    # The recipe writes 287 images: it leaves out MAFA's portrait ones after counting their faces.
    assert len(taken) == 287
    assert by_cell(counts, 2) == {
        ("mafa", "mask"): 224,
        ("mafa", "no-mask"): 27,
        ("widerface", "no-mask"): 236,
    }
    assert by_cell(counts, 3) == {
        ("mafa", "mask"): 129,
        ("mafa", "no-mask"): 7,
        ("widerface", "no-mask"): 236,
    }


def test_val_takes_all_faces_of_mafa_test_without_min_aspect(datasets, tmp_path):
    mafa = {**datasets["mafa"], "min_aspect": 0}
    paths = write_indexes({"mafa": mafa}, "val", tmp_path)
    _, counts = choose(paths, CLASSES, 6000)
    assert [(row[1], row[3]) for row in counts] == [("mask", 224), ("no-mask", 27)]


def test_fold_0_has_both_classes_and_divides_no_group(train, datasets, tmp_path):
    log = Log(tmp_path / "log")
    roots = {name: dataset["root"] for name, dataset in datasets.items()}
    groups = {row[:2]: row[2] for row in group_duplicates(train, roots, 12, 0.87, log, 2)}
    sizes = Counter(groups.values())
    assert 30 <= sum(size > 1 for size in sizes.values()) <= 60
    assert max(sizes.values()) <= 4
    taken, _ = choose(train, CLASSES, 6000)
    folders = {name: dataset["splits"]["train"]["images"] for name, dataset in datasets.items()}
    rows = selection(taken, groups, folders, 20, 0.02, log)
    names = sorted({row[2] for row in rows})
    assert len(names) == 4842
    border = int(0.2 * len(names))
    first = set(names[:border])
    assert {row[5] for row in rows if row[2] in first} >= set(CLASSES)
    assert {row[0] for row in rows if row[2] in first} == set(datasets)
    sides = {}
    for row in rows:
        sides.setdefault(groups[row[0], row[1]], set()).add(row[2] in first)
    assert all(len(side) == 1 for side in sides.values())
    images = {name: Counter(row[0] for row in rows if row[2] == name) for name in names[:50]}
    assert all(len(count) == 1 for count in images.values())
