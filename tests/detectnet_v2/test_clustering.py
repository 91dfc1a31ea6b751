"""DBSCAN against scikit-learn and NMS against a plain loop."""

import numpy as np
import pytest
from detectnet_v2 import clustering
from detectnet_v2.clustering import NOISE, dbscan, nms
from detectnet_v2.dense_dbscan import least_iou


def matrix(boxes, epsilon):
    """1 - IoU of all pairs, in float32 as NVIDIA computes it."""
    x1, y1, x2, y2 = boxes.T
    width = np.maximum(0, np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1))
    height = np.maximum(0, np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1))
    both = width * height
    area = (x2 - x1) * (y2 - y1)
    with np.errstate(all="ignore"):
        return 1.0 - both / (area[:, None] + area - both + np.float32(epsilon))


def reference(boxes, weights, eps, min_weight, epsilon):
    cluster = pytest.importorskip("sklearn.cluster")
    model = cluster.DBSCAN(eps=eps, min_samples=min_weight, metric="precomputed")
    return model.fit_predict(matrix(boxes, epsilon), sample_weight=weights)


def scene(rng, count, objects, spread, size=300):
    """Boxes around a few objects, as the cells of a grid predict them."""
    corner = rng.uniform(0, size, (objects, 2))
    truth = np.concatenate([corner, corner + rng.uniform(5, 120, (objects, 2))], axis=1)
    boxes = truth[rng.integers(0, objects, count)] + rng.normal(0, spread, (count, 4))
    return boxes.astype(np.float32), rng.uniform(0, rng.choice([0.05, 0.5, 1]), count).astype("f4")


@pytest.mark.parametrize("most", [0, clustering.MOST_BOXES], ids=["blocks", "dense"])
@pytest.mark.parametrize("eps", [0.1, 0.2, 0.3, 0.5, 0.8, 0.99, 1.0])
def test_clusters_are_scikit_learns(eps, most, monkeypatch):
    monkeypatch.setattr(clustering, "MOST_BOXES", most)
    rng = np.random.default_rng(3)
    for round_ in range(15):
        boxes, weights = scene(rng, rng.integers(1, 220), rng.integers(1, 7), rng.uniform(0.1, 9))
        if round_ % 3 == 0:
            # As decoded: clipped to the image, so that some have no area.
            boxes = np.clip(boxes, 0, 150)
        if round_ % 5 == 0:
            boxes = np.round(boxes)
        if round_ % 7 == 0:
            # Sums of weights that meet the threshold exactly.
            weights[:] = 0.25
        min_weight = int(rng.integers(1, 4))
        epsilon = float(rng.choice([1e-5, 0.01]))
        expected = reference(boxes, weights, float(np.float32(eps)), min_weight, epsilon)
        found = dbscan(
            boxes, weights, eps=float(np.float32(eps)), min_weight=min_weight, iou_epsilon=epsilon
        )
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("count", [260, 500, 1000, 2500])
def test_many_boxes_that_fill_a_grid(count):
    rng = np.random.default_rng(4)
    boxes, weights = scene(rng, count, 25, 3.0, size=900)
    expected = reference(boxes, weights, 0.2, 1, 1e-5)
    found = dbscan(boxes, weights, eps=0.2, min_weight=1, iou_epsilon=1e-5)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("sizes", [[0, 70, 1, 0, 33, 200], [0, 3, 40, 0, 2, 9, 70], [5, 1100]])
def test_frames_do_not_mix(sizes):
    rng = np.random.default_rng(5)
    scenes = [scene(rng, size, 3, 3.0) for size in sizes]
    together = dbscan(
        np.concatenate([boxes for boxes, _ in scenes]),
        np.concatenate([weights for _, weights in scenes]),
        eps=0.3,
        min_weight=0.2,
        iou_epsilon=1e-5,
        frames=np.repeat(np.arange(len(sizes)), sizes),
    )
    expected, clusters = [], 0
    for boxes, weights in scenes:
        labels = dbscan(boxes, weights, eps=0.3, min_weight=0.2, iou_epsilon=1e-5)
        expected += np.where(labels == NOISE, NOISE, labels + clusters).tolist()
        clusters += labels.max(initial=-1) + 1
    assert together.tolist() == expected


def test_an_iou_is_compared_as_its_distance_is():
    for eps in (0.0, 1e-3, 0.15, 0.2, np.float32(0.3), 0.5, 0.99, 1.0):
        least = least_iou(eps)
        assert np.float32(1) - least <= np.float32(eps)
        below = np.nextafter(least, np.float32(-1))
        assert least == 0 or np.float32(1) - below > np.float32(eps)


def by_definition(boxes, weights, eps, min_weight):
    """DBSCAN spelled out, for weights that scikit-learn refuses."""
    near = matrix(boxes, 1e-5) <= np.float32(eps)
    core = (near * weights.astype(np.float64)).sum(axis=1) >= min_weight
    labels = np.full(len(boxes), NOISE)
    for start in range(len(boxes)):
        if not core[start] or labels[start] != NOISE:
            continue
        label, waiting = labels.max() + 1, [start]
        while waiting:
            box = waiting.pop()
            if labels[box] == NOISE:
                labels[box] = label
                waiting += np.flatnonzero(near[box]).tolist() if core[box] else []
    return labels


def test_a_fraction_as_least_weight():
    rng = np.random.default_rng(6)
    for _ in range(30):
        boxes, weights = scene(rng, 60, 4, 4.0)
        weights *= 0.02
        expected = by_definition(boxes, weights, 0.25, 0.05)
        found = dbscan(boxes, weights, eps=0.25, min_weight=0.05, iou_epsilon=1e-5)
        assert np.array_equal(found, expected)


def test_nothing_and_one_box():
    nothing = dbscan(np.empty((0, 4)), np.empty(0), eps=0.2, min_weight=1, iou_epsilon=1e-5)
    assert nothing.shape == (0,)
    box = np.array([[0, 0, 10, 10]], np.float32)
    for weight, label in ((1.0, 0), (0.9, NOISE)):
        found = dbscan(box, np.array([weight]), eps=0.2, min_weight=1, iou_epsilon=1e-5)
        assert found.tolist() == [label]
    # A box without area is not even near itself.
    flat = np.array([[0, 0, 10, 0]], np.float32)
    found = dbscan(flat, np.array([5.0]), eps=0.2, min_weight=1, iou_epsilon=1e-5)
    assert found.tolist() == [NOISE]


def suppress_one_by_one(boxes, scores, threshold):
    remaining = sorted(range(len(boxes)), key=lambda index: -scores[index])
    kept = []
    while remaining:
        best = remaining.pop(0)
        kept.append(best)
        remaining = [
            other for other in remaining if with_border(boxes[best], boxes[other]) <= threshold
        ]
    return kept


def with_border(a, b):
    a, b = a.astype(float), b.astype(float)
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_nms_keeps_what_a_loop_keeps():
    rng = np.random.default_rng(7)
    for threshold in (0.1, 0.3, 0.7):
        boxes, scores = scene(rng, 80, 5, 5.0)
        scores += rng.permutation(80) * 1e-4
        expected = suppress_one_by_one(boxes, scores, threshold)
        assert nms(boxes, scores, iou_threshold=threshold).tolist() == expected


def test_nms_counts_the_last_pixel():
    # 10 x 10 and 10 x 5 pixels: the IoU is 0.5 with the border, 0.44 without.
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 4]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, iou_threshold=0.49).tolist() == [0]
    assert nms(boxes, scores, iou_threshold=0.5).tolist() == [0, 1]
