"""nvinfer's clustering against the plain loops that it stands for, on frames with many boxes."""

import numpy as np
import pytest
from deepstream.clustering import dbscan, nms, overlaps
from deepstream.decode import Candidates


def crowd(count, seed=0):
    """Boxes (n, 4) around a few faces, some equal, some without area, and their confidences."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(1, 9, (count, 2)) * 40 + rng.normal(0, 4, (count, 2))
    sides = rng.uniform(20, 60, (count, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    boxes[1::50] = boxes[::50]
    boxes[2::50, 2:] = boxes[2::50, :2]
    return boxes, rng.uniform(0, 1, count).round(2).astype(np.float32)


def plain_nms(boxes, confidence, threshold):
    kept = []
    for index in np.argsort(-confidence, kind="stable"):
        if all(overlaps(boxes[[index]], boxes[[k]])[0, 0] <= np.float32(threshold) for k in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_nms_is_greedy_over_more_boxes_than_are_compared_at_once(threshold):
    boxes, confidence = crowd(650)
    assert nms(boxes, confidence, threshold).tolist() == plain_nms(boxes, confidence, threshold)


def test_nms_of_nothing_is_nothing():
    assert nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.5).tolist() == []


def plain_clusters(near, core):
    """Members of each cluster; a border point belongs to the first that reaches it."""
    clusters, taken = [], set()
    for seed in np.flatnonzero(core):
        if seed in taken:
            continue
        members, queue = {seed}, [seed]
        while queue:
            for point in np.flatnonzero(near[queue.pop()]):
                if point not in members and point not in taken:
                    members.add(point)
                    if core[point]:
                        queue.append(point)
        taken |= members
        clusters.append(sorted(members))
    return clusters


@pytest.mark.parametrize(("eps", "min_boxes"), [(0.3, 1), (0.5, 4), (0.7, 8)])
def test_dbscan_merges_what_core_points_reach(eps, min_boxes):
    boxes, confidence = crowd(300, seed=1)
    near = 1.0 - overlaps(boxes, boxes) <= np.float32(eps) + np.float32(1e-6)
    np.fill_diagonal(near, True)
    core = near.sum(axis=1) >= min_boxes
    merged = dbscan(Candidates(boxes, confidence), eps, min_boxes)
    clusters = plain_clusters(near, core)
    assert len(merged) == len(clusters) > 3
    for box, strongest, members in zip(merged.boxes, merged.confidence, clusters, strict=True):
        weights = np.maximum(confidence[members], 1e-6)
        np.testing.assert_allclose(box, np.average(boxes[members], 0, weights), rtol=1e-4)
        assert strongest == weights.max()
