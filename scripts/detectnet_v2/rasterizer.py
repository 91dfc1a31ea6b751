"""Draws labelled boxes into the coverage and box-regression targets of the network's output grid.

A box becomes two concentric ellipses. Inside the smaller one, the coverage ellipse, cells learn to
detect the object; between it and the larger one, the dead zone, cells are set to background and
erase what other objects of the same class have drawn there. Cells are sampled 4 x 4, so coverage
is a fraction. This is the algorithm of DetectNet_v2's ``BboxRasterizer``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectnet_v2.objectives import OFFSET, SCALE, STRIDE, encode

SAMPLES = 4
_MIN_RADIUS = 0.1


@dataclass(frozen=True)
class EllipseConfig:
    """How the boxes of one class become ellipses (``bbox_rasterizer_config`` of the spec).

    Centre and radii are fractions, of the box and of its half extents; ``bbox_min_radius`` is in
    grid cells; ``deadzone_radius`` places the dead zone between the coverage ellipse (0) and the
    box (1).
    """

    cov_center_x: float = 0.5
    cov_center_y: float = 0.5
    cov_radius_x: float = 0.4
    cov_radius_y: float = 0.4
    bbox_min_radius: float = 1.0
    deadzone_radius: float = 0.4


@dataclass(frozen=True)
class Ellipses:
    """Coverage and dead-zone ellipses of n boxes in grid cells; every field is float64 (n,)."""

    center_x: np.ndarray
    center_y: np.ndarray
    coverage_x: np.ndarray
    coverage_y: np.ndarray
    deadzone_x: np.ndarray
    deadzone_y: np.ndarray
    inverse_area: np.ndarray


def ellipses(
    boxes: np.ndarray, classes: np.ndarray, config: Sequence[EllipseConfig], stride: int = STRIDE
) -> Ellipses:
    """Ellipses of ``boxes`` (n, 4), in pixels, whose ``classes`` (n,) index ``config``."""
    # (n, 6) settings, one row a box, so that all boxes are computed at once.
    settings = np.array(
        [
            (
                c.cov_center_x,
                c.cov_center_y,
                c.cov_radius_x,
                c.cov_radius_y,
                c.bbox_min_radius,
                c.deadzone_radius,
            )
            for c in config
        ],
        dtype=np.float64,
    )[classes].reshape(-1, 6)
    relative_x, relative_y, radius_x, radius_y, min_radius, deadzone = settings.T
    x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T / stride

    center_x = x1 + relative_x * (x2 - x1)
    center_y = y1 + relative_y * (y2 - y1)
    # An off-centre ellipse reaches to the nearer side.
    half_x = np.where(relative_x < 0.5, center_x - x1, x2 - center_x)
    half_y = np.where(relative_y < 0.5, center_y - y1, y2 - center_y)
    coverage_x = np.maximum(radius_x * half_x, _MIN_RADIUS)
    coverage_y = np.maximum(radius_y * half_y, _MIN_RADIUS)

    # A small box is enlarged to the least radius, first by its x axis, then by its y axis, and
    # keeps its aspect.
    growth = np.maximum(min_radius / coverage_x, 1.0)
    coverage_x, coverage_y = coverage_x * growth, coverage_y * growth
    growth = np.maximum(min_radius / coverage_y, 1.0)
    coverage_x, coverage_y = coverage_x * growth, coverage_y * growth

    return Ellipses(
        center_x=center_x,
        center_y=center_y,
        coverage_x=coverage_x,
        coverage_y=coverage_y,
        deadzone_x=np.maximum((1 - deadzone) * coverage_x + deadzone * half_x, coverage_x),
        deadzone_y=np.maximum((1 - deadzone) * coverage_y + deadzone * half_y, coverage_y),
        inverse_area=1.0 / np.maximum(4 * coverage_x * coverage_y, 1.0),
    )


def rasterize(
    boxes: np.ndarray,
    classes: np.ndarray,
    *,
    config: Sequence[EllipseConfig],
    grid_width: int,
    grid_height: int,
    stride: int = STRIDE,
    num_classes: int,
    scale: float = SCALE,
    offset: float = OFFSET,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of one image.

    ``boxes`` is (n, 4) in pixels of the network's input, x1 y1 x2 y2, and may leave the image;
    ``classes`` is (n,) and indexes ``config``. Returns float32 ``cov`` (C, h, w), the coverage;
    ``cov_norm`` (C, h, w), the coverage divided by the area of the ellipse's bounds in cells;
    ``bbox`` (4C, h, w), the regression targets of covered cells, 0 elsewhere.
    """
    cov = np.zeros((num_classes, grid_height, grid_width), dtype=np.float32)
    cov_norm = np.zeros_like(cov)
    bbox = np.zeros((num_classes, 4, grid_height, grid_width), dtype=np.float32)
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    classes = np.asarray(classes, dtype=np.int64).reshape(-1)
    if not len(boxes):
        return cov, cov_norm, bbox.reshape(-1, grid_height, grid_width)

    shape = ellipses(boxes, classes, config, stride)
    left, right = _cells(shape.center_x, shape.deadzone_x, grid_width)
    top, bottom = _cells(shape.center_y, shape.deadzone_y, grid_height)
    coverage_x, deadzone_x = _squared_distances(
        shape.center_x, shape.coverage_x, shape.deadzone_x, grid_width
    )
    coverage_y, deadzone_y = _squared_distances(
        shape.center_y, shape.coverage_y, shape.deadzone_y, grid_height
    )
    to_left, to_top, to_right, to_bottom = encode(
        boxes,
        grid_width=grid_width,
        grid_height=grid_height,
        stride=stride,
        scale=scale,
        offset=offset,
    )

    # What is lower in the image is nearer to the camera and covers what lies behind it.
    for i in np.argsort(boxes[:, 3], kind="stable"):
        x, y = slice(left[i], right[i]), slice(top[i], bottom[i])
        if x.start >= x.stop or y.start >= y.stop:
            continue
        across = slice(x.start * SAMPLES, x.stop * SAMPLES)
        down = slice(y.start * SAMPLES, y.stop * SAMPLES)
        covered = _fraction(coverage_x[i, across], coverage_y[i, down])
        dead = _fraction(deadzone_x[i, across], deadzone_y[i, down])
        kind = classes[i]
        cov_window = cov[kind, y, x]
        norm_window = cov_norm[kind, y, x]
        bbox_window = bbox[kind, :, y, x]

        cleared = (dead >= cov_window) & (dead > 0)
        cov_window[cleared] = 0
        norm_window[cleared] = 0
        bbox_window[:, cleared] = 0

        drawn = (covered >= cov_window) & (covered > 0)
        np.copyto(cov_window, covered, where=drawn)
        np.copyto(norm_window, covered * np.float32(shape.inverse_area[i]), where=drawn)
        np.copyto(bbox_window[0], to_left[i, x], where=drawn)
        np.copyto(bbox_window[1], to_top[i, y, None], where=drawn)
        np.copyto(bbox_window[2], to_right[i, x], where=drawn)
        np.copyto(bbox_window[3], to_bottom[i, y, None], where=drawn)
    return cov, cov_norm, bbox.reshape(-1, grid_height, grid_width)


def _cells(center: np.ndarray, radius: np.ndarray, size: int) -> tuple[list[int], list[int]]:
    """First and one past the last grid cell that an ellipse can touch along one axis."""
    first = np.clip(np.floor(center - radius), 0, size).astype(np.int64)
    last = np.clip(np.ceil(center + radius), 0, size).astype(np.int64)
    return first.tolist(), last.tolist()


def _squared_distances(
    center: np.ndarray, coverage: np.ndarray, deadzone: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, SAMPLES * size) squared distances of an axis' sample points, in units of each radius."""
    points = (np.arange(size * SAMPLES) + 0.5) / SAMPLES
    distance = points - center[:, None]
    return (distance / coverage[:, None]) ** 2, (distance / deadzone[:, None]) ** 2


def _fraction(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fraction of each cell's sample points inside an ellipse: float32 (h, w)."""
    inside = y[:, None] + x < 1
    cells = inside.reshape(len(y) // SAMPLES, SAMPLES, len(x) // SAMPLES, SAMPLES)
    return cells.sum((1, 3), dtype=np.float32) / np.float32(SAMPLES * SAMPLES)
