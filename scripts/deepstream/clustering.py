"""nvinfer's clustering of one class's candidates, cluster-mode 1 to 4.

NMS (2) and none (4) follow NVIDIA's Apache-2.0 nvdsinfer exactly. DBSCAN (1, and the first half of
3) is a closed library: its parameters, its minBoxes=0 rule and its area-to-hits filter are
public, the distance is not. Here two boxes are neighbours when 1 - IoU <= eps, the merged box is
the mean weighted by confidence and its confidence is the highest of its members.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from deepstream.decode import Candidates
from deepstream.inferconfig import DBSCAN, HYBRID, NO_CLUSTERING, ClassAttributes

# NvDsInferDBScan drops clusters whose sqrt(area) / number of boxes exceeds this.
AREA_TO_HITS = 60.0
# Boxes that are compared at once; all pairs of a dense image would be many megabytes.
_BLOCK = 256


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
    width, height = (
        np.minimum(boxes[:, None, high], others[None, :, high])
        - np.maximum(boxes[:, None, low], others[None, :, low])
        for low, high in ((0, 2), (1, 3))
    )
    shared = np.maximum(width, 0) * np.maximum(height, 0)
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
        block, order = order[:_BLOCK], order[_BLOCK:]
        covered = overlaps(boxes[block], boxes[block]) > np.float32(threshold)
        alive = np.ones(len(block), bool)
        for index in range(len(block)):
            if alive[index]:
                alive[index + 1 :] &= ~covered[index, index + 1 :]
        survivors = block[alive]
        kept.append(survivors)
        near = overlaps(boxes[survivors], boxes[order]) > np.float32(threshold)
        order = order[~near.any(axis=0)]
    return np.concatenate(kept) if kept else np.empty(0, np.intp)


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
    members = np.flatnonzero(labels >= 0)
    labels = labels[members]
    hits = np.bincount(labels)
    # Coverage 0 is possible with pre-cluster-threshold 0, weights that sum to 0 are not.
    weights = np.maximum(confidence[members], np.float32(1e-6))
    sums = [np.bincount(labels, weights * side) for side in boxes[members].T]
    merged = np.stack(sums, axis=1) / np.bincount(labels, weights)[:, None]
    strongest = np.zeros(len(hits), np.float32)
    np.maximum.at(strongest, labels, weights)
    kept = np.sqrt(areas(merged)) / hits <= AREA_TO_HITS
    return Candidates(merged[kept].astype(np.float32), strongest[kept])


def _spread(near: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Cluster number of each point, -1 for noise: connected core points and what they reach.

    Clusters are numbered by their first core point; a point that several reach is the first one's.
    """
    labels = np.full(len(core), -1)
    if not core.any():
        return labels
    reaches = near[:, core]
    count, labels[core] = connected_components(csr_array(reaches[core]), directed=False)
    first = np.where(reaches, labels[core], count).min(axis=1)
    return np.where(core, labels, np.where(first < count, first, -1))
