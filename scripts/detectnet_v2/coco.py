"""COCO's average precision of boxes, computed by pycocotools."""

from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectnet_v2 import spec_pb2
from detectnet_v2.metrics import GroundTruth, inside_limits
from detectnet_v2.postprocess import Detections

MAX_DETECTIONS = 100
"""Per image and class, the best; what COCO evaluates."""


class _Evaluation(COCOeval):
    """COCOeval that ignores the objects which say so, for which COCO has crowds only."""

    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for item in objects:
                item["ignore"] = item["outside"]


def average_precisions(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[Sequence[Detections]],
    limits: Sequence[spec_pb2.EvaluationConfig.EvaluationBoxConfig],
) -> list[tuple[float, float] | tuple[None, None]]:
    """Return AP and AP50 in percent of each class; None for a class without objects.

    Args:
        ground_truth: boxes and classes of each image.
        detections: of each image, for each class.
        limits: sizes that count, for each class; other objects are ignored.
    """
    objects, found = [], []
    for image, (boxes, classes) in enumerate(ground_truth):
        for index, limit in enumerate(limits):
            objects += _entries(image, index, boxes[classes == index], limit)
            best, confidence = detections[image][index]
            entries = _entries(image, index, best, limit)
            for entry, score in zip(entries, confidence, strict=True):
                entry["score"] = float(score)
            found += entries
    images = [{"id": image} for image in range(len(ground_truth))]
    categories = [{"id": index} for index in range(len(limits))]
    evaluation = _Evaluation(
        _dataset(images, categories, objects), _dataset(images, categories, found), "bbox"
    )
    evaluation.params.areaRng = [[0, 1e10]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU thresholds, recalls, classes, area ranges, numbers of detections); -1: no objects.
    precision = evaluation.eval["precision"][..., 0, 0]
    return [
        (None, None)
        if (precision[..., index] < 0).all()
        else (
            100 * float(precision[..., index].mean()),
            100 * float(precision[0, :, index].mean()),
        )
        for index in range(len(limits))
    ]


def _entries(
    image: int,
    index: int,
    boxes: np.ndarray,
    limits: spec_pb2.EvaluationConfig.EvaluationBoxConfig,
) -> list[dict]:
    """Return boxes of one image and class as COCO annotations, without ids."""
    outside = ~inside_limits(boxes, limits)
    sizes = boxes[:, 2:] - boxes[:, :2]
    rows = np.concatenate([boxes[:, :2], sizes], axis=1).tolist()
    return [
        {
            "image_id": image,
            "category_id": index,
            "bbox": row,
            # A detection that matches nothing is ignored when its area is out of range.
            "area": -1.0 if ignored else row[2] * row[3],
            "iscrowd": 0,
            "outside": int(ignored),
        }
        for row, ignored in zip(rows, outside.tolist(), strict=True)
    ]


def _dataset(images: list[dict], categories: list[dict], entries: list[dict]) -> COCO:
    for number, entry in enumerate(entries, start=1):
        entry["id"] = number
    dataset = COCO()
    dataset.dataset = {"images": images, "categories": categories, "annotations": entries}
    dataset.createIndex()
    return dataset
