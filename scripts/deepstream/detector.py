"""nvinfer as one object: surfaces in, objects in streammux pixels out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepstream.clustering import cluster
from deepstream.decode import decode
from deepstream.errors import DeepStreamError
from deepstream.inferconfig import InferConfig
from deepstream.network import Network
from deepstream.preprocess import Preprocessor
from deepstream.surface import Surface


@dataclass(frozen=True)
class Objects:
    """What was found in one frame: `class_ids` (n,) int32, `boxes` (n, 4) x1 y1 x2 y2 float32 in
    frame pixels, `confidence` (n,) float32."""

    class_ids: np.ndarray
    boxes: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.class_ids)


NOTHING = Objects(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class Detector:
    """A network with its nvinfer config; `detect` may be called from several threads."""

    def __init__(self, config: InferConfig, *, threads: int = 0):
        """Load the config's model; `threads` as in Network.

        Raises DeepStreamError when model and config do not fit each other.
        """
        self.config = config
        self.network = Network(
            config.model,
            dims=config.dims,
            key=config.model_key,
            threads=threads,
            output_names=config.output_names,
        )
        self.preprocessor = Preprocessor(config, self.network.dims)
        fixed = self.network.fixed_batch
        if fixed is not None and fixed != config.batch_size:
            raise DeepStreamError(
                f"{config.path}: batch-size={config.batch_size} but {config.model} is fixed to "
                f"batches of {fixed}"
            )

    def detect(self, surfaces: Sequence[Surface]) -> list[Objects]:
        """Find objects in a batch of surfaces."""
        bbox, coverage = self.infer(surfaces)
        return [
            self.objects(bbox[index], coverage[index], surface.width, surface.height)
            for index, surface in enumerate(surfaces)
        ]

    def infer(self, surfaces: Sequence[Surface]) -> tuple[np.ndarray, np.ndarray]:
        """Run the network on surfaces: raw boxes (n, 4C, h, w) and coverage (n, C, h, w)."""
        count = self.network.fixed_batch or len(surfaces)
        tensor = np.empty((count, *self.network.dims), np.float32)
        for surface, target in zip(surfaces, tensor, strict=False):
            self.preprocessor.fill(surface, target)
        tensor[len(surfaces) :] = 0
        bbox, coverage = self.network.run(tensor)
        return bbox[: len(surfaces)], coverage[: len(surfaces)]

    def objects(self, bbox: np.ndarray, coverage: np.ndarray, width: int, height: int) -> Objects:
        """Decode, cluster and filter one frame's tensors; `width` and `height` are the frame's."""
        config = self.config
        _, network_height, network_width = self.network.dims
        candidates = decode(
            bbox,
            coverage,
            width=network_width,
            height=network_height,
            thresholds=[attributes.pre_cluster_threshold for attributes in config.classes],
        )
        class_ids, boxes, confidence = [], [], []
        for class_id, found in enumerate(candidates):
            if not len(found) or class_id in config.filtered_classes:
                continue
            attributes = config.classes[class_id]
            kept = cluster(found, attributes, config.cluster_mode)
            placed = self._to_frame(kept.boxes, width, height)
            fits = _fits(placed, attributes, height)
            class_ids.append(np.full(fits.sum(), class_id, np.int32))
            boxes.append(placed[fits])
            confidence.append(kept.confidence[fits])
        if not class_ids:
            return NOTHING
        return Objects(np.concatenate(class_ids), np.concatenate(boxes), np.concatenate(confidence))

    def _to_frame(self, boxes, width, height):
        scale_x, scale_y, left, top = self.preprocessor.placement(width, height)
        shift = np.array([left, top, left, top], np.float32)
        scale = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        placed = (boxes - shift) / scale
        placed[:, 0::2] = np.clip(placed[:, 0::2], 0, width)
        placed[:, 1::2] = np.clip(placed[:, 1::2], 0, height)
        return placed


def _fits(boxes, attributes, height):
    """Mask of the boxes inside the size limits and the region of interest, all in frame pixels."""
    width_of, height_of = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    fits = (width_of >= attributes.min_width) & (height_of >= attributes.min_height)
    if attributes.max_width:
        fits &= width_of <= attributes.max_width
    if attributes.max_height:
        fits &= height_of <= attributes.max_height
    fits &= boxes[:, 1] >= attributes.roi_top_offset
    fits &= boxes[:, 3] <= height - attributes.roi_bottom_offset
    return fits
