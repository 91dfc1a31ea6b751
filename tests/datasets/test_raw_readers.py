"""The four readers on small datasets, good and bad, and on FDDB's complete official lists."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from datasets import fddb as fddb_reader
from datasets import mafa as mafa_reader
from datasets.errors import DatasetError, missing_data
from datasets.layouts import LAYOUTS, options_of, read_split


def faces(image):
    return [(face.raw_class, face.box, bool(face.dropped)) for face in image.faces]


@pytest.mark.parametrize(
    ("occ_type", "occ_degree", "expected"),
    [
        (1, 3, "mask"),
        (2, 3, "mask"),
        (1, 2, ""),
        (3, 3, ""),
        (3, 1, "no-mask"),
        (3, 2, ""),
        (1, 1, ""),
    ],
)
def test_mafa_train_rule(occ_type, occ_degree, expected):
    assert mafa_reader.train_class([0.0] * 12 + [occ_type, occ_degree]) == expected


@pytest.mark.parametrize(
    ("face_type", "occ_type", "occ_degree", "expected"),
    [
        (1, 1, 3, "mask"),
        (1, 3, 3, ""),
        (1, 1, 2, ""),
        (2, 1, 3, "no-mask"),
        (2, 3, 1, "no-mask"),
        (3, 1, 3, ""),
    ],
)
def test_mafa_test_rule(face_type, occ_type, occ_degree, expected):
    row = [0.0] * 4 + [face_type, 0, 0, 0, 0, occ_type, occ_degree]
    assert mafa_reader.test_class(row) == expected


def mafa_file(path, variable, fields, entries):
    array = np.empty((1, len(entries)), dtype=[(field, "O") for field in fields])
    for index, entry in enumerate(entries):
        array[0, index] = entry
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {variable: array})
    return path


def test_mafa_reads_corner_width_height_without_overflow(tmp_path):
    row = [30000, 1, 10000, 3, *[0] * 8, 1, 3, -1, -1, -1, -1]
    path = mafa_file(
        tmp_path / "t.mat",
        "label_train",
        ("orgimgname", "imgname", "label"),
        [("o.jpg", "a.jpg", np.array([row], np.int16)), ("o.jpg", "b.jpg", np.zeros((0, 0)))],
    )
    first, second = mafa_reader.read(tmp_path, path, {})
    assert first.path == "a.jpg"
    assert faces(first) == [("mask", (30000.0, 1.0, 40000.0, 4.0), False)]
    assert second.faces == []
    assert not second.error


def test_mafa_reads_the_test_split_by_its_own_columns(tmp_path):
    rows = [[1, 2, 3, 4, 2, *[-1] * 13], [1, 2, 3, 4, 3, *[-1] * 13]]
    path = mafa_file(
        tmp_path / "t.mat", "LabelTest", ("name", "label"), [("a.jpg", np.array(rows, np.int16))]
    )
    (image,) = mafa_reader.read(tmp_path, path, {})
    assert [face.raw_class for face in image.faces] == ["no-mask", "face"]
    assert [bool(face.dropped) for face in image.faces] == [False, True]


def test_mafa_marks_entries_with_too_few_columns_or_no_name(tmp_path):
    path = mafa_file(
        tmp_path / "t.mat",
        "LabelTest",
        ("name", "label"),
        [("a.jpg", np.ones((2, 5))), (np.zeros((0,)), np.ones((1, 18))), ("c.jpg", "text")],
    )
    errors = [image.error for image in mafa_reader.read(tmp_path, path, {})]
    assert errors[0] == "label is 2x5 of float64, not numbers in 11 columns"
    assert errors[1] == "entry without an image name"
    assert "not numbers in 11 columns" in errors[2]


def test_a_mat_of_the_wrong_kind_is_named(tmp_path, mafa, widerface):
    good_mafa = mafa({"a.jpg": [[1, 2, 3, 4, *[0] * 8, 1, 3, 0, 0, 0, 0]]})
    good_wider = widerface({"9--Press_Conference": {"x": [[1, 2, 3, 4, 0]]}})
    mixed = {**good_mafa, "layout": "widerface"}
    with pytest.raises(DatasetError, match=r"has no event_list, .* but label_train; is it WIDER"):
        read_split("w", mixed, "train")
    mixed = {**good_wider, "layout": "mafa"}
    with pytest.raises(DatasetError, match="neither label_train nor LabelTest but event_list"):
        read_split("m", mixed, "train")


@pytest.mark.parametrize(
    "content", [b"", b"no mat at all" * 50, b"MATLAB 5.0 MAT-file" + b"\0" * 500]
)
def test_a_damaged_mat_is_one_clear_error(content, mafa):
    dataset = mafa({"a.jpg": [[1, 2, 3, 4, *[0] * 8, 1, 3, 0, 0, 0, 0]]})
    Path(dataset["root"], "LabelTrainAll.mat").write_bytes(content)
    with pytest.raises(DatasetError, match=r"LabelTrainAll.mat") as caught:
        read_split("mafa", dataset, "train")
    assert "\n" not in str(caught.value)


def test_a_mat_cut_short_is_one_clear_error(mafa):
    dataset = mafa({f"{n}.jpg": [[1, 2, 3, 4, *[0] * 8, 1, 3, 0, 0, 0, 0]] for n in range(9)})
    path = Path(dataset["root"], "LabelTrainAll.mat")
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DatasetError, match=r"LabelTrainAll.mat"):
            read_split("mafa", dataset, "train")


def test_fddb_ellipse_bounds_are_exact():
    """Against the extent of the drawn ellipse; the recipe's degrees would be far off."""
    major, minor, angle, x, y = 80.0, 50.0, -1.1, 200.0, 150.0
    t = np.linspace(0, 2 * math.pi, 100_001)
    outline_x = x + major * np.cos(t) * math.cos(angle) - minor * np.sin(t) * math.sin(angle)
    outline_y = y + major * np.cos(t) * math.sin(angle) + minor * np.sin(t) * math.cos(angle)
    bounds = fddb_reader.ellipse_bounds(major, minor, angle, x, y)
    expected = (outline_x.min(), outline_y.min(), outline_x.max(), outline_y.max())
    assert bounds == pytest.approx(expected, abs=1e-5)


