"""The index of a split: corner rules, class map, reasons, and when a dataset is refused."""

import os
import struct
from pathlib import Path

import pytest
from datasets import tables
from datasets.boxes import EMPTY, OUTSIDE, corrected
from datasets.errors import DatasetError
from datasets.program import Log
from index import index

CLASSES = ("mask", "no-mask")


def indexed(dataset, log, name="kaggle", max_bad_fraction=0.02):
    rows = index(name, dataset, "train", CLASSES, max_bad_fraction, log, threads=1)
    return [dict(zip(tables.INDEX, row, strict=True)) for row in rows]


def corners(row):
    return [row[corner] for corner in ("x1", "y1", "x2", "y2")]


@pytest.mark.parametrize(
    ("box", "expected", "reason"),
    [
        ((1, 2, 30, 40), (1, 2, 30, 40), ""),
        ((30, 40, 1, 2), (1, 2, 30, 40), ""),
        ((-5, -6, 70, 50), (0, 0, 64, 48), ""),
        ((5, 6, 5, 9), (5, 6, 5, 9), EMPTY),
        ((5, 9, 7, 9), (5, 9, 7, 9), EMPTY),
        ((64, 0, 70, 5), (64, 0, 70, 5), OUTSIDE),
        ((-9, 0, -1, 5), (-9, 0, -1, 5), OUTSIDE),
    ],
)
def test_corner_rules(box, expected, reason):
    assert corrected(box, 64, 48) == (expected, reason)


def test_rows_have_size_class_box_and_reason(voc, log):
    faces = [
        ("mask", 30, 40, 1, 2),
        ("none", 5, 5, 5, 9),
        ("poor", 1, 1, 2, 2),
        ("hat", 1, 1, 2, 2),
    ]
    rows = indexed(voc({"a.jpg": faces}), log)
    assert {(row["image"], row["width"], row["height"]) for row in rows} == {
        ("images/a.jpg", 64, 48)
    }
    assert [(row["class"], row["dropped"]) for row in rows] == [
        ("mask", ""),
        ("no-mask", "box is empty"),
        ("poor", "class poor is mapped to null"),
        ("hat", "class hat is not in class_map"),
    ]
    assert corners(rows[0]) == ["1", "2", "30", "40"]


def test_a_class_that_the_map_lacks_is_told_and_one_that_it_leaves_out_is_not(voc, capsys):
    faces = [("mask", 30, 40, 1, 2), ("poor", 1, 1, 2, 2), ("hat", 1, 1, 2, 2)]
    indexed(voc({"a.jpg": faces}), Log(None))
    told = capsys.readouterr().err
    assert "1 x class hat is not in class_map" in told
    assert "poor" not in told


def test_any_voc_dataset_needs_only_a_class_map(voc, log):
    dataset = voc(
        {"a.jpg": [("with_mask", 1, 1, 9, 9), ("without_mask", 10, 1, 19, 9)]},
        class_map={"with_mask": "mask", "without_mask": "no-mask", "mask_weared_incorrect": None},
    )
    assert [row["class"] for row in indexed(dataset, log, "andrewmvd")] == ["mask", "no-mask"]


