"""Names of the KITTI files: `{group}-{dataset}-{folder}_{stem}`, safe, unique, in a fair order.

NVIDIA's dataset-convert takes the first `int(val_split / 100 * n)` of the sorted names as fold 0,
the validation fold. The group, 8 hex digits of a hash, leads the name: so fold 0 is a random part
of all datasets, and near-duplicates, which share the group, lie side by side. What is left is a
group that lies across the border; `fold_groups` gives such a group another place.
"""

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from datasets.duplicates import group_id
from datasets.errors import DatasetError
from datasets.tables import unescape

# A dataset's job owns the files of its name: a dash would make one name the start of another.
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
# A file name may have 255 bytes on most file systems; .jpg.part and a suffix have to fit.
MAX_STEM = 150
# Beyond this share of images lost to corrupt bodies the border is only kept where it was.
MAX_LOST_FRACTION = 0.05
SALTS = 20
ROUNDS = 100


def check_dataset_name(name: str) -> None:
    """Raise DatasetError for a dataset's name that cannot be part of a file name."""
    if not DATASET_NAME.fullmatch(name):
        raise DatasetError(
            f"dataset name {name!r}: use letters, digits and underscores only, because file names"
            " are made with it"
        )


def safe_stem(image: str, images_folder: str) -> str:
    """File-name-safe `{folder}_{stem}` of an image (as the tables hold it) below its folder.

    Accents are dropped, everything else that is not a letter, digit, dash or underscore becomes
    one underscore.
    """
    folder = posixpath.normpath(images_folder)
    path = image.removeprefix(f"{folder}/") if folder != "." else image
    stem = posixpath.splitext(unescape(path))[0]
    plain = unicodedata.normalize("NFKD", stem)
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return UNSAFE.sub("_", plain).strip("_") or "image"


def unique_stems(images: Sequence[str], images_folder: str) -> list[str]:
    """A stem for each image of a dataset; alike and overlong ones get a hash of the image's path.

    Which suffix an image gets depends on nothing but its own path.
    """
    stems = [safe_stem(image, images_folder) for image in images]
    # Some file systems do not tell capitals from small letters.
    uses = Counter(stem.lower() for stem in stems)
    for digits in (10, 64):
        unique = [
            stem
            if uses[stem.lower()] == 1 and len(stem) <= MAX_STEM
            else f"{stem[:MAX_STEM]}_{hashlib.sha256(image.encode()).hexdigest()[:digits]}"
            for stem, image in zip(stems, images, strict=True)
        ]
        if len({stem.lower() for stem in unique}) == len(unique):
            return unique
    raise DatasetError(f"two of these images have one name: {', '.join(sorted(images)[:5])} ...")


@dataclass(frozen=True)
class Grouped:
    """A group of near-duplicates among the selected images: its id, size and classes."""

    group: str
    size: int
    classes: frozenset[str] = frozenset()


def fold_groups(
    groups: Iterable[Grouped], val_percent: float, max_lost_fraction: float
) -> tuple[dict[str, str], str]:
    """The id that each group's names start with, and a warning, empty when all is well.

    With n images the border lies at `int(val_percent / 100 * n)`. Images whose body turns out
    corrupt are missing from the names later, at most k = `max_lost_fraction` * n of them: then
    the border lies anywhere between `int(val_percent / 100 * (n - k))`, when all were behind it,
    and k further, when all were before it. A group that some border in this range would cut gets
    a new id, drawn from its old one, until only single images are left in the range; where there
    are too few single images for that, until the border of all n images cuts no group. All
    groups draw anew until both folds have every class that at least two groups have.
    """
    members = sorted(groups, key=lambda group: group.group)
    total = sum(group.size for group in members)
    share = val_percent / 100
    border = int(share * total)
    unchanged = {group.group: group.group for group in members}
    if not 0 < border < total:
        return unchanged, ""
    lost = int(min(max_lost_fraction, MAX_LOST_FRACTION) * total)
    lowest = int(share * (total - lost))
    uses = Counter(name for group in members for name in group.classes)
    shared = [name for name, count in uses.items() if count > 1]
    for salt in range(SALTS):
        start = {group: group_id(group.group, salt) if salt else group.group for group in members}
        for low, high in ((lowest, lowest + lost), (border, border)):
            ids = _settled(start, low, high)
            if ids and _on_both_sides(ids, border, shared):
                return {group.group: name for group, name in ids.items()}, ""
    return unchanged, (
        f"no order of the {len(members)} groups keeps near-duplicates on one side of the fold"
        f" border at image {border} of {total} and every class on both sides"
    )


def _by_id(ids: Mapping[Grouped, str]) -> list[Grouped]:
    return sorted(ids, key=lambda group: (ids[group], group.group))


def _settled(start: Mapping[Grouped, str], low: int, high: int) -> dict[Grouped, str] | None:
    """Move groups that a cut at a place in low..high would split; None when it does not end."""
    ids = dict(start)
    for turn in range(1, ROUNDS + 1):
        position = 0
        split = []
        for group in _by_id(ids):
            end = position + group.size
            if max(low, position + 1) <= min(high, end - 1):
                split.append(group)
            position = end
        if not split:
            return ids
        for group in split:
            ids[group] = group_id(ids[group], turn)
    return None


def _on_both_sides(ids: Mapping[Grouped, str], border: int, classes: Iterable[str]) -> bool:
    position = 0
    sides: tuple[set[str], set[str]] = (set(), set())
    for group in _by_id(ids):
        sides[position >= border].update(group.classes)
        position += group.size
    return all(name in sides[0] and name in sides[1] for name in classes)
