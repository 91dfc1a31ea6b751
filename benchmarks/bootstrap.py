"""Average precision from stored detections, and how sure a difference of two models is.

Detections are matched once: whether one is true depends on its own image only. A resample of the
images then repeats or leaves out their detections and faces, and costs a cumulative sum.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import Sample, target_classes
from detectnet_v2.errors import DetectNetError
from detectnet_v2.ground_truth import Placement, ground_truth
from detectnet_v2.metrics import average_precision_of, inside_limits, match, precision_recall
from detectnet_v2.postprocess import Detections

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ranked:
    """Detections of one class by falling confidence: the image of each and whether it is true.

    ``faces`` (images,) are the objects of the class that each image has.
    """

    image: np.ndarray
    hits: np.ndarray
    faces: np.ndarray

    def average_precision(self, counts: np.ndarray, mode: int) -> float:
        """NVIDIA's figure in percent when image i comes ``counts[i]`` times, each on its own."""
        hits = np.repeat(self.hits, counts[self.image])
        precision, recall = precision_recall(hits, int(self.faces @ counts))
        return 100 * average_precision_of(precision, recall, mode)


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its 95 % interval, all in points."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def read_detections(
    path: Path, samples: Sequence[Sample], experiment: spec_pb2.Experiment
) -> list[list[Detections]]:
    """The rows of a detections.csv by sample and class, in pixels of the network's input.

    Raises DetectNetError for a file that is missing or names images that the samples lack.
    """
    names = target_classes(experiment)
    placement = Placement(experiment.augmentation_config)
    position = {f"{s.frame_id}{s.image.suffix}": i for i, s in enumerate(samples)}
    rows: list[list[list[list[float]]]] = [[[] for _ in names] for _ in samples]
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                values = [float(row[key]) for key in ("x1", "y1", "x2", "y2", "confidence")]
                rows[position[row["image"]]][names.index(row["class"])].append(values)
    except OSError as error:
        raise DetectNetError(
            f"{path}: cannot be read ({error.strerror}): evaluate first"
        ) from error
    except (KeyError, ValueError) as error:
        raise DetectNetError(
            f"{path}: does not belong to these {len(samples)} images ({error}): evaluate again"
        ) from error
    found = []
    for sample, by_class in zip(samples, rows, strict=True):
        tables = [np.array(table, np.float32).reshape(-1, 5) for table in by_class]
        found.append(
            [
                (placement.to_input(table[:, :4], sample.width, sample.height), table[:, 4])
                for table in tables
            ]
        )
    return found


def rank(
    samples: Sequence[Sample],
    detections: Sequence[Sequence[Detections]],
    experiment: spec_pb2.Experiment,
) -> dict[str, Ranked]:
    """Match all detections by NVIDIA's rules, class by class."""
    config = experiment.evaluation_config
    truths = ground_truth(samples, experiment)
    result = {}
    for index, name in enumerate(target_classes(experiment)):
        limits = config.evaluation_box_config[name]
        wanted = [boxes[classes == index] for boxes, classes in truths]
        wanted = [boxes[inside_limits(boxes, limits)] for boxes in wanted]
        faces = np.array([len(boxes) for boxes in wanted], np.int64)
        boxes = np.concatenate([found[index][0] for found in detections])
        confidence = np.concatenate([found[index][1] for found in detections])
        image = np.repeat(np.arange(len(samples)), [len(found[index][0]) for found in detections])
        kept = np.flatnonzero(inside_limits(boxes, limits))
        order = kept[np.argsort(-confidence[kept], kind="stable")]
        truth = np.concatenate(wanted) if wanted else np.empty((0, 4))
        hits = match(
            boxes[order],
            image[order],
            truth,
            np.repeat(np.arange(len(samples)), faces),
            config.minimum_detection_ground_truth_overlap[name],
        )
        result[name] = Ranked(image[order], hits, faces)
    return result


def figures(model: Mapping[str, Ranked], counts: np.ndarray, mode: int) -> np.ndarray:
    """Average precision of each class, then their mean, in percent."""
    each = [ranked.average_precision(counts, mode) for ranked in model.values()]
    return np.array([*each, np.mean(each)])


def paired_difference(
    first: Mapping[str, Ranked],
    others: Sequence[Mapping[str, Ranked]],
    mode: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """How far the mean of ``others`` lies below ``first``: of each class, and as ``mAP``.

    A paired percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over the images: each
    resample draws as many images, with replacement, and evaluates all models on them. It tells how
    much of a difference is the choice of images; the spread of the trainings is not in it.
    """
    count = len(next(iter(first.values())).faces)
    ones = np.ones(count, np.int64)
    rng = np.random.default_rng(seed)

    def difference(counts: np.ndarray) -> np.ndarray:
        return figures(first, counts, mode) - np.mean(
            [figures(other, counts, mode) for other in others], axis=0
        )

    drawn = np.stack(
        [
            difference(np.bincount(rng.integers(count, size=count), minlength=count))
            for _ in range(resamples)
        ]
    )
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, (tail, 100 - tail), axis=0)
    return {
        name: Interval(*map(float, bounds))
        for name, *bounds in zip([*first, "mAP"], difference(ones), low, high, strict=True)
    }
