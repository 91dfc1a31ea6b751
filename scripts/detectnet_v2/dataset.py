"""Samples of the spec's dataset_config: images and their boxes, read from tfrecords."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError
from detectnet_v2.tfrecord import decode_example, read_records

COORDINATES = tuple(f"target/coordinates_{corner}" for corner in ("x1", "y1", "x2", "y2"))
FEATURES = frozenset(
    ("frame/id", "frame/width", "frame/height", "target/object_class", *COORDINATES)
)
MINIMUM_SIZE = 1.0
"""Width and height, in pixels, below which a box is no label; fixed in NVIDIA's loader."""


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    Attributes:
        image: the file.
        frame_id: name of the image in the tfrecords: folder and stem.
        width, height: size of the image in pixels, from the tfrecords.
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of the image; may leave the image.
        classes: int32 (n,), index into the target classes.
        source_weight: factor of the sample's losses.
        source: number of its data source in the spec, from 0.
    """

    image: Path
    frame_id: str
    width: int
    height: int
    boxes: np.ndarray
    classes: np.ndarray
    source_weight: float
    source: int = 0


def target_classes(experiment: spec_pb2.Experiment) -> list[str]:
    """Return the names of the classes in the order of the network's channels."""
    return [target.name for target in experiment.cost_function_config.target_classes]


def training_samples(experiment: spec_pb2.Experiment) -> list[Sample]:
    """Return the samples to train on: those outside the validation fold, if there is one.

    Files and records come in sorted order, the same everywhere (NVIDIA takes the order of the
    file system).

    Raises:
        DetectNetError: no tfrecords, damaged or empty ones, missing images, or no labels left.
    """
    dataset = experiment.dataset_config
    samples, seen = [], Counter()
    for number, source in enumerate(dataset.data_sources):
        files = _files(source)
        if dataset.WhichOneof("dataset_split_type") == "validation_fold":
            files = [file for file in files if not _in_fold(file, dataset.validation_fold)]
            if not files:
                raise DetectNetError(
                    f"dataset_config.validation_fold: {dataset.validation_fold}: all files of "
                    f"{source.tfrecords_path} are in that fold, none are left to train on"
                )
        samples += _not_empty(source, _read_source(experiment, source, files, seen, number))
    return _with_boxes(experiment, dataset.data_sources, samples, seen)


def validation_samples(experiment: spec_pb2.Experiment) -> list[Sample]:
    """Return the samples of the validation fold or source; an empty list if the spec names none.

    Raises:
        DetectNetError: as for training_samples, and when the fold has no file or no image.
    """
    dataset = experiment.dataset_config
    split = dataset.WhichOneof("dataset_split_type")
    if split is None:
        return []
    seen: Counter[str] = Counter()
    if split == "validation_data_source":
        source = dataset.validation_data_source
        samples = _not_empty(source, _read_source(experiment, source, _files(source), seen))
        return _with_boxes(experiment, [source], samples, seen)
    samples, present = [], False
    for source in dataset.data_sources:
        files = [file for file in _files(source) if _in_fold(file, dataset.validation_fold)]
        present |= bool(files)
        samples += _read_source(experiment, source, files, seen)
    if not samples:
        what = (
            "the tfrecords of that fold hold no image" if present else "no tfrecords of that fold"
        )
        raise DetectNetError(
            f"dataset_config.validation_fold: {dataset.validation_fold}: {what} "
            f"({', '.join(source.tfrecords_path for source in dataset.data_sources)})"
        )
    return _with_boxes(experiment, dataset.data_sources, samples, seen)


def data_path(path: str) -> Path:
    """Return a path of a spec; relative ones start at $DATA_BASE_PATH, else at ~/datasets."""
    base = os.environ.get("DATA_BASE_PATH") or Path.home() / "datasets"
    return Path(base) / path


def _files(source: spec_pb2.DataSource) -> list[Path]:
    pattern = Path(source.tfrecords_path)
    # Characters of the data folder's own name match nothing but themselves.
    folder = Path(pattern.anchor) if pattern.is_absolute() else data_path("")
    files = sorted(folder.glob(str(pattern.relative_to(pattern.anchor))))
    files = [file for file in files if file.is_file() and file.suffix not in (".json", ".part")]
    if not files:
        raise DetectNetError(f"dataset_config.data_sources: no tfrecords match {folder / pattern}")
    return files


def _not_empty(source: spec_pb2.DataSource, samples: list[Sample]) -> list[Sample]:
    """Return the samples of a source, if there are any; single files may be empty."""
    if not samples:
        raise DetectNetError(
            f"dataset_config: the tfrecords {source.tfrecords_path} hold no image: run "
            "dataset_convert again on a folder that has some"
        )
    return samples


