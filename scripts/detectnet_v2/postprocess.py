"""From the network's outputs to detections, as evaluation and inference do it.

NVIDIA's two programs differ in details (README of the reference: clipping, the epsilon of the IoU,
the final threshold), so each has its own `Clustering`, filled from the spec by
`evaluation_clustering` and `inference_clustering`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectnet_v2 import objectives, spec_pb2
from detectnet_v2.clustering import NOISE, dbscan, nms
from detectnet_v2.dataset import target_classes
from detectnet_v2.errors import DetectNetError

Detections = tuple[np.ndarray, np.ndarray]
"""Boxes float32 (n, 4) and confidences float32 (n,) of one class in one image, best first."""

DBSCAN = spec_pb2.ClusteringConfig.DBSCAN
NMS = spec_pb2.ClusteringConfig.NMS
HYBRID = spec_pb2.ClusteringConfig.HYBRID

INFERENCE_NMS_IOU = 0.3
INFERENCE_NMS_CONFIDENCE = 0.1
"""What NVIDIA's inference takes when the spec has no NMS threshold."""


@dataclass(frozen=True)
class Clustering:
    """How the cells of one class become detections.

    Attributes:
        algorithm: DBSCAN, NMS or HYBRID of the spec.
        coverage_threshold: cells above it take part.
        eps: largest distance, 1 - IoU, of neighbours.
        min_weight: coverage within eps that makes a core of DBSCAN.
        min_height: a merged box must be higher, in pixels; not applied to NMS.
        dbscan_confidence, nms_confidence: thresholds of the results.
        nms_iou: overlap above which NMS suppresses.
        clip: clip the cells' boxes to the image before.
        iou_epsilon: what the distance adds to the union.
        inclusive: keep a DBSCAN confidence that equals the threshold.
        mean_confidence: (mean - min) / (max - min) of a cluster's coverage instead of its sum.
        spoilt_scores: report the confidences that NVIDIA's NMS reports, see `_spoilt`: true where
            the spec's native.postprocessing is NVIDIA.
    """

    algorithm: int
    coverage_threshold: float
    eps: float
    min_weight: float
    min_height: float
    dbscan_confidence: float
    nms_confidence: float
    nms_iou: float
    clip: bool
    iou_epsilon: float
    inclusive: bool
    mean_confidence: bool = False
    spoilt_scores: bool = False


def evaluation_clustering(experiment: spec_pb2.Experiment) -> list[Clustering]:
    """Return the post-processing of train and evaluate, one for each target class in order.

    `native.postprocessing` decides whether NVIDIA's errors are repeated: the thresholds of DBSCAN
    and NMS change places, NMS reports spoilt confidences, and there is no HYBRID.

    Raises:
        DetectNetError: HYBRID without native.postprocessing CORRECTED.
    """
    native = experiment.native
    corrected = native.postprocessing == spec_pb2.NativeConfig.CORRECTED
    result = []
    for name in target_classes(experiment):
        config = experiment.postprocessing_config.target_class_config[name].clustering_config
        if config.clustering_algorithm == HYBRID and not corrected:
            raise DetectNetError(
                f'postprocessing_config.target_class_config["{name}"]: NVIDIA\'s evaluation has no '
                f"HYBRID: use DBSCAN or NMS, or set native {{ postprocessing: CORRECTED }}"
            )
        confidences = config.dbscan_confidence_threshold, config.nms_confidence_threshold
        dbscan_confidence, nms_confidence = confidences if corrected else confidences[::-1]
        result.append(
            Clustering(
                algorithm=config.clustering_algorithm,
                coverage_threshold=config.coverage_threshold,
                eps=config.dbscan_eps,
                min_weight=min_weight(config.dbscan_min_samples, native.dbscan_min_samples),
                min_height=config.minimum_bounding_box_height,
                dbscan_confidence=dbscan_confidence,
                nms_confidence=nms_confidence,
                nms_iou=config.nms_iou_threshold,
                clip=True,
                iou_epsilon=1e-5,
                inclusive=True,
                spoilt_scores=not corrected,
            )
        )
    return result