def test_fddb_upright_ellipse():
    assert fddb_reader.ellipse_bounds(40, 30, math.pi / 2, 100, 100) == pytest.approx(
        (70, 60, 130, 140)
    )


GOOD = (
    "2002/08/31/big/img_1\n1\n10 5 0 50 40  1\n"
    "2003/01/02/big/img_1\n2\n9 6 0 30 30 1\n9 6 0 60 30 1\n"
)


def test_fddb_names_keep_their_folder():
    images = fddb_reader.parse(GOOD, "list")
    assert [image.path for image in images] == [
        "2002/08/31/big/img_1.jpg",
        "2003/01/02/big/img_1.jpg",
    ]
    assert [len(image.faces) for image in images] == [1, 2]
    assert images[0].faces[0].box == pytest.approx((40, 35, 60, 45))


@pytest.mark.parametrize("lines", range(1, 7))
def test_fddb_list_cut_short_at_any_line(lines):
    text = "\n".join(GOOD.splitlines()[:lines])
    images = fddb_reader.parse(text, "list")
    expected_good = {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1}[lines]
    assert sum(not image.error for image in images) == expected_good
    assert all("list line" in image.error for image in images[expected_good:])


def test_fddb_goes_on_after_a_fault():
    text = (
        "a/b\n2\n10 5 0 50 40 1\nc/d\n1\n10 5 0 50 x 1\ne/f\nmany\n9 9 0 9 9 1\n"
        "g/h\n1\n9 9 0 9 9 1\n9 9 0 9 9 1\n"
    )
    cut, malformed, uncounted, surplus = fddb_reader.parse(text, "list")
    assert cut.error == "list line 4: cut short, 1 of 2 ellipses"
    assert malformed.faces[0].malformed == "list line 6: '10 5 0 50 x 1' is no ellipse"
    assert uncounted.error == "list line 8: no number of faces"
    assert surplus.error == "list line 13: more ellipses than announced"


def test_fddb_complete_official_lists(shared_data):
    annotated = fddb_reader.read(
        shared_data, shared_data / "annotations-only" / "FDDB-folds", LAYOUTS["fddb"].options
    )
    assert not [image for image in annotated if image.error]
    assert len({image.path for image in annotated}) == 2845
    assert sum(face.counts for image in annotated for face in image.faces) == 5171


def test_widerface_rules(widerface):
    dataset = widerface(
        {
            "9--Press_Conference": {
                "few": [[1, 2, 3, 4, 0], [5, 5, 5, 5, 2]],
                "many": [[n, 2, 3, 4, 0] for n in range(4)],
                "covered": [[n, 2, 3, 4, 0] for n in range(3)] + [[9, 2, 3, 4, 1]],
            },
            "0--Parade": {"out": [[1, 2, 3, 4, 0]]},
        }
    )
    few, many, covered, out = read_split("wider", dataset, "train")
    assert few.path == "9--Press_Conference/few.jpg"
    assert few.faces[0].box == (1.0, 2.0, 4.0, 6.0)
    assert [face.dropped for face in few.faces] == ["", "occlusion 2"]
    assert {face.dropped for face in many.faces} == {"more than 3 faces are left (max_faces)"}
    assert [face.counts for face in covered.faces] == [True, True, True, False]
    assert out.faces[0].dropped == "event is not in the pick list"


def test_widerface_options(widerface):
    events = {"0--Parade": {"a": [[n, 2, 3, 4, 1] for n in range(5)]}}
    dataset = widerface(events, events=["0--Parade"], max_faces=5, max_occlusion=1)
    (image,) = read_split("wider", dataset, "train")
    assert all(face.counts for face in image.faces)


def test_the_recipes_events_are_those_of_its_pick_list():
    options = LAYOUTS["widerface"].options
    assert len(options["events"]) == 24
    assert options["max_faces"] == 3
    assert options["max_occlusion"] == 0