def _in_fold(file: Path, fold: int) -> bool:
    return re.search(f"fold-{fold:03d}-of-", str(file)) is not None


def _read_source(
    experiment: spec_pb2.Experiment,
    source: spec_pb2.DataSource,
    files: Sequence[Path],
    seen: Counter[str],
    number: int = 0,
) -> list[Sample]:
    """Return the samples of some tfrecord files, all of whose images are there.

    `number` is that of the data source. Adds to `seen` the classes of all objects, kept or not.
    """
    dataset = experiment.dataset_config
    images = data_path(source.image_directory_path)
    extension = dataset.image_extension or "png"
    lookup = _class_indices(dataset.target_class_mapping, target_classes(experiment))
    samples = []
    for file in files:
        for index, record in enumerate(read_records(file)):
            try:
                frame_id, width, height, boxes, names = _decode(record)
            except (KeyError, ValueError, IndexError) as error:
                raise DetectNetError(
                    f"{file}: record {index} is no KITTI example ({error}): run dataset_convert "
                    f"again"
                ) from error
            seen.update(names)
            classes = np.array([lookup.get(name, -1) for name in names], np.int32)
            kept = (classes >= 0) & (boxes[:, 2:] - boxes[:, :2] >= MINIMUM_SIZE).all(axis=1)
            samples.append(
                Sample(
                    image=images / f"{frame_id}.{extension}",
                    frame_id=frame_id,
                    width=width,
                    height=height,
                    boxes=boxes[kept],
                    classes=classes[kept],
                    source_weight=source.source_weight or 1.0,
                    source=number,
                )
            )
    _check_images(samples, images)
    return samples


def _class_indices(mapping: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Return the channel of each class of the tfrecords that is kept.

    The mapping is applied twice, as by NVIDIA's loader and then its rasteriser: a class is kept
    when the name that it is mapped to is itself a key.
    """
    twice = {source: mapping.get(target) for source, target in mapping.items()}
    return {source: names.index(name) for source, name in twice.items() if name in names}


def _decode(record: bytes) -> tuple[str, int, int, np.ndarray, list[str]]:
    """Return id, width and height of a frame, its boxes (n, 4) and the names of their classes."""
    example = decode_example(record, FEATURES)
    names = [name.decode() for name in example["target/object_class"]]
    # An empty list may have come without a type.
    columns = [np.asarray(example[name], np.float32) for name in COORDINATES]
    boxes = np.stack(columns, axis=1)
    if len(boxes) != len(names):
        raise ValueError(f"{len(names)} classes for {len(boxes)} boxes")
    frame_id = example["frame/id"][0].decode()
    return frame_id, int(example["frame/width"][0]), int(example["frame/height"][0]), boxes, names


def _check_images(samples: Sequence[Sample], images: Path) -> None:
    """Raise if an image of the samples is not there; one listing a folder, not a stat an image."""
    names: dict[Path, set[str]] = {}
    missing = []
    for sample in samples:
        folder = sample.image.parent
        if folder not in names:
            present = folder.iterdir() if folder.is_dir() else ()
            names[folder] = {path.name for path in present}
        if sample.image.name not in names[folder]:
            missing.append(sample.image)
    if missing:
        raise DetectNetError(
            f"{missing[0]}: image of the tfrecords is not there ({len(missing)} of {len(samples)} "
            f"missing): is image_directory_path {images} right, and dataset_config.image_extension?"
        )


def _with_boxes(
    experiment: spec_pb2.Experiment,
    sources: Sequence[spec_pb2.DataSource],
    samples: list[Sample],
    seen: Mapping[str, int],
) -> list[Sample]:
    """Return the samples of all sources; raise if the mapping drops every object that was `seen`.

    A single source or fold may lose all of its objects: they are hard negatives.
    """
    if not seen or any(sample.boxes.size for sample in samples):
        return samples
    lookup = _class_indices(
        experiment.dataset_config.target_class_mapping, target_classes(experiment)
    )
    there = ", ".join(f'"{name}"' for name in sorted(seen))
    mapped = ", ".join(f'"{name}"' for name in sorted(lookup)) or "nothing"
    hint = ""
    if any(name != name.lower() for name in lookup):
        hint = "; dataset_convert writes classes in lower case"
    raise DetectNetError(
        f"dataset_config.target_class_mapping: drops all {sum(seen.values())} objects of "
        f"{', '.join(source.tfrecords_path for source in sources)}: it maps {mapped}, the "
        f"tfrecords have {there}{hint}"
    )
