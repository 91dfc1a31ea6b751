"""Average precision of detections: NVIDIA's figures, corrected ones, and COCO's.

`nvidia` repeats what DetectNet_v2's evaluation computes, including what it gets wrong; `corrected`
differs in the integral and counts every image once; `coco` is pycocotools.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import target_classes
from detectnet_v2.postprocess import Detections

SAMPLE = spec_pb2.EvaluationConfig.SAMPLE
INTEGRATE = spec_pb2.EvaluationConfig.INTEGRATE
SAMPLE_POINTS = 11

GroundTruth = tuple[np.ndarray, np.ndarray]
"""Boxes float32 (n, 4) and classes int32 (n,) of one image."""


@dataclass(frozen=True)
class Curve:
    """A class's detections by falling confidence.

    Attributes:
        confidence, precision, recall: (n,) after each detection.
        faces: number of objects to find.
    """

    confidence: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    faces: int


@dataclass(frozen=True)
class Evaluation:
    """Figures of an evaluation, in percent.

    Attributes:
        average_precision: of each class by NVIDIA's rules; 0 for a class without objects.
        corrected: with a whole integral, every image once.
        curves: of each class, from 0 to 1.
        faces: objects of each class that are evaluated, those of repeated frames once.
        coco: {"AP", "AP50", "per_class": {class: {"AP", "AP50"}}}; None for a class without
            objects. Empty if it was not asked for.
    """

    average_precision: dict[str, float]
    corrected: dict[str, float]
    curves: dict[str, Curve]
    faces: dict[str, int]
    coco: dict = field(default_factory=dict)

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes by NVIDIA's rules, classes without objects included."""
        return float(np.mean(list(self.average_precision.values())))


def evaluate_detections(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[Sequence[Detections]],
    experiment: spec_pb2.Experiment,
    *,
    wrapped: int = 0,
    coco: bool = True,
) -> Evaluation:
    """Return the figures of the detections of some images.

    Args:
        ground_truth: boxes and classes of each image.
        detections: of each image, for each class in the order of the target classes.
        experiment: its evaluation_config and target classes.
        wrapped: how many images NVIDIA's evaluation sees again, from the first on, since it fills
            the last batch; they count as more images in its figures, not in COCO's.
        coco: compute COCO's figures, which take longer than the others.
    """
    config = experiment.evaluation_config
    names = target_classes(experiment)
    frames = np.arange(len(ground_truth) + wrapped) % max(len(ground_truth), 1)
    average_precision, corrected, curves, faces = {}, {}, {}, {}
    for index, name in enumerate(names):
        limits = config.evaluation_box_config[name]
        truth_frame, truth = _gather([_of_class(*item, index) for item in ground_truth], frames)
        found_frame, found = _gather([item[index][0] for item in detections], frames)
        confidence = _concatenate([detections[frame][index][1] for frame in frames], (0,))
        kept = inside_limits(truth, limits)
        truth_frame, truth = truth_frame[kept], truth[kept]
        faces[name] = int((truth_frame < len(ground_truth)).sum())
        kept = inside_limits(found, limits)
        found_frame, found, confidence = found_frame[kept], found[kept], confidence[kept]
        order = np.argsort(-confidence, kind="stable")
        hits = match(
            found[order],
            found_frame[order],
            truth,
            truth_frame,
            config.minimum_detection_ground_truth_overlap[name],
        )
        precision, recall = precision_recall(hits, len(truth))
        curves[name] = Curve(confidence[order], precision, recall, len(truth))
        mode = config.average_precision_mode
        average_precision[name] = 100 * average_precision_of(precision, recall, mode)
        once = found_frame[order] < len(ground_truth)
        corrected[name] = 100 * average_precision_of(
            *precision_recall(hits[once], faces[name]), mode, corrected=True
        )
    figures = coco_figures(ground_truth, detections, experiment) if coco else {}
    return Evaluation(average_precision, corrected, curves, faces, figures)


def _of_class(boxes: np.ndarray, classes: np.ndarray, index: int) -> np.ndarray:
    return boxes[classes == index]