def test_only_mafa_leaves_out_portrait_images(voc):
    assert {name: layout.options["min_aspect"] for name, layout in LAYOUTS.items()} == {
        "voc": 0.0,
        "mafa": 1.0,
        "fddb": 0.0,
        "widerface": 0.0,
    }
    assert options_of(voc({}, min_aspect=0.5), "train")["min_aspect"] == 0.5


def test_an_image_annotated_twice_is_marked(fddb):
    dataset = fddb(GOOD + GOOD, [])
    errors = [image.error for image in read_split("fddb", dataset, "train")]
    assert errors == ["", "", *["annotated twice; the first annotation is used"] * 2]


@pytest.mark.parametrize("layout", ["voc", "mafa", "fddb", "widerface"])
def test_a_dataset_without_any_image_is_one_line(layout, request):
    """Its folders and annotations are there; nothing is in them."""
    make = request.getfixturevalue(layout)
    dataset = make("", []) if layout == "fddb" else make({})
    Path(dataset["root"], dataset["splits"]["train"]["images"]).mkdir(exist_ok=True)
    with pytest.raises(DatasetError) as caught:
        read_split("ours", dataset, "train")
    message = str(caught.value)
    assert message.startswith(f"dataset ours, train: no image in {dataset['root']}")
    assert "are datasets.ours.layout and datasets.ours.splits.train right?" in message
    assert "\n" not in message


def test_a_folder_without_ellipse_lists_is_one_line(fddb):
    dataset = fddb(GOOD, [])
    next(Path(dataset["root"], "FDDB-folds").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"FDDB-folds holds no file like \*-ellipseList.txt"):
        read_split("fddb", dataset, "train")


def test_missing_and_empty_datasets_are_one_line(voc, tmp_path):
    dataset = voc({})
    with pytest.raises(DatasetError, match=r"no image in .*splits.train right"):
        read_split("kaggle", dataset, "train")
    with pytest.raises(DatasetError, match="splits has no val"):
        read_split("kaggle", dataset, "val")
    with pytest.raises(DatasetError, match="layout 'coco' is unknown; known layouts: voc"):
        read_split("kaggle", {**dataset, "layout": "coco"}, "train")
    gone = {**dataset, "root": str(tmp_path / "gone")}
    with pytest.raises(DatasetError) as caught:
        read_split("kaggle", gone, "train")
    message = str(caught.value)
    assert "datasets.kaggle.root" in message
    assert str(tmp_path / "gone") in message
    assert "kaggle.com" in message
    assert "\n" not in message
    dataset["splits"]["train"]["annotations"] = "nothing"
    with pytest.raises(DatasetError, match=r"voc/nothing does not exist"):
        read_split("kaggle", dataset, "train")


def recipe(folder):
    """MAFA as the recipe's config has it, unpacked in `folder`; what is missing of it first."""
    for name in ("train", "test"):
        (folder / f"{name}-images/images").mkdir(parents=True)
        label = folder / f"MAFA-Label-{name.title()}"
        label.mkdir()
        (label / f"Label{name.title()}All.mat").touch()
    splits = {
        split: {
            "images": f"{name}-images/images",
            "annotations": f"MAFA-Label-{name.title()}/Label{name.title()}All.mat",
        }
        for split, name in (("train", "train"), ("val", "test"))
    }
    return {"layout": "mafa", "root": str(folder), "splits": splits}


def test_a_whole_dataset_has_nothing_missing(tmp_path):
    assert missing_data("mafa", recipe(tmp_path)) is None


def test_a_dataset_unpacked_a_folder_too_deep_is_found(tmp_path):
    dataset = recipe(tmp_path / "archive/MAFA") | {"root": str(tmp_path)}
    assert missing_data("mafa", dataset) == (
        f"dataset mafa: {tmp_path}/train-images/images does not exist (datasets.mafa.root is"
        f" {tmp_path}); {tmp_path}/archive/MAFA has it all: put /archive/MAFA at the end of"
        " datasets.mafa.root"
    )


@pytest.mark.parametrize(
    ("moved", "to"),
    [
        ("test-images", "test-images/test-images"),
        ("MAFA-Label-Test/LabelTestAll.mat", "labels/LabelTestAll.mat"),
    ],
)
def test_a_part_that_lies_elsewhere_is_found(tmp_path, moved, to):
    dataset = recipe(tmp_path)
    (tmp_path / moved).rename(tmp_path / "aside")
    (tmp_path / to).parent.mkdir()
    (tmp_path / "aside").rename(tmp_path / to)
    found = f"{to}/images" if moved == "test-images" else to
    line = missing_data("mafa", dataset)
    assert f"; {tmp_path}/{found} does: name {found} in datasets.mafa.splits, or move it" in line


def test_a_part_that_is_nowhere_is_one_line(tmp_path):
    dataset = recipe(tmp_path)
    (tmp_path / "test-images/images").rmdir()
    line = missing_data("mafa", dataset)
    assert line.startswith(f"dataset mafa: {tmp_path}/test-images/images does not exist")
    assert line.endswith("unpack it there, or correct datasets.mafa.splits (docs/datasets.md)")
