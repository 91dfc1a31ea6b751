"""Where labels and detections are: in pixels of the image file, or of the network's input."""

from collections.abc import Sequence

import numpy as np

from detectnet_v2 import spec_pb2
from detectnet_v2.augmentation import Augmenter, transform_boxes
from detectnet_v2.dataset import Sample


class Placement:
    """Moves boxes between images and the network's input, as the spec's preprocessing places them.

    Without enable_auto_resize and a crop, both are the same.
    """

    def __init__(self, config: spec_pb2.AugmentationConfig):
        preprocessing = config.preprocessing
        self._size = preprocessing.output_image_width, preprocessing.output_image_height
        self._stretches = preprocessing.enable_auto_resize
        self._spatial = Augmenter(config, canvas=self._size).unchanged().spatial

    def to_input(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Return boxes (n, 4) of an image of width x height in pixels of the network's input."""
        return transform_boxes(boxes * self._ratio(width, height), self._spatial)

    def to_image(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Return boxes (n, 4) of the network's input in pixels of an image of width x height."""
        moved = transform_boxes(boxes, np.linalg.inv(self._spatial))
        return moved / self._ratio(width, height)

    def _ratio(self, width: int, height: int) -> np.ndarray:
        ratio = self._size[0] / width, self._size[1] / height
        return np.array(ratio * 2 if self._stretches else (1.0,) * 4, np.float32)


def ground_truth(
    samples: Sequence[Sample], experiment: spec_pb2.Experiment
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return boxes float32 (n, 4) and classes int32 (n,) of each sample.

    The boxes are in pixels of the network's input. They are not clipped, as NVIDIA's are not.
    """
    placement = Placement(experiment.augmentation_config)
    return [
        (placement.to_input(sample.boxes, sample.width, sample.height), sample.classes)
        for sample in samples
    ]
