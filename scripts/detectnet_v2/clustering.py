"""DBSCAN and NMS over the boxes of one class in one image.

Both give what NVIDIA's code gives (scikit-learn's DBSCAN on a matrix of 1 - IoU, and a greedy NMS).
Frames with some hundred boxes go through `dense_dbscan`. For more boxes, and for many small frames
at once, DBSCAN does without the n x n matrix: boxes are sorted into blocks of near ones, and only
blocks that can have neighbours in each other are compared.
"""

from typing import NamedTuple

import numpy as np

from detectnet_v2.dense_dbscan import (
    MOST_BOXES,
    NOISE,
    dense_dbscan,
    least_iou,
    limits_and_areas,
    within,
)

_BLOCK = 32
_PAIRS_AT_ONCE = 64
"""Pairs of blocks that are compared at once: what fits into a core's cache."""
_DENSE_BOXES = 64
"""Boxes of a frame from which on it is worth a matrix of its own."""


class _Blocks(NamedTuple):
    """Boxes in blocks of near ones, and which boxes of which blocks are neighbours."""

    members: np.ndarray
    """(b, _BLOCK) index of each box, ascending; n, one too many, where a block is not full."""
    first: np.ndarray
    """(p,) a block of each pair of blocks; first <= second, equal for a block with itself."""
    second: np.ndarray
    near: np.ndarray
    """bool (p, _BLOCK, _BLOCK): is a box of the first within eps of one of the second?"""


def dbscan(
    boxes: np.ndarray,
    weights: np.ndarray,
    *,
    eps: float,
    min_weight: float,
    iou_epsilon: float,
    frames: np.ndarray | None = None,
) -> np.ndarray:
    """Return the cluster of each box, as scikit-learn's DBSCAN on precomputed distances does.

    The distance of two boxes is 1 - intersection / (union + iou_epsilon), computed in float32. A
    box is a core when the weights of all boxes within eps, itself included, add up to min_weight.
    Clusters are numbered by their first core; a box that is no core joins the first cluster with a
    core within eps, or is noise.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2.
        weights: float32 (n,).
        frames: (n,), ascending: the frame of each box, when there are boxes of many; clusters stay
            within a frame. All frames at once take less time than one after the other.

    Returns:
        int64 (n,): clusters from 0, counted over all frames; NOISE for a box in none.
    """
    if not len(boxes):
        return np.empty(0, np.int64)
    boxes, weights = np.asarray(boxes, np.float32), np.asarray(weights, np.float32)
    settings = {"eps": eps, "min_weight": min_weight, "iou_epsilon": iou_epsilon}
    if frames is None:
        if len(boxes) <= MOST_BOXES:
            return dense_dbscan(boxes, weights, **settings)
        frames = np.zeros(len(boxes), np.int64)
    start = np.flatnonzero(np.diff(frames, prepend=frames[0] - 1))
    sizes = np.diff(start, append=len(boxes))
    if sizes.max() <= MOST_BOXES and sizes.mean() >= _DENSE_BOXES:
        labels = np.empty(len(boxes), np.int64)
        clusters = 0
        for first, size in zip(start, sizes, strict=True):
            part = slice(first, first + size)
            found = dense_dbscan(boxes[part], weights[part], **settings)
            labels[part] = np.where(found == NOISE, NOISE, found + clusters)
            clusters += found.max() + 1
        return labels
    blocks = _neighbours(boxes, frames, eps, np.float32(iou_epsilon))
    core = _cores(blocks, weights, min_weight)
    return _labels(blocks, core)


