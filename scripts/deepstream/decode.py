"""nvinfer's built-in DetectNet_v2 parser: grid tensors in, rectangles of one class out.

Source of the arithmetic: `parseBoundingBox` in NVIDIA's Apache-2.0 nvdsinfer, unchanged from
DeepStream 5.0 to 9.1. It differs from the toolkit's decoder in the last pixel: corners are clipped
to width - 1 and height - 1.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

# The network predicts distances from the grid points (16 i + 0.5) divided by 35.
SCALE = np.float32(35.0)
OFFSET = np.float32(0.5)


@dataclass(frozen=True)
class Candidates:
    """Rectangles of one class in network pixels: `boxes` (n, 4) x1 y1 x2 y2, `confidence` (n,)."""

    boxes: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, index: np.ndarray) -> "Candidates":
        """Select by an index or mask array."""
        return Candidates(self.boxes[index], self.confidence[index])


def decode(
    bbox: np.ndarray,
    coverage: np.ndarray,
    *,
    width: int,
    height: int,
    thresholds: list[float],
) -> list[Candidates]:
    """Turn one image's tensors into candidates per class, in grid order.

    `bbox` is (4C, h, w), `coverage` (C, h, w), `width` and `height` are the network's input in
    pixels. A cell is kept when its coverage reaches the class's threshold. Classes beyond either
    the tensors or `thresholds` are not parsed.
    """
    rows, columns = coverage.shape[1:]
    stride_x, stride_y = ceil(width / columns), ceil(height / rows)
    found = []
    for class_id, threshold in enumerate(thresholds[: coverage.shape[0]]):
        y, x = np.nonzero(coverage[class_id] >= np.float32(threshold))
        left, top, right, bottom = bbox[4 * class_id : 4 * class_id + 4, y, x]
        center_x = (x * stride_x).astype(np.float32) + OFFSET
        center_y = (y * stride_y).astype(np.float32) + OFFSET
        boxes = np.stack(
            (
                np.clip(center_x - left * SCALE, 0, width - 1),
                np.clip(center_y - top * SCALE, 0, height - 1),
                np.clip(center_x + right * SCALE, 0, width - 1),
                np.clip(center_y + bottom * SCALE, 0, height - 1),
            ),
            axis=1,
        )
        upright = (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
        confidence = coverage[class_id, y, x]
        found.append(Candidates(boxes[upright], confidence[upright]))
    return found
