"""The choice under category_limit, its counts and the selection's names."""

import pytest
from choose_faces import choose, selection, table, warnings
from datasets import tables
from datasets.errors import DatasetError

CLASSES = ("mask", "no-mask")


@pytest.fixture
def write_index(tmp_path):
    """A function that writes an index: {image: (mask faces, no-mask faces)}."""

    def write(dataset, images, extra=()):
        rows = [
            (image, 64, 48, target, 1, 1, 9, 9, "")
            for image, counts in images.items()
            for target, count in zip(CLASSES, counts, strict=True)
            for _ in range(count)
        ]
        path = tmp_path / f"{dataset}.csv"
        tables.write(path, tables.INDEX, [*rows, *extra])
        return path

    return write


def totals(taken):
    return {
        target: sum(face[0] == target for image in taken for face in image.faces)
        for target in CLASSES
    }


@pytest.mark.parametrize("limit", [1, 7, 50, 99, 100, 101, 10_000])
def test_the_overshoot_is_less_than_the_last_images_faces(write_index, limit):
    first = write_index("a", {f"{n}.jpg": (n % 4, 1) for n in range(60)})
    second = write_index("b", {f"{n}.jpg": (2, n % 3) for n in range(60)})
    taken, counts = choose({"a": first, "b": second}, CLASSES, limit)
    for target, total in totals(taken).items():
        faces = max(sum(face[0] == target for face in image.faces) for image in taken)
        assert total <= limit - 1 + max(faces, 1)
    assert {row[1]: row[4] for row in counts if row[0] == "b"} == totals(taken)


def test_earlier_datasets_come_first_and_later_ones_fill_up(write_index):
    first = write_index("a", {f"{n}.jpg": (1, 0) for n in range(10)})
    second = write_index("b", {f"{n}.jpg": (1, 1) for n in range(10)})
    third = write_index("c", {f"{n}.jpg": (0, 1) for n in range(10)})
    taken, counts = choose({"a": first, "b": second, "c": third}, CLASSES, 10)
    assert [image.dataset for image in taken] == ["a"] * 10 + ["c"] * 10
    assert [row[3] for row in counts] == [10, 0, 0, 0, 0, 10]


def test_a_bigger_limit_only_adds_images(write_index):
    path = write_index("a", {f"{n}.jpg": (1, 1) for n in range(50)})
    small, big = (choose({"a": path}, CLASSES, limit)[0] for limit in (10, 20))
    assert [image.image for image in big][:10] == [image.image for image in small]
    assert [image.image for image in big] != sorted(image.image for image in big)


def test_an_image_without_faces_is_taken_as_background(write_index):
    extra = [("x.jpg", 64, 48, "mask", 5, 5, 5, 9, "box is empty"), ("x.jpg", 64, 48, *[""] * 6)]
    path = write_index("a", {"y.jpg": (1, 0)}, extra)
    taken, counts = choose({"a": path}, CLASSES, 10)
    assert {image.image: len(image.faces) for image in taken} == {"x.jpg": 0, "y.jpg": 1}
    assert counts[0] == ("a", "mask", 2, 1, 1, 2)


def test_the_table_shows_what_the_recipe_prints(write_index):
    portrait = ("p.jpg", 48, 64, "mask", 1, 1, 9, 9, "width / height is below min_aspect 1")
    first = write_index("kaggle", {"a.jpg": (2, 1)}, [portrait])
    second = write_index("mafa", {"b.jpg": (1, 0)})
    _, counts = choose({"kaggle": first, "mafa": second}, CLASSES, 10)
    assert table(counts, CLASSES).splitlines() == [
        "source  images      mask  no-mask  total mask  total no-mask",
        "kaggle       1  2 (of 3)        1           2              1",
        "mafa         1         1        0           3              1",
        "final        2         3        1",
    ]


@pytest.mark.parametrize(("split", "told"), [("train", "cannot learn"), ("val", "go by that")])
def test_a_class_without_a_face_in_a_split_is_a_warning(write_index, split, told):
    first, second = write_index("a", {"y.jpg": (0, 2)}), write_index("b", {"z.jpg": (0, 1)})
    _, counts = choose({"a": first, "b": second}, CLASSES, 10)
    (line,) = warnings(split, counts, CLASSES)
    assert line.startswith(f"warning: the {split} split has no face of the class mask: ")
    assert told in line
    _, counts = choose({"a": first, "b": write_index("c", {"z.jpg": (1, 0)})}, CLASSES, 10)
    assert warnings(split, counts, CLASSES) == []


def test_rows_are_sorted_by_unique_names(write_index, log):
    path = write_index("a", {"d/x 1.jpg": (1, 1), "d/x(1).jpg": (1, 0), "e/y.jpg": (0, 1)})
    taken, _ = choose({"a": path}, CLASSES, 10)
    groups = {("a", "d/x 1.jpg"): "f" * 8, ("a", "d/x(1).jpg"): "0" * 8, ("a", "e/y.jpg"): "a" * 8}
    rows = selection(taken, groups, {"a": "d"}, 0, 0.02, log)
    names = [row[2] for row in rows]
    assert names == sorted(names)
    assert names[0].startswith("00000000-a-x_1_")
    assert names[1] == "aaaaaaaa-a-e_y"
    assert names[2] == names[3]
    assert [row[5] for row in rows] == ["mask", "no-mask", "mask", "no-mask"]


def test_too_few_images_for_a_validation_fold_are_an_error(write_index, log):
    path = write_index("a", {f"{n}.jpg": (1, 1) for n in range(5)})
    taken, _ = choose({"a": path}, CLASSES, 10)
    groups = {("a", image.image): f"{n:08d}" for n, image in enumerate(taken)}
    assert len({row[2] for row in selection(taken, groups, {"a": "."}, 20, 0.02, log)}) == 5
    with pytest.raises(DatasetError, match=r"4 images are too few for a validation fold of 20 %"):
        selection(taken[:4], groups, {"a": "."}, 20, 0.02, log)


def test_nothing_to_choose_is_an_error(write_index):
    with pytest.raises(DatasetError, match="no image is chosen"):
        choose({"a": write_index("a", {})}, CLASSES, 10)