def test_images_of_another_size_than_annotated_are_told(voc, log):
    dataset = voc({f"{name}.jpg": [("mask", 1, 1, 20, 20)] for name in ("as_is", "none", "turned")})
    for name, width, height in (("as_is", 64, 48), ("none", 0, 0), ("turned", 48, 64)):
        label = Path(dataset["root"], f"labels/{name}.xml")
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        label.write_text(label.read_text().replace("<object>", f"{size}<object>", 1))
    rows = index("kaggle", dataset, "train", CLASSES, 0.0, log)
    assert len(rows) == 3
    (line,) = [line for line in log.text().splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: kaggle: 1 images have another size than their annotation says")
    assert line.endswith("first: turned.jpg is 64 x 48, annotated as 48 x 64")


def test_an_image_whose_boxes_have_no_area_stays_as_background(voc, log):
    rows = indexed(voc({"a.jpg": [("mask", 5, 5, 5, 9)], "b.jpg": [("mask", 1, 1, 9, 9)]}), log)
    assert [(row["class"], row["dropped"]) for row in rows[:2]] == [
        ("mask", "box is empty"),
        ("", ""),
    ]


def test_portrait_images_follow_min_aspect_in_every_layout(voc, mafa, photo, log):
    dataset = voc({"a.jpg": [("mask", 1, 1, 9, 9)], "b.jpg": [("mask", 1, 1, 9, 9)]}, min_aspect=1)
    photo(Path(dataset["root"], "images/a.jpg"), (48, 64))
    reasons = [row["dropped"] for row in indexed(dataset, log)]
    assert reasons == ["width / height is below min_aspect 1", ""]
    row = [1, 2, 3, 4, *[0] * 8, 1, 3, 0, 0, 0, 0]
    portrait = mafa({"a.jpg": [row]}, (48, 64))
    with pytest.raises(DatasetError, match=r"all 1 faces are dropped; .* below min_aspect 1"):
        indexed(portrait, log, "mafa")
    assert not indexed({**portrait, "min_aspect": 0}, log, "mafa")[0]["dropped"]


BAD_IMAGES = {
    "empty": (b"", "image is empty"),
    "text": (b"not a picture", "image header is damaged or of no known format"),
    "jpeg-cut": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image ends before its frame header"),
    "jpeg-noise": (b"\xff\xd8" + b"\x13" * 40, "image header is damaged"),
    "png-zero": (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 20,
        "image header says 0 x 0 pixels",
    ),
    "bmp-too-big": (
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
        "image is too big: Image size (3600000000 pixels) exceeds limit of 178956970 pixels, could"
        " be decompression bomb DOS attack.",
    ),
}


@pytest.mark.parametrize("content", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_corrupt_header_drops_the_image_with_its_reason(content, voc, log):
    data, reason = content
    dataset = voc({"a.jpg": [("mask", 1, 1, 9, 9)], "b.jpg": [("mask", 1, 1, 9, 9)]})
    Path(dataset["root"], "images/a.jpg").write_bytes(data)
    rows = indexed(dataset, log, max_bad_fraction=0.5)
    assert [(row["image"], row["class"], row["dropped"]) for row in rows] == [
        ("images/a.jpg", "", reason),
        ("images/b.jpg", "mask", ""),
    ]
    assert f"bad: kaggle: images/a.jpg: {reason}" in log.text()
    assert "1 bad images" in log.text()


def test_a_missing_image_is_reported(mafa, log):
    row = [1, 2, 3, 4, *[0] * 8, 1, 3, 0, 0, 0, 0]
    dataset = mafa({"a.jpg": [row], "b.jpg": [row]})
    Path(dataset["root"], "images/a.jpg").unlink()
    assert indexed(dataset, log, "mafa", 0.5)[0]["dropped"] == "image is missing"


def test_images_in_a_folder_below_are_found_for_the_message(mafa, log):
    row = [1, 2, 3, 4, *[0] * 8, 1, 3, 0, 0, 0, 0]
    dataset = mafa({"a.jpg": [row], "b.jpg": [row]})
    images = Path(dataset["root"], "images")
    images.rename(images.with_name("inner"))
    images.mkdir()
    images.with_name("inner").rename(images / "inner")
    with pytest.raises(DatasetError) as caught:
        indexed(dataset, log, "mafa")
    assert str(caught.value).endswith(
        f"image is missing; it is in {images}/inner: say datasets.mafa.splits.train.images:"
        " images/inner"
    )


def test_too_many_bad_images_stop_the_run(voc, log):
    dataset = voc({f"{n}.jpg": [("mask", 1, 1, 9, 9)] for n in range(10)})
    Path(dataset["root"], "images/3.jpg").write_bytes(b"")
    assert len(indexed(dataset, log, max_bad_fraction=0.1)) == 10
    with pytest.raises(DatasetError) as caught:
        indexed(dataset, log, max_bad_fraction=0.09)
    assert str(caught.value) == (
        "dataset kaggle, train: 1 of 10 images are corrupt, missing or malformed, more than"
        " max_bad_fraction 0.09; first: images/3.jpg: image is empty"
    )


def test_images_that_no_face_needs_do_not_hide_missing_ones(widerface, log):
    taken = {name: [[1, 2, 3, 4, 0]] for name in "abc"}
    others = {f"{number}": [[1, 2, 3, 4, 0]] for number in range(90)}
    dataset = widerface({"0--Parade": others, "9--Press_Conference": taken})
    images = Path(dataset["root"], "images/9--Press_Conference")
    (images / "b.jpg").unlink()
    with pytest.raises(DatasetError) as caught:
        indexed(dataset, log, "wider", 0.02)
    assert str(caught.value) == (
        "dataset wider, train: 1 of 3 images are corrupt, missing or malformed, more than"
        " max_bad_fraction 0.02; first: images/9--Press_Conference/b.jpg: image is missing"
    )
    (images.parent / "again").mkdir()
    images.rename(images.parent / "again" / images.name)
    with pytest.raises(DatasetError, match=r"wider\.splits\.train\.images: images/again$"):
        indexed(dataset, log, "wider", 0.02)


def test_class_rules_are_not_bad_images(voc, log):
    faces = {f"{n}.jpg": [("poor", 1, 1, 9, 9), ("mask", 5, 5, 5, 5)] for n in range(9)}
    rows = indexed(voc({**faces, "z.jpg": [("mask", 1, 1, 9, 9)]}), log, max_bad_fraction=0.0)
    assert sum(row["dropped"] == "" and row["class"] == "mask" for row in rows) == 1


def test_images_that_no_face_needs_are_not_opened(widerface, log):
    dataset = widerface(
        {"9--Press_Conference": {"a": [[1, 2, 3, 4, 0]]}, "0--Parade": {"b": [[1, 2, 3, 4, 0]]}}
    )
    Path(dataset["root"], "images/0--Parade/b.jpg").unlink()
    rows = indexed(dataset, log, "wider", 0.0)
    assert rows[1]["dropped"] == "event is not in the pick list"
    assert rows[1]["width"] == ""


def test_a_class_map_to_an_unknown_class_is_refused(voc, log):
    dataset = voc({"a.jpg": []}, class_map={"mask": "masked"})
    with pytest.raises(DatasetError, match="class_map maps mask to 'masked'; classes are mask, no"):
        indexed(dataset, log)


NAMES = (
    "photo (1).jpg",
    "Coronavirus -CHINE - 1540 x 600.jpg",
    "été.jpg",
    "口罩.jpg",
    "a,b\"c'.jpg",
)


def test_names_with_blanks_parentheses_and_other_scripts(voc, log, tmp_path):
    rows = indexed(voc({name: [("mask", 1, 1, 9, 9)] for name in NAMES}), log)
    assert {row["image"] for row in rows} == {f"images/{name}" for name in NAMES}


def test_names_that_are_no_utf8_survive_the_table(voc, photo, log, tmp_path):
    dataset = voc({"a.jpg": [("mask", 1, 1, 9, 9)]})
    root = Path(dataset["root"])
    raw = os.fsdecode(b"caf\xe9\\x.jpg")
    (root / "images/a.jpg").rename(root / "images" / raw)
    (root / "labels/a.xml").rename(root / "labels" / raw.replace(".jpg", ".xml"))
    rows = index("kaggle", dataset, "train", CLASSES, 0.0, log)
    path = tmp_path / "index.csv"
    tables.write(path, tables.INDEX, rows)
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("images/caf\\xe9\\\\x.jpg,")
    (row,) = tables.read(path, tables.INDEX)
    assert (root / tables.unescape(row["image"])).is_file()