def _neighbours(boxes: np.ndarray, frames: np.ndarray, eps: float, epsilon: np.float32) -> _Blocks:
    """Sort the boxes into blocks and find the neighbours.

    Of two boxes with an IoU of t = 1 - eps or more, each intersects the other by at least t of its
    width, so a side of one is at most 1 - t of the wider one's width away from that of the other;
    the same holds for heights. Blocks whose sides are farther apart are not compared.
    """
    members = _tiles(boxes, frames)
    first, second = _candidates(boxes, frames, members, eps + 1e-4)
    # One box more, that is nobody's neighbour, fills up the blocks.
    padded = np.concatenate([boxes, np.full((1, 4), np.nan, np.float32)])
    limits, areas = limits_and_areas(padded[members])
    near = np.empty((len(first), _BLOCK, _BLOCK), bool)
    buffers = np.empty((5, _PAIRS_AT_ONCE, _BLOCK, _BLOCK), np.float32)
    zeros = np.zeros((2, _PAIRS_AT_ONCE, _BLOCK, _BLOCK), np.float32)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        out = near[start : start + _PAIRS_AT_ONCE]
        part = slice(start, start + len(out))
        a, b = first[part], second[part]
        within(
            (limits[:, a, :, None], limits[:, b, None]),
            (areas[a, :, None], areas[b, None]),
            epsilon,
            least_iou(eps),
            buffers=buffers[:, : len(out)],
            zeros=zeros[:, : len(out)],
            out=out,
        )
    return _Blocks(members, first, second, near)


