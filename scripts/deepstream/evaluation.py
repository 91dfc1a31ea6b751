"""nvinfer over a labelled data set: images through a rendered config, scored as the toolkit does.

Frames are the images themselves, so boxes are in pixels of the image, like the labels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from detectnet_v2 import spec_pb2
from detectnet_v2.cores import job_threads
from detectnet_v2.dataset import Sample, target_classes, validation_samples
from detectnet_v2.images import read_image
from detectnet_v2.metrics import Evaluation, evaluate_detections
from detectnet_v2.postprocess import Detections
from detectnet_v2.progress import progress
from detectnet_v2.spec import load_experiment

from deepstream.detector import Detector, Objects
from deepstream.errors import DeepStreamError
from deepstream.inferconfig import InferConfig
from deepstream.surface import Surface

log = logging.getLogger("deepstream")

T = TypeVar("T")


def load_samples(spec: Path) -> tuple[spec_pb2.Experiment, list[Sample]]:
    """Read a spec and the samples that it evaluates on, raising DeepStreamError for none."""
    experiment = load_experiment(spec)
    samples = validation_samples(experiment)
    if not samples:
        raise DeepStreamError(f"{spec}: names no validation fold or data source to evaluate on")
    return experiment, samples


def check_classes(config: InferConfig, experiment: spec_pb2.Experiment) -> None:
    """Raise DeepStreamError when the labels file has other classes than the network's channels."""
    expected = target_classes(experiment)
    if list(config.labels) != expected or config.num_classes != len(expected):
        raise DeepStreamError(
            f"{config.path}: {config.num_classes} classes with labels {', '.join(config.labels)}, "
            f"the model was trained on {', '.join(expected)} in this order"
        )


def over_samples(
    detector: Detector, samples: Sequence[Sample], work: Callable[[Sample, Surface], T], what: str
) -> Iterator[T]:
    """Yield work(sample, surface) of every sample in order; a job has a thread for each core.

    The detector should be loaded with threads=1.
    """

    def one(sample: Sample) -> T:
        return work(sample, Surface.from_rgb(read_image(sample.image)))

    with ThreadPoolExecutor(job_threads()) as pool:
        yield from progress(pool.map(one, samples), len(samples), what, log)


def detect(detector: Detector, samples: Sequence[Sample]) -> list[list[Detections]]:
    """Return each image's detections, for each class (boxes in image pixels, confidence)."""
    classes = detector.config.num_classes

    def work(_: Sample, surface: Surface) -> list[Detections]:
        return per_class(detector.detect([surface])[0], classes)

    return list(over_samples(detector, samples, work, "images through nvinfer's steps"))


def per_class(objects: Objects, classes: int) -> list[Detections]:
    """Split one frame's objects by class, most confident first, as the metrics take them."""
    found = []
    for class_id in range(classes):
        mine = np.flatnonzero(objects.class_ids == class_id)
        mine = mine[np.argsort(-objects.confidence[mine], kind="stable")]
        found.append((objects.boxes[mine], objects.confidence[mine]))
    return found


class Scorer:
    """Average precision of detections in image pixels, by the toolkit's rules and limits."""

    def __init__(self, experiment: spec_pb2.Experiment, samples: Sequence[Sample]):
        """Move the labels to where the toolkit evaluates: pixels of the network's input."""
        from detectnet_v2.ground_truth import Placement, ground_truth  # noqa: PLC0415

        self._experiment = experiment
        self._samples = samples
        self._placement = Placement(experiment.augmentation_config)
        self._truth = ground_truth(samples, experiment)

    def __call__(self, detections: Sequence[Sequence[Detections]]) -> Evaluation:
        """Score one list of detections a sample, each with one entry a class."""
        moved = [
            [
                (self._placement.to_input(boxes, sample.width, sample.height), confidence)
                for boxes, confidence in found
            ]
            for sample, found in zip(self._samples, detections, strict=True)
        ]
        return evaluate_detections(self._truth, moved, self._experiment, coco=False)


def figures(evaluation: Evaluation) -> dict:
    """Return mAP and average precision in percent, rounded for a result file."""
    return {
        "mAP": round(evaluation.mean_average_precision, 4),
        "average_precision": {
            name: round(value, 4) for name, value in evaluation.average_precision.items()
        },
    }
