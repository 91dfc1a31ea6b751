"""The labels of samples where the network sees them, for evaluation."""

from collections.abc import Sequence

import numpy as np

from detectnet_v2 import spec_pb2
from detectnet_v2.augmentation import Augmenter, transform_boxes
from detectnet_v2.dataset import Sample


def ground_truth(
    samples: Sequence[Sample], experiment: spec_pb2.Experiment
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return boxes float32 (n, 4) and classes int32 (n,) of each sample.

    The boxes are in pixels of the network's input: stretched with the image if the spec says so,
    and moved by its crop. They are not clipped, as NVIDIA's are not.
    """
    config = experiment.augmentation_config
    size = np.array(
        [config.preprocessing.output_image_width, config.preprocessing.output_image_height]
    )
    spatial = Augmenter(config, canvas=tuple(size.tolist())).unchanged().spatial
    result = []
    for sample in samples:
        boxes = sample.boxes
        if config.preprocessing.enable_auto_resize:
            ratio = size / np.array([sample.width, sample.height])
            boxes = boxes * np.tile(ratio, 2).astype(np.float32)
        result.append((transform_boxes(boxes, spatial), sample.classes))
    return result
