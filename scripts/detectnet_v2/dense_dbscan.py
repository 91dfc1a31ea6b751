"""DBSCAN of some hundred boxes on the whole matrix of neighbours, and who is a neighbour of whom.

NumPy is fast where both operands are arrays of the result's shape and the result stays in the
cache, which is why sides are negated, zeros are an array, and the matrix comes in strips.
"""

from functools import cache

import numpy as np

NOISE = -1
MOST_BOXES = 1024
"""Beyond it the matrix leaves the cache, and comparing only near boxes pays."""

_STRIP = 64
"""Rows of the matrix that are computed at once; up to two strips are one."""
_CLOSE_CALL = 1e-4
"""Sums of weights nearer to the threshold than this share of it may be decided by rounding."""


def dense_dbscan(
    boxes: np.ndarray, weights: np.ndarray, *, eps: float, min_weight: float, iou_epsilon: float
) -> np.ndarray:
    """Return the cluster of each box of one frame, as `clustering.dbscan` does.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2; at least one.
        weights: float32 (n,).
    """
    # Sorted by their left sides, boxes that can be near are near in the matrix, too.
    order = np.argsort(boxes[:, 0])
    near = _neighbours(boxes[order], np.float32(iou_epsilon), eps)
    ones = near.astype(np.float32)
    total = ones @ weights[order]
    core = total >= min_weight
    for index in np.flatnonzero(np.abs(total - min_weight) <= _CLOSE_CALL * max(min_weight, 1.0)):
        # In the order of scikit-learn.
        core[index] = np.sum(weights[np.sort(order[near[index]])]) >= min_weight
    labels = np.full(len(boxes), NOISE, np.int64)
    if core.all():
        labels[order] = _components(near, ones, order)
        return labels
    inner, outer = np.flatnonzero(core), np.flatnonzero(~core)
    if not len(inner):
        return labels
    joined = near[inner][:, inner]
    component = _components(joined, joined.astype(np.float32), order[inner])
    labels[order[inner]] = component
    # The first cluster with a core within eps.
    count = len(inner)
    reached = np.where(near[np.ix_(outer, inner)], component, count).min(axis=1)
    labels[order[outer]] = np.where(reached < count, reached, NOISE)
    return labels


@cache
def least_iou(eps: float) -> np.float32:
    """Return the smallest float32 whose distance 1 - IoU, rounded to float32, is at most eps.

    To compare an IoU with it is to compare the distance with eps.
    """
    eps = np.float32(eps)
    # Negative zero, then all floats up to infinity, in the order of their bits.
    low, high = -1, 0x7F800000
    while high - low > 1:
        middle = (low + high) // 2
        if np.float32(1) - np.uint32(middle).view(np.float32) <= eps:
            high = middle
        else:
            low = middle
    return np.uint32(high).view(np.float32)


def limits_and_areas(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x2, y2, -x1, -y1 (4, ...) and the areas (...) of boxes (..., 4), float32."""
    limits = np.empty((4, *boxes.shape[:-1]), np.float32)
    limits[0], limits[1] = boxes[..., 2], boxes[..., 3]
    np.negative(boxes[..., 0], out=limits[2])
    np.negative(boxes[..., 1], out=limits[3])
    width, height = limits[:2] + limits[2:]
    return limits, width * height


def within(
    limits: tuple[np.ndarray, np.ndarray],
    areas: tuple[np.ndarray, np.ndarray],
    epsilon: np.float32,
    threshold: np.float32,
    *,
    buffers: np.ndarray,
    zeros: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write into ``out`` whether the IoU of boxes, float32, is at least ``threshold``.

    Both pairs broadcast to the shape of ``out``. The IoU is intersection / (union + epsilon).

    Args:
        limits: x2, y2, -x1, -y1 of the one and of the other boxes along the first axis.
        areas: of the same boxes.
        buffers: (5, shape of out), overwritten; asking for memory takes longer than arithmetic.
        zeros: (2, shape of out).
    """
    union, extent = buffers[4], buffers[:2]
    np.minimum(*limits, out=buffers[:4])
    # min(x2) - max(x1) and min(y2) - max(y1).
    extent += buffers[2:4]
    np.maximum(extent, zeros, out=extent)
    intersection = np.multiply(extent[0], extent[1], out=extent[0])
    np.add(*areas, out=union)
    union -= intersection
    union += epsilon
    np.divide(intersection, union, out=intersection)
    np.greater_equal(intersection, threshold, out=out)


def _neighbours(boxes: np.ndarray, epsilon: np.float32, eps: float) -> np.ndarray:
    """Return bool (n, n) for boxes in the order of x1.

    Of two boxes with an IoU of t = 1 - eps or more, each intersects the other by at least t of its
    width, so their left sides are at most 1 - t of the greatest width apart. The half below the
    diagonal is a copy of that above.
    """
    count = len(boxes)
    threshold = least_iou(eps)
    limits, areas = limits_and_areas(boxes)
    strip = _STRIP if count > 2 * _STRIP else count
    starts = range(0, count, strip)
    ends = [count] * len(starts)
    slack = eps + 1e-4
    if slack < 1 < len(starts):
        left = boxes[:, 0]
        reach = slack * float((boxes[:, 2] - left).max()) + 1e-3
        last = left[strip - 1 : -1 : strip].astype(np.float64)
        ends[: len(last)] = left.searchsorted(last + max(reach, 0), side="right").tolist()
    near = np.zeros((count, count), bool)
    cells = strip * max(end - start for start, end in zip(starts, ends, strict=True))
    buffers, zeros = np.empty(5 * cells, np.float32), np.zeros(2 * cells, np.float32)
    for start, end in zip(starts, ends, strict=True):
        rows, others = slice(start, start + strip), slice(start, end)
        out = near[rows, others]
        within(
            (limits[:, rows, None], limits[:, None, others]),
            (areas[rows, None], areas[others]),
            epsilon,
            threshold,
            buffers=buffers[: 5 * out.size].reshape(5, *out.shape),
            zeros=zeros[: 2 * out.size].reshape(2, *out.shape),
            out=out,
        )
        height = len(out)
        near[start + height : end, rows] = out[:, height:].T
    return near


def _components(near: np.ndarray, ones: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the connected component of each row of a symmetric matrix, bool and as float32.

    They are numbered by their members' least ``order`` (n,).
    """
    each = np.arange(len(near))
    first = near.argmax(axis=1)
    # A box without area is not even near itself.
    root = np.where(near[each, first], np.minimum(first, each), each)
    degree = ones @ np.ones(len(ones), np.float32)
    while True:
        while not np.array_equal(follow := root[root], root):
            root = follow
        # What the graph's Laplacian, degree - near, maps to zero is constant on each component. The
        # sums are whole numbers that float32 has, as long as there are no more than MOST_BOXES.
        label = root.astype(np.float32)
        if np.array_equal(ones @ label, degree * label):
            break
        short = root.astype(np.int16)
        apart = short[:, None] != short
        apart &= near
        place = apart.argmax(axis=1)
        row = np.flatnonzero(apart[each, place])
        ends = root[row], root[place[row]]
        np.minimum.at(root, np.maximum(*ends), np.minimum(*ends))
    least = np.full(len(near), np.iinfo(order.dtype).max)
    np.minimum.at(least, root, order)
    roots = np.flatnonzero(root == each)
    number = np.empty(len(near), np.int64)
    number[roots[np.argsort(least[roots])]] = np.arange(len(roots))
    return number[root]
