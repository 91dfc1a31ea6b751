"""The registry of raw layouts, and the class map that leads from their classes to the targets.

A reader is a function `read(images, annotations, options) -> list[AnnotatedImage]`: `images` is
the folder below which the image paths lie, `annotations` a file or folder as published, `options`
the layout's settings. It looks at no image and raises DatasetError when the annotation as a whole
cannot be used; a single bad image or face is marked in what it returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import fddb, mafa, voc, widerface
from datasets.annotation import AnnotatedImage
from datasets.errors import DatasetError, missing_dataset_message
from datasets.fingerprint import split_paths

# The events whose photographs the recipe takes from WIDER FACE.
WIDERFACE_EVENTS = (
    "2--Demonstration",
    "4--Dancing",
    "5--Car_Accident",
    "9--Press_Conference",
    "15--Stock_Market",
    "16--Award_Ceremony",
    "17--Ceremony",
    "20--Family_Group",
    "22--Picnic",
    "23--Shoppers",
    "25--Soldier_Patrol",
    "27--Spa",
    "29--Students_Schoolkids",
    "31--Waiter_Waitress",
    "32--Worker_Laborer",
    "33--Running",
    "37--Soccer",
    "38--Tennis",
    "43--Row_Boat",
    "46--Jockey",
    "47--Matador_Bullfighter",
    "49--Greeting",
    "51--Dresses",
    "57--Angler",
)


@dataclass(frozen=True)
class Layout:
    """A raw layout: its reader and the defaults of its settings."""

    read: Callable[[Path, Path, Mapping[str, Any]], list[AnnotatedImage]]
    options: Mapping[str, Any]


# min_aspect is the least width / height of an image; 0 takes every image.
LAYOUTS = {
    "voc": Layout(voc.read, {"min_aspect": 0.0, "image_set": None}),
    "mafa": Layout(mafa.read, {"min_aspect": 1.0}),
    "fddb": Layout(fddb.read, {"min_aspect": 0.0}),
    "widerface": Layout(
        widerface.read,
        {"min_aspect": 0.0, "events": WIDERFACE_EVENTS, "max_faces": 3, "max_occlusion": 0},
    ),
}


def options_of(dataset: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The layout's settings: its defaults, then what the dataset and its split set.

    Raises DatasetError for a layout that does not exist.
    """
    layout = dataset.get("layout")
    if layout not in LAYOUTS:
        raise DatasetError(f"layout {layout!r} is unknown; known layouts: {', '.join(LAYOUTS)}")
    options = dict(LAYOUTS[layout].options)
    for source in (dataset, dataset["splits"][split]):
        options.update({key: source[key] for key in options if source.get(key) is not None})
    if options.get("image_set"):
        options["image_set"] = Path(dataset["root"]).expanduser() / options["image_set"]
    return options


def read_split(name: str, dataset: Mapping[str, Any], split: str) -> list[AnnotatedImage]:
    """Read the annotations of a split of the dataset called `name`.

    Raises DatasetError when the dataset is not there, is empty or is not of its layout.
    """
    if split not in dataset["splits"]:
        raise DatasetError(f"datasets.{name}.splits has no {split}")
    if not Path(dataset["root"]).expanduser().is_dir():
        raise DatasetError(missing_dataset_message(name, dataset))
    images, annotations = split_paths(dataset, split)
    if not images.is_dir():
        raise DatasetError(missing_dataset_message(name, dataset, images))
    if not annotations.exists():
        raise DatasetError(missing_dataset_message(name, dataset, annotations))
    try:
        options = options_of(dataset, split)
        annotated = LAYOUTS[dataset["layout"]].read(images, annotations, options)
    except DatasetError as error:
        raise DatasetError(f"dataset {name}, {split}: {error}") from error
    if not annotated:
        raise DatasetError(
            f"dataset {name}, {split}: no image in {images} with annotations in {annotations};"
            f" are datasets.{name}.layout and datasets.{name}.splits.{split} right?"
        )
    return mark_repeated(annotated)


def mark_repeated(annotated: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Mark an image that the annotation names again: two sets of faces cannot both be whole."""
    seen: set[str] = set()
    for image in annotated:
        if image.path in seen and not image.error:
            image.error = "annotated twice; the first annotation is used"
        seen.add(image.path)
    return list(annotated)