def inference_clustering(inference: spec_pb2.Inference) -> list[Clustering]:
    """Return the post-processing of inference, one for each target class in order.

    A class without an entry of its own takes the one named "default". TLT 2.0's
    confidence_threshold counts where dbscan_confidence_threshold is not set.

    Raises:
        DetectNetError: neither entry is there, or the confidence_model is unknown.
    """
    native = inference.native
    corrected = native.postprocessing == spec_pb2.NativeConfig.CORRECTED
    result = []
    for name in inference.inferencer_config.target_classes:
        entry = class_entry(inference.bbox_handler_config, name)
        config = entry.clustering_config
        model = entry.confidence_model or "aggregate_cov"
        if model not in ("aggregate_cov", "mean_cov"):
            raise DetectNetError(
                f'bbox_handler_config: class "{name}": confidence_model: "{model}" must be '
                f"aggregate_cov or mean_cov"
            )
        result.append(
            Clustering(
                algorithm=config.clustering_algorithm,
                coverage_threshold=config.coverage_threshold,
                eps=config.dbscan_eps + 1e-12,
                min_weight=min_weight(config.dbscan_min_samples, native.dbscan_min_samples),
                min_height=config.minimum_bounding_box_height,
                dbscan_confidence=(
                    config.dbscan_confidence_threshold or entry.confidence_threshold
                ),
                nms_confidence=config.nms_confidence_threshold or INFERENCE_NMS_CONFIDENCE,
                nms_iou=config.nms_iou_threshold or INFERENCE_NMS_IOU,
                clip=False,
                iou_epsilon=0.01,
                inclusive=False,
                mean_confidence=model == "mean_cov",
                spoilt_scores=not corrected,
            )
        )
    return result


def class_entry(
    config: spec_pb2.BboxHandlerConfig, name: str
) -> spec_pb2.ClasswiseBboxHandlerConfig:
    """Return the settings of a class, its own or those of "default"; DetectNetError for none."""
    for key in (name, "default"):
        if key in config.classwise_bbox_handler_config:
            return config.classwise_bbox_handler_config[key]
    raise DetectNetError(
        f'bbox_handler_config.classwise_bbox_handler_config: no entry "{name}" and no "default"'
    )


def min_weight(min_samples: float, mode: int) -> float:
    """Return the coverage that makes a core; the mode is a DbscanMinSamples.

    TAO 5 compares the coverage with the whole number max(int(min_samples), 1), TLT 2.0 with the
    number as it is. AUTO takes TLT 2.0's way for a fraction, which only its specs can have.
    """
    if mode == spec_pb2.AUTO:
        is_fraction = min_samples != math.floor(min_samples)
        mode = spec_pb2.WEIGHT if is_fraction else spec_pb2.INTEGER
    return min_samples if mode == spec_pb2.WEIGHT else float(max(int(min_samples), 1))


def describe(clusterings: Sequence[Clustering], names: Sequence[str]) -> dict[str, dict]:
    """Return what is used for each class, for logs and result files."""
    algorithms = {DBSCAN: "DBSCAN", NMS: "NMS", HYBRID: "HYBRID"}
    described = {}
    for name, clustering in zip(names, clusterings, strict=True):
        entry = {
            "mode": "NVIDIA" if clustering.spoilt_scores else "CORRECTED",
            "algorithm": algorithms[clustering.algorithm],
            "coverage_threshold": round(clustering.coverage_threshold, 6),
        }
        if clustering.algorithm != NMS:
            entry["dbscan_eps"] = round(clustering.eps, 6)
            entry["dbscan_min_weight"] = round(clustering.min_weight, 6)
            entry["minimum_bounding_box_height"] = clustering.min_height
            entry["confidence_threshold"] = round(clustering.dbscan_confidence, 6)
        if clustering.algorithm != DBSCAN:
            entry["nms_iou_threshold"] = round(clustering.nms_iou, 6)
            entry["nms_confidence_threshold"] = round(clustering.nms_confidence, 6)
            entry["nms_confidences"] = "as NVIDIA" if clustering.spoilt_scores else "coverage"
        described[name] = entry
    return described


def detections(
    bbox: np.ndarray,
    cov: np.ndarray,
    clusterings: Sequence[Clustering],
    *,
    width: int,
    height: int,
    stride: int = objectives.STRIDE,
    scale: float = objectives.SCALE,
    offset: float = objectives.OFFSET,
) -> list[list[Detections]]:
    """Return the detections of each image and class.

    Args:
        bbox: (N, 4C, h, w), cov: (N, C, h, w): outputs of the network.
        clusterings: one for each of the C classes.
        width, height: size of the network's input, which the boxes refer to.
        stride, scale, offset: of the box regression, see objectives.decode.
    """
    cov = np.asarray(cov, np.float32)
    count, classes = cov.shape[:2]
    geometry = {"stride": stride, "scale": scale, "offset": offset}
    boxes = {
        clip: objectives.decode(bbox, cov, width=width, height=height, clip=clip, **geometry)
        for clip in {clustering.clip for clustering in clusterings}
    }
    by_class = []
    for index, clustering in enumerate(clusterings):
        taken = cov[:, index] > clustering.coverage_threshold
        frames = np.nonzero(taken)[0]
        candidates = boxes[clustering.clip][:, index][taken]
        by_class.append(_cluster(candidates, cov[:, index][taken], frames, count, clustering))
    return [[by_class[index][image] for index in range(classes)] for image in range(count)]


