"""Finds nvinfer's thresholds and cluster parameters on fold 0 and reports their effect.

The network runs once over the images; everything is searched on what it put out. With NMS a box's
confidence is that of its best cell, so one threshold does for both, and one pass per IoU gives
average precision at every threshold.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from deepstream.candidates import FLOOR, CandidateSet, with_numbers
from deepstream.detector import Detector
from deepstream.errors import DeepStreamError
from deepstream.evaluation import Scorer, figures, load_samples
from deepstream.inferconfig import DBSCAN, NMS, ClassAttributes, InferConfig, default_attributes
from deepstream.job import reported, single, write_json
from detectnet_v2.dataset import target_classes
from detectnet_v2.metrics import Curve, average_precision_of

log = logging.getLogger("deepstream")

NMS_IOUS = tuple(round(0.1 + 0.05 * step, 2) for step in range(13))
THRESHOLDS = (FLOOR, *(round(0.02 * step, 2) for step in range(1, 50)))
TOPK = (10, 20, 50, 100, 200)
DBSCAN_EPS = (0.3, 0.4, 0.5, 0.6, 0.7)
DBSCAN_MIN_BOXES = (1, 2, 4)
DBSCAN_THRESHOLDS = (0.05, 0.1, 0.2, 0.35)
OBJECTIVES = ("ap", "f1")


@dataclass(frozen=True)
class Point:
    """Precision, recall and their harmonic mean, from 0 to 1, of boxes above a threshold."""

    threshold: float
    precision: float
    recall: float
    f1: float


def tune_clustering(
    onnx: str | Path,
    fold0_spec: str | Path,
    val_spec: str | Path | None,
    *,
    objective: str = "ap",
    tolerance: float = 0.2,
    dbscan_images: int = 300,
) -> dict[str, Any]:
    """Search on fold 0 and return the content of clustering.json.

    Args:
        onnx: the exported model.
        fold0_spec: spec whose validation samples are searched on.
        val_spec: spec whose validation samples only report the effect; None without such a split.
        objective: "ap" takes the highest threshold that keeps average precision within `tolerance`
            of its best; "f1" the threshold with the best F1, for boxes that are shown and counted.
        tolerance: points of average precision, of each class.
        dbscan_images: how many images the slower search for DBSCAN takes, evenly spread.

    Raises:
        DeepStreamError: unknown objective, or a model that does not fit.
        DetectNetError: the specs or their data cannot be read.
    """
    if objective not in OBJECTIVES:
        raise DeepStreamError(f"objective {objective!r}: known are {', '.join(OBJECTIVES)}")
    experiment, samples = load_samples(Path(fold0_spec))
    classes = target_classes(experiment)
    detector = Detector(plain_config(Path(onnx), classes), threads=1)
    mode = experiment.evaluation_config.average_precision_mode
    candidates, score = CandidateSet(detector, samples), Scorer(experiment, samples)
    numbers, working_points = {}, {}
    for name, found in _search_nms(candidates, score, classes, mode).items():
        iou, curve, best = found
        if not curve.faces:
            log.warning("%s: no such face in fold 0, so its thresholds are nvinfer's", name)
        chosen, points = _threshold(curve, best, mode, objective, tolerance)
        numbers[name] = {
            "pre-cluster-threshold": chosen,
            "post-cluster-threshold": chosen,
            "nms-iou-threshold": iou,
        }
        working_points[name] = points
    _add_topk(candidates, score, classes, numbers, tolerance)
    every = np.linspace(0, len(samples) - 1, min(len(samples), dbscan_images)).astype(int)
    part = Scorer(experiment, [samples[index] for index in every])
    merged = _search_dbscan(candidates.part(every), part, classes)
    result = {
        "cluster-mode": NMS,
        "classes": numbers,
        "dbscan": merged,
        "objective": objective,
        "tolerance": tolerance,
        "working_points": {
            name: {key: asdict(point) for key, point in points.items()}
            for name, points in working_points.items()
        },
        "fold0": _effect(candidates, score, classes, numbers, merged),
    }
    if val_spec is not None:
        val_experiment, val_samples = load_samples(Path(val_spec))
        val_candidates = CandidateSet(detector, val_samples)
        val_score = Scorer(val_experiment, val_samples)
        result["val"] = _effect(val_candidates, val_score, classes, numbers, merged)
    return result


def plain_config(onnx: Path, classes: Sequence[str]) -> InferConfig:
    """The nvinfer settings that the network was trained for, without any clustering decided."""
    return InferConfig(
        path=onnx,
        model=onnx,
        model_key=None,
        labels=tuple(classes),
        unique_id=1,
        batch_size=1,
        interval=0,
        network_mode=0,
        dims=None,
        output_names=(),
        scale_factor=1 / 255,
        offsets=(),
        color_format=0,
        maintain_aspect_ratio=False,
        symmetric_padding=False,
        cluster_mode=NMS,
        classes=(default_attributes(),) * len(classes),
        filtered_classes=frozenset(),
    )


def _attributes(numbers: dict[str, Any]) -> ClassAttributes:
    return with_numbers(default_attributes(), numbers)


def _search_nms(
    candidates: CandidateSet, score: Scorer, classes: Sequence[str], mode: int
) -> dict[str, tuple[float, Curve, float]]:
    """Best IoU of each class with its curve from FLOOR on and its average precision."""
    best: dict[str, tuple[float, Curve, float]] = {}
    for iou in NMS_IOUS:
        low = {"pre-cluster-threshold": FLOOR, "nms-iou-threshold": iou}
        found = score(candidates.cluster([_attributes(low)] * len(classes), NMS))
        for name, value in found.average_precision.items():
            if name not in best or value > best[name][2]:
                best[name] = (iou, found.curves[name], value)
        log.info("nms-iou-threshold %.2f: %s", iou, _line(found.average_precision))
    return best


def _threshold(
    curve: Curve, best: float, mode: int, objective: str, tolerance: float
) -> tuple[float, dict[str, Point]]:
    """The threshold of a class, and precision and recall there and where F1 is best.

    Without a face of the class all thresholds are as good; with nvinfer's a device finds some.
    """
    points = {threshold: _point(curve, threshold) for threshold in THRESHOLDS}
    if not curve.faces:
        point = points[default_attributes().pre_cluster_threshold]
        return point.threshold, {"chosen": point, "best_f1": point}
    top_f1 = max(points.values(), key=lambda point: (point.f1, point.threshold))
    if objective == "f1":
        chosen = top_f1.threshold
    else:
        near = [
            threshold
            for threshold in THRESHOLDS
            if _average_precision(curve, threshold, mode) >= best - tolerance
        ]
        chosen = max(near, default=FLOOR)
    return chosen, {"chosen": points[chosen], "best_f1": top_f1}


def _above(curve: Curve, threshold: float) -> int:
    """How many of a curve's detections have a confidence above the threshold."""
    return int((curve.confidence > np.float32(threshold)).sum())


