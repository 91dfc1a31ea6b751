"""Box regression of DetectNet_v2: the grid's geometry, encoding of targets, decoding of outputs.

The network sees the image as a grid of cells. Each cell predicts, per class, the distances from
the cell's reference point to the four sides of the box around it, in units of ``SCALE`` pixels and
in the order left, top, right, bottom. The reference point of cell (row i, column j) lies at
``(stride * j + OFFSET, stride * i + OFFSET)``: near the cell's upper left corner, not its centre.
"""

import numpy as np
from numpy.typing import ArrayLike

from detectnet_v2 import spec_pb2

STRIDE = 16
SCALE = 35.0
OFFSET = 0.5
SMALLEST_SQUARED_EXTENT = 0.01


def geometry(experiment: spec_pb2.Experiment) -> dict[str, float]:
    """``scale`` and ``offset`` of the spec's bbox objective; the usual ones where it has none.

    An offset that a bbox objective leaves out is 0, as every unset number is for NVIDIA.
    """
    objectives = experiment.model_config.objective_set
    if not objectives.HasField("bbox"):
        return {"scale": SCALE, "offset": OFFSET}
    return {"scale": objectives.bbox.scale, "offset": objectives.bbox.offset}


def grid_references(
    grid_width: int, grid_height: int, *, stride: int = STRIDE, offset: float = OFFSET
) -> tuple[np.ndarray, np.ndarray]:
    """Reference points of the cells in pixels: x of each column (w,) and y of each row (h,)."""
    return (
        np.arange(grid_width, dtype=np.float32) * stride + np.float32(offset),
        np.arange(grid_height, dtype=np.float32) * stride + np.float32(offset),
    )


def encode(
    boxes: ArrayLike,
    *,
    grid_width: int,
    grid_height: int,
    stride: int = STRIDE,
    scale: float = SCALE,
    offset: float = OFFSET,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Regression targets of all cells for each box.

    ``boxes`` is (n, 4) in pixels, x1 y1 x2 y2. Returns the distances to the left, top, right and
    bottom side divided by ``scale``, float32; negative where a cell lies outside. All cells of a
    column have the same distances to left and right, (n, w), those of a row to top and bottom,
    (n, h). From cell to cell the distances change by the stride; less where a box is narrower or
    lower than a tenth of a cell, since NVIDIA's rasteriser divides by max(extent^2, 0.01), with
    the extent in cells.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    x1, y1, x2, y2 = boxes.T[:, :, None]
    left, right = _distances(x1, x2, np.arange(grid_width), stride, offset)
    top, bottom = _distances(y1, y2, np.arange(grid_height), stride, offset)
    return tuple(side / np.float32(scale) for side in (left, top, right, bottom))


def _distances(
    low: np.ndarray, high: np.ndarray, cells: np.ndarray, stride: int, offset: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, cells) in pixels of the cells to the sides ``low`` and ``high`` (n, 1)."""
    squared = ((high - low) / np.float32(stride)) ** 2
    slope = squared / np.maximum(squared, np.float32(SMALLEST_SQUARED_EXTENT))
    from_low = slope * (cells.astype(np.float32) * stride - low) + np.float32(offset)
    return from_low, (high - low) - from_low


def decode(
    bbox: ArrayLike,
    cov: ArrayLike,
    *,
    stride: int = STRIDE,
    scale: float = SCALE,
    offset: float = OFFSET,
    width: int,
    height: int,
    clip: bool = True,
) -> np.ndarray:
    """Boxes that the cells predict, per class.

    ``bbox`` is (N, 4C, h, w), ``cov`` (N, C, h, w). Returns float32 (N, C, h, w, 4), x1 y1 x2 y2
    in pixels of the network's input, which is ``width`` x ``height``. With ``clip`` the first
    corner is clipped to the image and the second to what lies right of and below the first, as
    NVIDIA's training and evaluation do it; its inference leaves boxes as they are.
    Raises ValueError when the two shapes do not belong together.
    """
    bbox = np.asarray(bbox, dtype=np.float32)
    shape = np.shape(cov)
    if len(shape) != 4 or bbox.shape != (shape[0], 4 * shape[1], *shape[2:]):
        raise ValueError(
            f"box output {bbox.shape} does not fit coverage output {shape}: "
            "(N, 4C, h, w) and (N, C, h, w) are needed"
        )
    count, classes, grid_height, grid_width = shape
    sides = bbox.reshape(count, classes, 4, grid_height, grid_width) * np.float32(scale)
    gx, gy = grid_references(grid_width, grid_height, stride=stride, offset=offset)
    gy = gy[:, None]
    boxes = np.empty((count, classes, grid_height, grid_width, 4), dtype=np.float32)
    boxes[..., 0] = gx - sides[:, :, 0]
    boxes[..., 1] = gy - sides[:, :, 1]
    boxes[..., 2] = gx + sides[:, :, 2]
    boxes[..., 3] = gy + sides[:, :, 3]
    if clip:
        limits = np.array([width, height], dtype=np.float32)
        np.clip(boxes[..., :2], 0, limits, out=boxes[..., :2])
        np.clip(boxes[..., 2:], boxes[..., :2], limits, out=boxes[..., 2:])
    return boxes