def cluster(boxes: np.ndarray, coverage: np.ndarray, clustering: Clustering) -> Detections:
    """Return the detections among the candidates of one class in one image.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2.
        coverage: float32 (n,), above the coverage threshold.
    """
    return _cluster(boxes, coverage, np.zeros(len(boxes), np.int64), 1, clustering)[0]


def _cluster(
    boxes: np.ndarray,
    coverage: np.ndarray,
    frames: np.ndarray,
    count: int,
    clustering: Clustering,
) -> list[Detections]:
    """Return the detections of each of `count` images; frames are the candidates' images."""
    if clustering.algorithm == NMS:
        bounds = np.searchsorted(frames, np.arange(count + 1))
        parts = [slice(*bound) for bound in itertools.pairwise(bounds)]
        return [_suppress(boxes[part], coverage[part], clustering) for part in parts]
    labels = dbscan(
        boxes,
        coverage,
        eps=clustering.eps,
        min_weight=clustering.min_weight,
        iou_epsilon=clustering.iou_epsilon,
        frames=frames,
    )
    inside = labels != NOISE
    merged, confidence, kept = _merge(boxes[inside], coverage[inside], labels[inside], clustering)
    frame = np.empty(len(merged), np.int64)
    frame[labels[inside]] = frames[inside]
    result = []
    for image in range(count):
        chosen = np.flatnonzero(kept & (frame == image))
        if clustering.algorithm == HYBRID:
            # Members in the order of their clusters, as NVIDIA's inference lists them.
            member = np.flatnonzero(np.isin(labels, chosen))
            member = member[np.argsort(labels[member], kind="stable")]
            result.append(_suppress(boxes[member], coverage[member], clustering))
        else:
            chosen = chosen[np.argsort(-confidence[chosen], kind="stable")]
            result.append((merged[chosen], confidence[chosen]))
    return result


def _merge(
    boxes: np.ndarray, coverage: np.ndarray, labels: np.ndarray, clustering: Clustering
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean box, confidence and whether it is kept, of each cluster.

    The mean is weighted with the coverage. The confidence is the coverage's sum, which may be more
    than one.
    """
    count = int(labels.max()) + 1 if len(labels) else 0
    weight = coverage.astype(np.float64)
    total = np.bincount(labels, weight, count)
    sums = [np.bincount(labels, weight * side, count) for side in boxes.T]
    merged = (np.stack(sums, axis=1) / total[:, None]).astype(np.float32)
    confidence = total
    if clustering.mean_confidence:
        smallest, largest = np.full(count, np.inf), np.full(count, -np.inf)
        np.minimum.at(smallest, labels, weight)
        np.maximum.at(largest, labels, weight)
        mean = total / np.bincount(labels, minlength=count)
        # A cluster of one cell has no spread: its confidence is not a number, and it is dropped.
        with np.errstate(invalid="ignore"):
            confidence = (mean - smallest) / (largest - smallest)
    threshold = np.float32(clustering.dbscan_confidence)
    confidence = confidence.astype(np.float32)
    kept = confidence >= threshold if clustering.inclusive else confidence > threshold
    kept &= merged[:, 3] - merged[:, 1] > clustering.min_height
    return merged, confidence, kept


def _suppress(boxes: np.ndarray, coverage: np.ndarray, clustering: Clustering) -> Detections:
    """Return what NMS leaves of the candidates of one image."""
    survivors = nms(boxes, coverage, iou_threshold=clustering.nms_iou)
    chosen = survivors[coverage[survivors] > np.float32(clustering.nms_confidence)]
    confidence = coverage[chosen]
    if clustering.spoilt_scores:
        confidence = _spoilt(coverage[survivors], chosen)
    order = np.argsort(-confidence, kind="stable")
    return boxes[chosen][order], confidence[order]


def _spoilt(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the confidences that NVIDIA's NMS reports.

    It sorts the scores in place, sets those of suppressed boxes to zero, and reads the result at
    the boxes' original places: after it the scores of the survivors come first, in descending
    order, then zeros.

    Args:
        scores: the survivors', descending.
        chosen: original places of the boxes that are reported.
    """
    spoilt = np.zeros(len(chosen), np.float32)
    inside = chosen < len(scores)
    spoilt[inside] = scores[chosen[inside]]
    return spoilt