def _average_precision(curve: Curve, threshold: float, mode: int) -> float:
    count = _above(curve, threshold)
    return 100 * average_precision_of(curve.precision[:count], curve.recall[:count], mode)


def _point(curve: Curve, threshold: float) -> Point:
    count = _above(curve, threshold)
    if not count or not curve.faces:
        return Point(threshold, 0.0, 0.0, 0.0)
    precision, recall = float(curve.precision[count - 1]), float(curve.recall[count - 1])
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return Point(threshold, round(precision, 4), round(recall, 4), round(f1, 4))


def _add_topk(candidates, score, classes, numbers, tolerance):
    """Give each class the smallest topk that costs it no more than a tenth of the tolerance."""
    attributes = {name: _attributes(numbers[name]) for name in classes}
    whole = score(candidates.cluster(list(attributes.values()), NMS)).average_precision
    undecided = set(classes)
    for topk in TOPK:
        limited = [with_numbers(attributes[name], {"topk": topk}) for name in classes]
        found = score(candidates.cluster(limited, NMS)).average_precision
        for name in sorted(undecided):
            if found[name] >= whole[name] - tolerance / 10:
                numbers[name]["topk"] = topk
                undecided.discard(name)
        if not undecided:
            return
    for name in undecided:
        numbers[name]["topk"] = -1


def _search_dbscan(
    candidates: CandidateSet, score: Scorer, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Best DBSCAN numbers of each class, for cluster-mode 1."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for threshold in DBSCAN_THRESHOLDS:
        for eps in DBSCAN_EPS:
            for min_boxes in DBSCAN_MIN_BOXES:
                numbers = {
                    "pre-cluster-threshold": threshold,
                    "post-cluster-threshold": 0.0,
                    "eps": eps,
                    "minBoxes": min_boxes,
                }
                found = score(candidates.cluster([_attributes(numbers)] * len(classes), DBSCAN))
                for name, value in found.average_precision.items():
                    if name not in best or value > best[name][0]:
                        best[name] = (value, numbers)
    for name in classes:
        value, numbers = best[name]
        log.info("DBSCAN, best for %s: %s gives %.2f", name, numbers, value)
    return {name: best[name][1] for name in classes}


def _effect(candidates, score, classes, numbers, merged) -> dict[str, Any]:
    """Figures of nvinfer's defaults, of the numbers found, and of DBSCAN's, on one set."""
    settings = {
        "nvinfer_defaults": ([default_attributes()] * len(classes), NMS),
        "tuned": ([_attributes(numbers[name]) for name in classes], NMS),
        "tuned_dbscan": ([_attributes(merged[name]) for name in classes], DBSCAN),
    }
    effect: dict[str, Any] = {"images": len(candidates)}
    for title, (attributes, mode) in settings.items():
        found = score(candidates.cluster(attributes, mode))
        effect[title] = figures(found)
        for name, curve in found.curves.items():
            last = _point(curve, -1.0)
            effect[title].setdefault("precision", {})[name] = last.precision
            effect[title].setdefault("recall", {})[name] = last.recall
    return effect


def table(result: dict[str, Any]) -> str:
    """Lay out what was found and what it does, for the log."""
    lines = [f"nvinfer's numbers, by {result['objective']} on fold 0:"]
    for name, numbers in result["classes"].items():
        text = ", ".join(f"{key} {value:g}" for key, value in numbers.items())
        lines.append(f"  {name}: {text}")
    for title in ("fold0", "val"):
        if title not in result:
            continue
        effect = result[title]
        lines.append(f"{title}, {effect['images']} images:")
        for setting in ("nvinfer_defaults", "tuned", "tuned_dbscan"):
            values = effect[setting]
            lines.append(
                f"  {setting:<17} mAP {values['mAP']:6.2f}  {_line(values['average_precision'])}"
            )
    return "\n".join(lines)


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        tuned = tune_clustering(
            single(snakemake.input.onnx),
            single(snakemake.input.fold0_spec),
            single(snakemake.input.get("val_spec")),
            **snakemake.params.get("search", {}),
        )
        job_log.info("%s", table(tuned))
        write_json(tuned, snakemake.output[0])
