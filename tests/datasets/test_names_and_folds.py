"""Names of the KITTI files, and the border of fold 0 that must not divide near-duplicates."""

import pytest
from datasets.duplicates import group_id, label_groups
from datasets.errors import DatasetError
from datasets.names import (
    MAX_STEM,
    Grouped,
    check_dataset_name,
    fold_groups,
    safe_stem,
    unique_stems,
)


@pytest.mark.parametrize(
    ("image", "folder", "expected"),
    [
        ("2002/08/31/big/img_1.jpg", ".", "2002_08_31_big_img_1"),
        ("images/photo (1).jpeg", "images", "photo_1"),
        ("images/a.b 2020 - c.png", "./images/", "a_b_2020_-_c"),
        ("images/été.jpg", "images", "ete"),
        ("images/口罩.jpg", "images", "image"),
        ("images/caf\\xe9.jpg", "images", "caf"),
        ("imagesets/x.jpg", "images", "imagesets_x"),
        ("W/images/9--Press/9_x.jpg", "W/images", "9--Press_9_x"),
    ],
)
def test_safe_stem(image, folder, expected):
    assert safe_stem(image, folder) == expected


def test_stems_that_would_collide_get_a_suffix_of_their_own_path():
    images = ["a b.jpg", "a_b.jpg", "A(b).jpg", "c.jpg", "a/b.jpg", "口.jpg", "罩.jpg"]
    stems = unique_stems(images, ".")
    assert len({stem.lower() for stem in stems}) == len(images)
    assert stems[3] == "c"
    assert all(stem.startswith(("a_b_", "A_b_")) for stem in (*stems[:3], stems[4]))
    assert unique_stems(images[:2], ".") == stems[:2]
    assert unique_stems(images[:1], ".") == ["a_b"]


def test_long_names_fit_a_file_system():
    images = ["x" * 240 + "1.jpg", "x" * 240 + "2.jpg", "y" * 240 + ".jpg"]
    stems = unique_stems(images, ".")
    assert len(set(stems)) == 3
    with pytest.raises(DatasetError, match="two of these images have one name"):
        unique_stems(["a.jpg", "a.jpg"], ".")
    assert max(map(len, stems)) <= MAX_STEM + 11


@pytest.mark.parametrize("name", ["a-b", "a b", "", "é", "-a", "a/b"])
def test_names_of_datasets_that_cannot_be_told_apart_in_file_names(name):
    with pytest.raises(DatasetError, match="letters, digits and underscores only"):
        check_dataset_name(name)


def test_group_ids_depend_on_the_group_only():
    keys = ["fddb/b", "fddb/a", "mafa/c"]
    ids = label_groups(keys, [0, 0, 1])
    assert ids == [group_id("fddb/a"), group_id("fddb/a"), group_id("mafa/c")]
    assert label_groups(list(reversed(keys)), [7, 3, 3]) == list(reversed(ids))
    assert all(len(group) == 8 and int(group, 16) >= 0 for group in ids)


def sorted_members(groups, ids):
    """The group of each image in the order of its name."""
    return [g for g in sorted(groups, key=lambda g: ids[g.group]) for _ in range(g.size)]


def make_groups(sizes):
    return [
        Grouped(group_id(f"{index}"), size, frozenset(["mask" if index % 3 else "no-mask"]))
        for index, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("sizes", [[1] * 300 + [2] * 60, [1] * 400 + [7] * 30, [1, 2, 3] * 200])
def test_no_group_lies_across_the_border_whatever_images_are_lost(sizes):
    groups = make_groups(sizes)
    ids, warning = fold_groups(groups, 20, 0.02)
    assert not warning
    members = sorted_members(groups, ids)
    total = len(members)
    lost_limit = int(0.02 * total)
    for lost in range(lost_limit + 1):
        for before in range(lost + 1):
            # `before` of the lost images lie before the border.
            border = int(0.2 * (total - lost)) + before
            assert members[border - 1] != members[border]


def test_both_folds_hold_every_class():
    groups = [Grouped(group_id(str(n)), 1, frozenset(["mask"])) for n in range(40)]
    groups += [Grouped(group_id(f"n{n}"), 1, frozenset(["no-mask"])) for n in range(2)]
    ids, warning = fold_groups(groups, 20, 0.02)
    assert not warning
    members = sorted_members(groups, ids)
    border = int(0.2 * len(members))
    for side in (members[:border], members[border:]):
        assert {name for group in side for name in group.classes} == {"mask", "no-mask"}


def test_few_and_big_groups_still_get_a_border_between_them():
    groups = make_groups([5] * 10)
    ids, warning = fold_groups(groups, 20, 0.02)
    assert not warning
    members = sorted_members(groups, ids)
    assert members[9] != members[10]


def test_where_no_border_is_possible_it_says_so():
    groups = make_groups([7, 7])
    ids, warning = fold_groups(groups, 20, 0.02)
    assert "no order of the 2 groups keeps near-duplicates on one side" in warning
    assert ids == {group.group: group.group for group in groups}


def test_nothing_moves_without_folds():
    groups = make_groups([1, 5, 9])
    assert fold_groups(groups, 0, 0.02) == ({group.group: group.group for group in groups}, "")


def test_the_order_of_the_groups_does_not_matter():
    groups = make_groups([1, 2, 3] * 50)
    assert fold_groups(groups, 20, 0.02) == fold_groups(list(reversed(groups)), 20, 0.02)
