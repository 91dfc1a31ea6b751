"""The contact sheet: boxes where the labels say, and clear errors for what is no label."""

import numpy as np
import pytest
from check_labels import chosen_names, read_label, sheet, write_sheet
from datasets import tables
from datasets.conversion import label_line
from datasets.errors import DatasetError
from PIL import Image

CLASSES = ("mask", "no-mask")


@pytest.fixture
def kitti(tmp_path):
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    for name, target in (("00-a", "mask"), ("11-b", "no-mask")):
        Image.new("RGB", (640, 320), (128, 128, 128)).save(tmp_path / "images" / f"{name}.jpg")
        label = label_line(target, (100, 60, 300, 260))
        (tmp_path / "labels" / f"{name}.txt").write_text(label)
    rows = [("00-a", "x", "x", ""), ("11-b", "x", "x", ""), ("22-c", "", "", "image is damaged")]
    tables.write(tmp_path / "kaggle.manifest.csv", tables.MANIFEST, rows)
    return tmp_path


def test_boxes_are_green_and_red_where_the_labels_are(kitti, log):
    page = np.asarray(sheet(["00-a", "11-b"], kitti, CLASSES, "kaggle, train", log), int)
    # A 640 x 320 picture is drawn 320 wide; the second starts one cell and a margin further.
    green = (page == (0, 170, 60)).all(axis=2)
    red = (page == (225, 30, 30)).all(axis=2)
    head = 34
    for found, start in ((green, 6), (red, 6 + 326)):
        rows, columns = np.nonzero(found[head:])
        assert (columns.min() - start, columns.max() - start) == (50, 150)
        assert (rows.min(), rows.max()) == (30, 130)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_sheet_is_written_whole(kitti, log, suffix):
    output = kitti / "out" / f"kaggle.{suffix}"
    write_sheet(kitti / "kaggle.manifest.csv", output, CLASSES, "kaggle", log)
    with Image.open(output) as image:
        assert image.width == 2 * 326 + 6
    assert list(output.parent.iterdir()) == [output]


def test_a_dataset_without_chosen_images_has_a_sheet_too(kitti, log):
    (kitti / "kaggle.manifest.csv").write_text("name,image_sha256,label_sha256,error\n")
    output = kitti / "out/kaggle.jpg"
    write_sheet(kitti / "kaggle.manifest.csv", output, CLASSES, "kaggle", log)
    with Image.open(output) as image:
        assert image.size == (480, 34 + 44 + 6)


def test_images_with_an_error_are_left_out(kitti):
    assert chosen_names(kitti / "kaggle.manifest.csv") == ["00-a", "11-b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask 0 0 0 1 2 3 4 0 0 0 0 0 0\n", "line 1: 14 columns, not 15"),
        ("mask 0 0 0 1 2 x 4 0 0 0 0 0 0 0\n", "line 1: could not convert"),
    ],
)
def test_a_line_that_is_no_label_is_named(kitti, text, message):
    path = kitti / "labels/00-a.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_label(path)


def test_an_unknown_class_is_named(kitti, log):
    (kitti / "labels/00-a.txt").write_text(label_line("hat", (1, 2, 3, 4)))
    with pytest.raises(DatasetError, match="00-a: class hat is none of mask, no-mask"):
        sheet(["00-a"], kitti, CLASSES, "kaggle", log)


def test_a_dataset_of_which_nothing_was_chosen_has_a_sheet_that_says_so(kitti, log):
    tables.write(kitti / "fddb.manifest.csv", tables.MANIFEST, [])
    write_sheet(kitti / "fddb.manifest.csv", kitti / "fddb.png", CLASSES, "fddb", log)
    with Image.open(kitti / "fddb.png") as image:
        assert len(image.getcolors(1 << 16)) > 4