def _gather(boxes: Sequence[np.ndarray], frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of all frames, and the position among the frames of each of them."""
    chosen = [boxes[frame] for frame in frames]
    position = np.repeat(np.arange(len(chosen)), [len(item) for item in chosen])
    return position, _concatenate(chosen, (0, 4))


def _concatenate(arrays: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(empty, np.float32)


def inside_limits(
    boxes: np.ndarray, limits: spec_pb2.EvaluationConfig.EvaluationBoxConfig
) -> np.ndarray:
    """Return which boxes (n, 4) are of a size that is evaluated, bounds included."""
    width = boxes[:, 2] - boxes[:, 0]
    height = boxes[:, 3] - boxes[:, 1]
    return (
        (height >= limits.minimum_height)
        & (height <= limits.maximum_height)
        & (width >= limits.minimum_width)
        & (width <= limits.maximum_width)
    )


def match(
    found: np.ndarray,
    found_frame: np.ndarray,
    truth: np.ndarray,
    truth_frame: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Return which detections are true positives.

    Each detection is compared with the ground truth of its frame that it overlaps most, even if
    another detection has that already: it is true if the overlap reaches the threshold and no
    detection before it had the same. Coordinates are rounded to whole pixels, half to even, and
    a side counts its last pixel.

    Args:
        found: (n, 4), by falling confidence; found_frame: (n,).
        truth: (m, 4), truth_frame: (m,) ascending.
    """
    found, truth = np.rint(found).astype(np.float64), np.rint(truth).astype(np.float64)
    begin = np.searchsorted(truth_frame, found_frame, side="left")
    counts = np.searchsorted(truth_frame, found_frame, side="right") - begin
    hits = np.zeros(len(found), bool)
    some = np.flatnonzero(counts)
    if not len(some):
        return hits
    counts, begin = counts[some], begin[some]
    # All pairs of a detection and a ground truth of its frame, one detection after the other.
    start = np.cumsum(counts) - counts
    detection = np.repeat(some, counts)
    target = np.arange(len(detection)) + np.repeat(begin - start, counts)
    overlap = _overlap(found[detection], truth[target])
    best = np.maximum.reduceat(overlap, start)
    # The first of equal overlaps, as argmax has it.
    is_best = np.flatnonzero(overlap == np.repeat(best, counts))
    row, first = np.unique(detection[is_best], return_index=True)
    chosen = target[is_best[first]]
    reached = best >= threshold
    _, earliest = np.unique(chosen[reached], return_index=True)
    hits[row[reached][earliest]] = True
    return hits


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of pairs of boxes (n, 4) whose sides count their last pixel."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, 2:], b[:, 2:])
    intersection = np.maximum(high - low + 1, 0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(axis=1) for box in (a, b)]
    return intersection / (areas[0] + areas[1] - intersection)


def precision_recall(hits: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall (n,) after each detection; recall is NaN without faces."""
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    with np.errstate(invalid="ignore"):
        recall = np.divide(true, faces)
    return precision, recall


def average_precision_of(
    precision: np.ndarray, recall: np.ndarray, mode: int, *, corrected: bool = False
) -> float:
    """Return the average precision, from 0 to 1; 0 when there is nothing to find.

    SAMPLE is the mean of the best precision at or beyond 11 recalls. INTEGRATE, with r_0 < ... <
    r_n the distinct recalls and k_i the first rank with r_i, is

        sum over i < n of (r_{i+1} - r_i) * max(precision[k_i : k_n])

    which leaves out the step from recall 0 to r_0 and all ranks from k_n on: NVIDIA's figure for
    a perfect detector of N objects is (N - 1) / N. `corrected` integrates from recall 0, with the
    best precision at or beyond each recall, as PASCAL VOC 2010 does.

    Args:
        precision, recall: (n,) after each detection.
        mode: SAMPLE or INTEGRATE.
    """
    if not len(recall) or np.isnan(recall).any():
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if mode == SAMPLE:
        rank = np.searchsorted(recall, np.linspace(0, 1, SAMPLE_POINTS))
        return float(np.append(best, 0.0)[rank].sum() / SAMPLE_POINTS)
    distinct, first = np.unique(recall, return_index=True)
    if corrected:
        return float((np.diff(distinct, prepend=0.0) * best[first]).sum())
    best = np.maximum.accumulate(precision[: first[-1]][::-1])[::-1]
    return float((np.diff(distinct) * best[first[:-1]]).sum())


def coco_figures(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[Sequence[Detections]],
    experiment: spec_pb2.Experiment,
) -> dict:
    """Return COCO's AP (mean over IoU 0.50 to 0.95) and AP50 in percent, of pycocotools.

    Objects whose size is outside evaluation_box_config are ignored, neither missed nor wrongly
    found, as COCO ignores those outside an area range. A figure is None when no class, or not the
    class in question, has an object.
    """
    from detectnet_v2.coco import average_precisions  # noqa: PLC0415 - pycocotools loads slowly

    names = target_classes(experiment)
    limits = [experiment.evaluation_config.evaluation_box_config[name] for name in names]
    with contextlib.redirect_stdout(io.StringIO()):
        per_class = average_precisions(ground_truth, detections, limits)
    figures = {
        name: {"AP": ap, "AP50": ap50} for name, (ap, ap50) in zip(names, per_class, strict=True)
    }
    known = [entry for entry in figures.values() if entry["AP"] is not None]
    return {
        key: float(np.mean([entry[key] for entry in known])) if known else None
        for key in ("AP", "AP50")
    } | {"per_class": figures}
