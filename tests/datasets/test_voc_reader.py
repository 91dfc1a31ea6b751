"""The reader of Pascal VOC: faults of XML files, and which XML is of which image."""

from pathlib import Path

import pytest
from datasets.annotation import Face
from datasets.errors import DatasetError
from datasets.layouts import read_split


def test_voc_reads_names_and_boxes(voc):
    dataset = voc({"a.jpg": [("mask", 1, 2, 30, 40), ("poor", 5, 5, 9, 9)], "b/c.png": []})
    first, second = read_split("kaggle", dataset, "train")
    assert first.path == "a.jpg"
    assert first.faces == [
        Face("mask", (1.0, 2.0, 30.0, 40.0)),
        Face("poor", (5.0, 5.0, 9.0, 9.0)),
    ]
    assert (second.path, second.faces, second.error) == ("b/c.png", [], "")


def test_voc_marks_objects_without_box_name_or_number(voc):
    dataset = voc({"a.jpg": []})
    label = Path(dataset["root"], "labels/a.xml")
    label.write_text(
        "<annotation><object><name>mask</name></object>"
        "<object><bndbox><xmin>1</xmin></bndbox></object>"
        "<object><name>mask</name><bndbox><xmin>x</xmin><ymin>1</ymin><xmax>2</xmax>"
        "<ymax>3</ymax></bndbox></object></annotation>"
    )
    (image,) = read_split("kaggle", dataset, "train")
    assert [face.malformed for face in image.faces] == [
        "object without bndbox",
        "object without name",
        "xmin is 'x', not a number",
    ]


def test_voc_pairs_images_and_annotations_both_ways(voc):
    dataset = voc({"a.jpg": [], "b.jpg": [], "c.jpg": []})
    root = Path(dataset["root"])
    (root / "labels/a.xml").unlink()
    (root / "images/b.jpg").unlink()
    (root / "labels/c.xml").write_text("<annotation>")
    errors = {image.path: image.error for image in read_split("kaggle", dataset, "train")}
    assert errors["a.jpg"] == "no annotation"
    assert errors["b"] == "no image for this annotation"
    assert errors["c.jpg"].startswith("annotation c.xml is no XML")


@pytest.mark.parametrize(
    ("filename", "annotated"), [("b/a.png", ["a.png"]), ("a.jpg", ["a.jpg"]), ("", []), ("x", [])]
)
def test_voc_gives_an_xml_to_one_of_several_images_of_its_name(voc, photo, filename, annotated):
    dataset = voc({"a.jpg": [("mask", 1, 2, 30, 40)]})
    photo(Path(dataset["root"], "images/a.png"))
    label = Path(dataset["root"], "labels/a.xml")
    named = f"<annotation><filename>{filename}</filename>"
    label.write_text(label.read_text().replace("<annotation>", named))
    images = read_split("kaggle", dataset, "train")
    assert [image.path for image in images] == ["a.jpg", "a.png"]
    assert [image.path for image in images if image.faces] == annotated
    reason = f"names {filename!r}" if filename else "names none"
    assert {image.error for image in images if not image.faces} == {
        f"no annotation: of 2 images, a.xml {reason}"
    }


def test_voc_image_set_limits_the_images(voc):
    dataset = voc({"a.jpg": [], "b.jpg": []})
    root = Path(dataset["root"])
    (root / "train.txt").write_text("b\nz -1\n")
    dataset["splits"]["train"]["image_set"] = "train.txt"
    images = {image.path: image.error for image in read_split("kaggle", dataset, "train")}
    assert images == {"b.jpg": "", "z": "no image for this annotation"}
    dataset["splits"]["train"]["image_set"] = "no.txt"
    with pytest.raises(DatasetError, match=r"image_set .*no.txt: No such file"):
        read_split("kaggle", dataset, "train")


def test_voc_image_set_may_name_images_with_blanks(voc):
    names = ("photo (1)", "photo (2)", "photo", "photo 1", " two  blanks ")
    dataset = voc({f"{name}.jpg": [] for name in names})
    lines = ("photo (1)", "photo (2)  -1", "photo 1", " two  blanks ", "no such")
    Path(dataset["root"], "train.txt").write_text("\n".join(lines))
    dataset["splits"]["train"]["image_set"] = "train.txt"
    images = {image.path: image.error for image in read_split("kaggle", dataset, "train")}
    assert images == {
        **{f"{name}.jpg": "" for name in names if name != "photo"},
        "no": "no image for this annotation",
    }
