"""Decides which pictures a data set has: names, sizes, who is in them, which of them are broken.

A plan is cheap and made in one go; drawing its pictures needs nothing but the plan, so any number
of processes gives the same files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from scenes.errors import ScenesError
from scenes.scene import Casting

# The data sets in the order of their seeds: never reorder, or every picture changes.
DATASETS = ("medical-masks", "mafa-train", "mafa-test", "fddb", "widerface-train", "widerface-val")

_MAFA = Casting((0.5, 0.28, 0.14, 0.08), masked=0.70, poor=0.03, hand_mouth=0.65, hand_half=0.04)
_BARE = Casting((0.42, 0.32, 0.2, 0.04, 0.02), masked=0.0, hand_mouth=0.03)
CASTINGS = {
    "medical-masks": Casting(
        (0.3, 0.3, 0.2, 0.12, 0.08), masked=0.66, poor=0.03, hand_mouth=0.06, hand_half=0.01
    ),
    "mafa-train": _MAFA,
    "mafa-test": _MAFA,
    "fddb": replace(_BARE, people=(0.5, 0.3, 0.2), hand_mouth=0.05),
    "widerface-train": _BARE,
    "widerface-val": _BARE,
}

# Broken on purpose, in the order in which they are handed out. Each costs a picture or a face.
DEFECTS = {
    "medical-masks": (
        "truncated",  # the file ends in the middle of the picture
        "missing",  # annotation without picture
        "no_corner",  # an object without xmax
        "unannotated",  # picture without annotation
        "not_xml",  # annotation cut off
        "garbage",  # a file that is no picture at all
        "empty_box",
    ),
    "mafa-train": ("empty_box", "truncated", "missing", "garbage"),
    "mafa-test": ("missing", "empty_box"),
    "fddb": ("truncated", "missing", "garbage"),
    "widerface-train": ("empty_box", "truncated", "missing"),
    "widerface-val": ("empty_box", "missing"),
}

# Defects that a careful reader repairs, so they cost nothing: the part of the pictures with each.
# `outside`: the boxes of faces at the border are not cut there (FDDB's ellipses never are).
_BOXES = {"outside": 0.3}
REPAIRABLE = {
    "medical-masks": {"inverted": 0.02, **_BOXES},
    "mafa-train": _BOXES,
    "mafa-test": _BOXES,
    "fddb": {},
    "widerface-train": _BOXES,
    "widerface-val": _BOXES,
}

_ASPECTS = (4 / 3, 4 / 3, 3 / 2, 16 / 9, 5 / 4)
_PORTRAIT = {"medical-masks": 0.04, "mafa-train": 0.06, "mafa-test": 0.06}

_VOC_STEMS = (
    "mask ({n})",
    "photo ({n})",
    "people_{n:04d}",
    "{n:04d}_1024",
    "street scene {n}",
    "0109-{n:05d}-096b1",
    "maxresdefault ({n})",
    "health-virus-{n} (1)",
)
# Number, name and kind of the pictures of some of WIDER FACE's 61 events; the recipe picks from
# the first group and leaves out the second.
_PICKED_EVENTS = (
    ("2--Demonstration", "2_Demonstration_Demonstration_Or_Protest_2_{n}"),
    ("9--Press_Conference", "9_Press_Conference_Press_Conference_9_{n}"),
    ("15--Stock_Market", "15_Stock_Market_Stock_Market_15_{n}"),
    ("20--Family_Group", "20_Family_Group_Family_Group_20_{n}"),
    ("22--Picnic", "22_Picnic_Picnic_22_{n}"),
    ("29--Students_Schoolkids", "29_Students_Schoolkids_Students_Schoolkids_29_{n}"),
)
_OTHER_EVENTS = (("0--Parade", "0_Parade_Parade_0_{n}"),)


@dataclass(frozen=True)
class Picture:
    """One picture of a plan.

    `path`: relative to the raw tree; `key`: the generator's seed; `copy_of_key`: set for a near
    duplicate, the seed of the picture that it repeats; `defect` and `repairable`: what is wrong
    with the file or its annotation; `quality`: of the JPEG; `mode`: RGB, L or RGBA.
    """

    dataset: str
    path: str
    width: int
    height: int
    key: tuple[int, ...]
    copy_of_key: tuple[int, ...] | None = None
    defect: str | None = None
    repairable: str | None = None
    quality: int = 88
    mode: str = "RGB"


def plan_dataset(
    dataset: str, count: int, *, seed: int, size: tuple[int, int], defects: float
) -> list[Picture]:
    """The `count` pictures of a data set, none larger than `size` (width, height).

    `defects` is the part of them that is broken; raises ScenesError for an unknown data set.
    """
    if dataset not in DATASETS:
        raise ScenesError(f"no data set {dataset!r} to draw; there are {', '.join(DATASETS)}")
    number = DATASETS.index(dataset)
    rng = np.random.default_rng([seed, number])
    names = _names(dataset, count, rng)
    pictures = []
    for index, path in enumerate(names):
        width, height = _size(rng, size, _PORTRAIT.get(dataset, 0.0))
        picture = Picture(
            dataset=dataset,
            path=path,
            width=width,
            height=height,
            key=(seed, number, index),
            quality=int(rng.integers(72, 96)),
            mode="L" if dataset == "fddb" and rng.random() < 0.06 else "RGB",
        )
        if path.endswith(".png") and rng.random() < 0.5:
            picture = replace(picture, mode="RGBA")
        pictures.append(picture)
    _repeat(pictures, rng)
    _break(dataset, pictures, rng, defects)
    return pictures


def _size(rng: np.random.Generator, size: tuple[int, int], portrait: float) -> tuple[int, int]:
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    room = float(rng.uniform(0.66, 1.0))
    width = min(size[0] * room, size[1] * room * aspect)
    height = width / aspect
    if rng.random() < portrait:
        width, height = height, width
    return max(16, round(width)), max(16, round(height))


def _repeat(pictures: list[Picture], rng: np.random.Generator) -> None:
    # About one picture in thirty is a slightly changed copy of an earlier one.
    for index in range(1, len(pictures)):
        if index % 30 == 11:
            source = pictures[int(rng.integers(index))]
            if source.copy_of_key is None:
                pictures[index] = replace(
                    pictures[index],
                    width=source.width,
                    height=source.height,
                    copy_of_key=source.key,
                    mode=source.mode if pictures[index].mode == "L" else pictures[index].mode,
                )


def _break(dataset: str, pictures: list[Picture], rng: np.random.Generator, defects: float) -> None:
    order = rng.permutation(len(pictures)).tolist()
    for number in range(int(defects * len(pictures) + 1e-9)):
        kinds = DEFECTS[dataset]
        index = order.pop()
        pictures[index] = replace(pictures[index], defect=kinds[number % len(kinds)])
    for kind, part in REPAIRABLE[dataset].items():
        for index in [order.pop() for _ in range(min(len(order), math.ceil(part * len(pictures))))]:
            pictures[index] = replace(pictures[index], repairable=kind)


def _names(dataset: str, count: int, rng: np.random.Generator) -> list[str]:
    if dataset == "medical-masks":
        return [_voc_name(number, rng) for number in range(count)]
    if dataset.startswith("mafa"):
        part = dataset.removeprefix("mafa-")
        numbers = np.cumsum(rng.integers(1, 9, count))
        return [f"mafa/{part}-images/images/{part}_{number:08d}.jpg" for number in numbers]
    if dataset == "fddb":
        # Names count up anew in each day's folder, so base names repeat, as they do in FDDB.
        days = [f"2002/{m:02d}/{d:02d}" for m, d in ((7, 19), (7, 31), (8, 2), (8, 13), (8, 31))]
        return [
            f"fddb/{days[number % len(days)]}/big/img_{17 + 3 * (number // len(days))}.jpg"
            for number in range(count)
        ]
    part = dataset.removeprefix("widerface-")
    names = []
    for number in range(count):
        events = _OTHER_EVENTS if number % 16 == 15 else _PICKED_EVENTS
        event, pattern = events[number % len(events)]
        stem = pattern.format(n=10 + 7 * number)
        names.append(f"widerface/WIDER_{part}/images/{event}/{stem}.jpg")
    return names


def _voc_name(number: int, rng: np.random.Generator) -> str:
    stem = _VOC_STEMS[int(rng.integers(len(_VOC_STEMS)))].format(n=number)
    suffix = {0: "jpeg", 1: "png"}.get(number % 25, "jpg")
    return f"medical-masks/images/{stem}.{suffix}"
