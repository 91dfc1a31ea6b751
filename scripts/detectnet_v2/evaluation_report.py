"""What an evaluation tells: the text that is printed, and its result files."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detectnet_v2.dataset import Sample
from detectnet_v2.metrics import Evaluation
from detectnet_v2.postprocess import Detections
from detectnet_v2.whole_file import whole_file, write_json


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        evaluation: the figures.
        average_precision_mode: SAMPLE or INTEGRATE.
        detections: of each sample and class, in pixels of the image.
        cost: validation cost with the spec's initial weights, without regularisation.
        seconds: median time of an image in the network.
        model: parameters, macs and input of the network.
        postprocessing: what was used for each class.
        classes: names in channel order.
    """

    evaluation: Evaluation
    average_precision_mode: str
    detections: list[list[Detections]]
    cost: float
    seconds: float
    model: dict
    postprocessing: dict
    classes: list[str]


def report(result: Result) -> str:
    """Return the text that is printed: NVIDIA's, then COCO's figures and the corrected ones."""
    evaluation = result.evaluation
    coco = evaluation.coco
    others = [
        (
            name,
            _percent(coco["per_class"][name]["AP"]),
            _percent(coco["per_class"][name]["AP50"]),
            f"{evaluation.corrected[name]:.4f}",
        )
        for name in sorted(evaluation.average_precision)
    ]
    corrected = np.mean(list(evaluation.corrected.values()))
    others.append(("mean", _percent(coco["AP"]), _percent(coco["AP50"]), f"{corrected:.4f}"))
    return "\n".join(
        [
            "",
            f"Validation cost: {result.cost:f}",
            f"Mean average_precision (in %): {evaluation.mean_average_precision:.4f}",
            "",
            precision_table(evaluation.average_precision),
            "",
            f"Median Inference Time: {result.seconds:f}",
            "",
            "COCO average precision (in %), and NVIDIA's corrected: whole integral, images once",
            table(("class name", "AP50:95", "AP50", "corrected"), others),
            "",
        ]
    )


def precision_table(average_precision: Mapping[str, float]) -> str:
    """Return NVIDIA's table of the classes' average precision, in percent."""
    rows = sorted((name, f"{value:.4f}") for name, value in average_precision.items())
    return table(("class name", "average precision (in %)"), rows)


def _percent(value: float | None) -> str:
    return "no faces" if value is None else f"{value:.4f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of centred cells, as NVIDIA prints them."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [
        "|" + "|".join(f" {cell:^{width}} " for cell, width in zip(row, widths, strict=True)) + "|"
        for row in (header, *rows)
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def write_results(folder: Path, result: Result, samples: Sequence[Sample]) -> None:
    """Write precision_recall.csv, detections.csv and, last, metrics.json.

    The curves' precision and recall go from 0 to 1, the figures of metrics.json are in percent.
    Images are named as in the tfrecords, with the extension of their file.
    """
    curves = [
        (name, *(f"{value:.6g}" for value in point))
        for name, curve in result.evaluation.curves.items()
        for point in zip(curve.confidence, curve.precision, curve.recall, strict=True)
    ]
    _write_csv(
        folder / "precision_recall.csv", ("class", "confidence", "precision", "recall"), curves
    )
    rows = [
        (
            f"{sample.frame_id}{sample.image.suffix}",
            name,
            *(f"{value:.3f}" for value in box),
            f"{confidence:.6g}",
        )
        for sample, by_class in zip(samples, result.detections, strict=True)
        for name, found in zip(result.classes, by_class, strict=True)
        for box, confidence in zip(*found, strict=True)
    ]
    _write_csv(
        folder / "detections.csv", ("image", "class", "x1", "y1", "x2", "y2", "confidence"), rows
    )
    write_json(folder / "metrics.json", metrics(result, len(samples)))


def metrics(result: Result, images: int) -> dict:
    """Return the content of metrics.json; `mAP` and `average_precision` are NVIDIA's figures."""
    evaluation = result.evaluation
    return {
        "mAP": evaluation.mean_average_precision,
        "average_precision": evaluation.average_precision,
        "average_precision_mode": result.average_precision_mode,
        "corrected": {
            "mAP": float(np.mean(list(evaluation.corrected.values()))),
            "average_precision": evaluation.corrected,
        },
        "coco": evaluation.coco,
        "validation_cost": result.cost,
        "images": images,
        "faces": evaluation.faces,
        "median_inference_time_s": result.seconds,
        "model": result.model,
        "postprocessing": result.postprocessing,
    }


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