def _tiles(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the boxes' indices (b, _BLOCK) in blocks of a frame: strips by x, cut by y."""
    count = len(boxes)
    start = np.flatnonzero(np.diff(frames, prepend=frames[0] - 1))
    size = np.diff(start, append=count)
    frame = np.repeat(np.arange(len(start)), size)
    blocks = -(-size // _BLOCK)
    strip = _BLOCK * np.maximum(np.rint(np.sqrt(blocks)), 1)
    # One number to sort by, since the order need not be exact.
    x, y = np.clip(np.nan_to_num(boxes[:, :2]).T, -1e6, 1e6).astype(np.float64)
    rank = np.empty(count, np.int64)
    rank[np.argsort(frame * 1e7 + x)] = np.arange(count) - start[frame]
    order = np.argsort((frame * (count + 1.0) + rank // strip[frame]) * 1e7 + y)
    # Frames are ascending, so the boxes of one stay together.
    shift = _BLOCK * (np.cumsum(blocks) - blocks) - start
    members = np.full(blocks.sum() * _BLOCK, count)
    members[np.arange(count) + shift[frame]] = order
    return np.sort(members.reshape(-1, _BLOCK), axis=1)


def _candidates(
    boxes: np.ndarray, frames: np.ndarray, members: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of blocks of a frame that may have neighbours, a block's with itself too."""
    frame = frames[members[:, 0]]
    # Every pair of blocks of the same frame, once.
    end = np.searchsorted(frame, frame, side="right")
    partners = end - np.arange(len(members))
    first = np.repeat(np.arange(len(members)), partners)
    second = np.arange(len(first)) - np.repeat(np.cumsum(partners) - end, partners)
    if slack >= 1:
        return first, second
    full = boxes[np.where(members < len(boxes), members, members[:, :1])]
    low, high = full.min(1), full.max(1)
    extent = np.tile(np.maximum(full[..., 2:] - full[..., :2], 0).max(1), 2)
    gap = np.maximum(low[first] - high[second], low[second] - high[first])
    reach = slack * np.maximum(extent[first], extent[second]) + 1e-3
    kept = (gap <= reach).all(1)
    return first[kept], second[kept]


def _cores(blocks: _Blocks, weights: np.ndarray, min_weight: float) -> np.ndarray:
    """Return which boxes have a weight of min_weight or more within eps."""
    count = len(weights)
    members, first, second, near = blocks
    weight = np.append(weights, np.float32(0))[members]
    ones = near.astype(np.float32)
    sums = np.zeros(weight.shape)
    np.add.at(sums, first, (ones @ weight[second][..., None])[..., 0])
    other = first != second
    back = weight[first[other]][:, None] @ ones[other]
    np.add.at(sums, second[other], back[:, 0])
    total = np.empty(count + 1)
    total[members] = sums
    total = total[:count]
    core = total >= min_weight
    for index in np.flatnonzero(np.abs(total - min_weight) <= 1e-5 * max(min_weight, 1.0)):
        # So close that the rounding decides: sum in the order of scikit-learn.
        block, place = np.argwhere(members == index)[0]
        row = [members[second[first == block]][near[first == block, place]]]
        column = other & (second == block)
        row.append(members[first[column]][near[column, :, place]])
        core[index] = np.sum(weights[np.sort(np.concatenate(row))]) >= min_weight
    return core


def _labels(blocks: _Blocks, core: np.ndarray) -> np.ndarray:
    """Return the clusters: connected cores, and what lies within eps of one."""
    count = len(core)
    # Roots are the first cores of the clusters, so their order is that of the clusters.
    root = _core_roots(blocks, core)
    if not core.all():
        root = np.where(core, root, _first_root_in_reach(blocks, core, root))
    labels = np.full(count, NOISE, np.int64)
    inside = root < count
    labels[inside] = np.unique(root[inside], return_inverse=True)[1]
    return labels


def _core_roots(blocks: _Blocks, core: np.ndarray) -> np.ndarray:
    """Return for each core (n,) the first one that it is connected with; n for the others."""
    count = len(core)
    members, first, second, near = blocks
    joined = near
    if not core.all():
        is_core = np.append(core, False)[members]
        joined = near & is_core[first][:, :, None]
        joined &= is_core[second][:, None]
    root = np.arange(count + 1, dtype=np.int32)
    while True:
        tile = root[members]
        apart = tile[first][:, :, None] != tile[second][:, None]
        apart &= joined
        # One neighbour with another root for each box and block, and the larger root follows.
        place = apart.argmax(2)
        pair, row = np.nonzero(np.take_along_axis(apart, place[:, :, None], 2)[:, :, 0])
        if not len(pair):
            break
        ends = tile[first[pair], row], tile[second[pair], place[pair, row]]
        np.minimum.at(root, np.maximum(*ends), np.minimum(*ends))
        while not np.array_equal(root[root], root):
            root = root[root]
    return np.where(core, root[:count], count)


def _first_root_in_reach(blocks: _Blocks, core: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return for each box that is no core (n,) the smallest root of a core within eps, or n."""
    count = len(core)
    members, first, second, near = blocks
    outer = np.append(~core, False)[members]
    tile = np.append(np.where(core, root, count), count).astype(np.int32)[members]
    smallest = np.full(tile.shape, count, np.int32)
    touched = outer[first].any(1)
    reach = np.where(near[touched], tile[second[touched]][:, None], np.int32(count))
    np.minimum.at(smallest, first[touched], reach.min(2))
    touched = outer[second].any(1)
    reach = np.where(near[touched], tile[first[touched]][:, :, None], np.int32(count))
    np.minimum.at(smallest, second[touched], reach.min(1))
    result = np.empty(count + 1, np.int64)
    result[members] = smallest
    return result[:count]


def nms(boxes: np.ndarray, scores: np.ndarray, *, iou_threshold: float) -> np.ndarray:
    """Return the boxes that greedy suppression keeps, by descending score.

    A box goes when its IoU with a kept one of a higher score is above the threshold. Sides count
    as whole pixels: widths and heights are x2 - x1 + 1 and y2 - y1 + 1.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2.
        scores: float32 (n,).

    Returns:
        int64: indices of the kept boxes.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = np.asarray(boxes, np.float64)[order].T
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    alive = np.ones(len(order), bool)
    for index in range(len(order)):
        if not alive[index]:
            continue
        rest = slice(index + 1, None)
        width = np.minimum(x2[index], x2[rest]) - np.maximum(x1[index], x1[rest]) + 1
        height = np.minimum(y2[index], y2[rest]) - np.maximum(y1[index], y1[rest]) + 1
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[index] + area[rest] - intersection
        alive[rest] &= ~(intersection > iou_threshold * union)
    return order[alive]
