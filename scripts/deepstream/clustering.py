"""nvinfer's clustering of one class's candidates, cluster-mode 1 to 4.

NMS (2) and none (4) follow NVIDIA's Apache-2.0 nvdsinfer exactly. DBSCAN (1, and the first half of
3) is a closed library: its parameters, its minBoxes=0 rule and its area-to-hits filter are
public, the distance is not. Here two boxes are neighbours when 1 - IoU <= eps, the merged box is
the mean weighted by confidence and its confidence is the highest of its members.
"""

import numpy as np

from deepstream.decode import Candidates
from deepstream.inferconfig import DBSCAN, HYBRID, NO_CLUSTERING, ClassAttributes

# NvDsInferDBScan drops clusters whose sqrt(area) / number of boxes exceeds this.
AREA_TO_HITS = 60.0


def cluster(candidates: Candidates, attributes: ClassAttributes, mode: int) -> Candidates:
    """Cluster one class's candidates of one image with its attributes.

    Modes as in cluster-mode: 1 DBSCAN, 2 NMS, 3 both, 4 none; since DeepStream 6.0 mode 0 is NMS.
    """
    kept = candidates.take(candidates.confidence >= np.float32(attributes.pre_cluster_threshold))
    if mode == NO_CLUSTERING:
        return top(kept, attributes.topk)
    if mode in (DBSCAN, HYBRID):
        # nvinfer does not cluster at all without minBoxes: the raw grid cells come through.
        if attributes.min_boxes > 0:
            kept = dbscan(
                kept, attributes.eps, attributes.min_boxes, min_score=attributes.dbscan_min_score
            )
        if mode == DBSCAN:
            strong = kept.confidence >= np.float32(attributes.post_cluster_threshold)
            return top(kept.take(strong), attributes.topk)
    kept = kept.take(nms(kept.boxes, kept.confidence, attributes.nms_iou_threshold))
    strong = kept.confidence > np.float32(attributes.post_cluster_threshold)
    return top(kept.take(strong), attributes.topk)


def top(candidates: Candidates, count: int) -> Candidates:
    """Keep the `count` most confident candidates, all of them when it is negative."""
    if count < 0 or len(candidates) <= count:
        return candidates
    return candidates.take(np.argsort(-candidates.confidence, kind="stable")[:count])


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of (n, 4) against (m, 4) corner boxes, no +1: (n, m) float32."""
    corner = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.clip(corner - np.maximum(boxes[:, None, :2], others[None, :, :2]), 0, None)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(boxes)[:, None] + areas(others)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas of (n, 4) corner boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms(boxes: np.ndarray, confidence: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy suppression: indices of the survivors, most confident first.

    A box goes when its IoU with a more confident survivor is greater than `threshold`.
    """
    order = np.argsort(-confidence, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        iou = overlaps(boxes[best : best + 1], boxes[rest])[0]
        order = rest[iou <= np.float32(threshold)]
    return np.array(kept, dtype=np.intp)


def dbscan(
    candidates: Candidates, eps: float, min_boxes: int, *, min_score: float = 0.0
) -> Candidates:
    """Merge candidates into one box a cluster, dropping noise and clusters with too few hits.

    A candidate is a core point when at least `min_boxes` candidates, itself included, lie within
    1 - IoU <= `eps` and their confidences sum to `min_score` or more.
    """
    boxes, confidence = candidates.boxes, candidates.confidence
    near = 1.0 - overlaps(boxes, boxes) <= np.float32(eps) + np.float32(1e-6)
    # A box without area has no overlap with itself either.
    np.fill_diagonal(near, True)
    core = (near.sum(axis=1) >= min_boxes) & (near @ confidence >= np.float32(min_score))
    labels = _spread(near, core)
    merged_boxes, merged_confidence = [], []
    for label in range(labels.max(initial=-1) + 1):
        members = labels == label
        weights = confidence[members]
        # Coverage 0 is possible with pre-cluster-threshold 0, weights that sum to 0 are not.
        weights = np.maximum(weights, np.float32(1e-6))
        box = np.average(boxes[members], axis=0, weights=weights)
        if np.sqrt(areas(box[None])[0]) / members.sum() > AREA_TO_HITS:
            continue
        merged_boxes.append(box)
        merged_confidence.append(weights.max())
    return Candidates(
        np.array(merged_boxes, dtype=np.float32).reshape(-1, 4),
        np.array(merged_confidence, dtype=np.float32),
    )


def _spread(near, core):
    """Cluster number of each point, -1 for noise: connected core points and what they reach."""
    labels = np.full(len(core), -1)
    label = 0
    for seed in np.flatnonzero(core):
        if labels[seed] >= 0:
            continue
        frontier = np.zeros(len(core), dtype=bool)
        frontier[seed] = True
        while frontier.any():
            labels[frontier] = label
            reached = near[frontier & core].any(axis=0)
            frontier = reached & (labels < 0)
        label += 1
    return labels
