"""The network's outputs over a data set, kept as candidates so that searches need it only once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from detectnet_v2.dataset import Sample
from detectnet_v2.postprocess import Detections

from deepstream.clustering import cluster
from deepstream.decode import Candidates, decode
from deepstream.detector import Detector
from deepstream.evaluation import over_samples
from deepstream.inferconfig import ClassAttributes
from deepstream.surface import Surface

# Nothing in nvinfer is below this: the toolkit's own evaluation starts at 0.005 as well.
FLOOR = 0.01


class CandidateSet:
    """Each image's candidates of each class, in network pixels, with coverage of FLOOR or more."""

    def __init__(self, detector: Detector, samples: Sequence[Sample]):
        """Run the network on every sample."""
        _, self._height, self._width = detector.network.dims
        self._placement = detector.preprocessor.placement
        self._sizes = [(sample.width, sample.height) for sample in samples]
        classes = detector.config.num_classes

        def work(_: Sample, surface: Surface) -> list[Candidates]:
            bbox, coverage = detector.infer([surface])
            return decode(
                bbox[0],
                coverage[0],
                width=self._width,
                height=self._height,
                thresholds=[FLOOR] * classes,
            )

        self._images = list(over_samples(detector, samples, work, "images through the network"))

    def __len__(self) -> int:
        return len(self._images)

    def part(self, images: Sequence[int]) -> "CandidateSet":
        """Return the candidates of some of the images."""
        chosen = object.__new__(CandidateSet)
        chosen.__dict__.update(self.__dict__)
        chosen._images = [self._images[index] for index in images]
        chosen._sizes = [self._sizes[index] for index in images]
        return chosen

    def cluster(self, attributes: Sequence[ClassAttributes], mode: int) -> list[list[Detections]]:
        """Cluster every image as nvinfer does: boxes in image pixels and confidence, per class."""
        return [
            [
                self._detections(found, attributes[class_id], mode, size)
                for class_id, found in enumerate(candidates)
            ]
            for candidates, size in zip(self._images, self._sizes, strict=True)
        ]

    def _detections(self, found, attributes, mode, size):
        kept = cluster(found, attributes, mode)
        order = np.argsort(-kept.confidence, kind="stable")
        scale_x, scale_y, left, top = self._placement(*size)
        shift = np.array([left, top, left, top], np.float32)
        scale = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        return (kept.boxes[order] - shift) / scale, kept.confidence[order]


def with_numbers(attributes: ClassAttributes, numbers: dict[str, float]) -> ClassAttributes:
    """Return attributes with some of nvinfer's keys replaced, by nvinfer's names."""
    names = {
        "pre-cluster-threshold": "pre_cluster_threshold",
        "post-cluster-threshold": "post_cluster_threshold",
        "nms-iou-threshold": "nms_iou_threshold",
        "topk": "topk",
        "eps": "eps",
        "minBoxes": "min_boxes",
    }
    return replace(attributes, **{names[key]: value for key, value in numbers.items()})
