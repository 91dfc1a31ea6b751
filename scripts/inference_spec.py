"""Write the spec with which `detectnet_v2 inference` shows what the chosen model finds."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from class_colors import CLASS_COLORS
from jinja2 import Environment, StrictUndefined

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# A class that was never found: no confidence is a good one.
UNKNOWN = 0.5


def best_confidences(curve: Path, classes: Sequence[str]) -> dict[str, float]:
    """The confidence of each class at which F1, 2PR / (P + R), is greatest on the curve.

    The confidences are aggregated coverage, so they may exceed 1.
    """
    best = dict.fromkeys(classes, (0.0, UNKNOWN))
    with curve.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            precision, recall = float(row["precision"]), float(row["recall"])
            if precision * recall > 0:
                f1 = 2 * precision * recall / (precision + recall)
                best[row["class"]] = max(best[row["class"]], (f1, float(row["confidence"])))
    return {name: confidence for name, (_, confidence) in best.items()}


def write_spec(
    template: Path,
    output: Path,
    *,
    model: str,
    network: Mapping[str, int],
    evaluation: Mapping[str, Any],
    confidences: Mapping[str, float],
    confidence_in_clustering: bool = False,
    native: Mapping[str, Any] | None = None,
) -> None:
    """Render the spec; what is drawn is what is surer than the given confidences.

    `confidence_in_clustering` is TAO's dialect: dbscan_confidence_threshold in clustering_config,
    in place of confidence_threshold beside it. `native` is how the native toolkit evaluates.
    """
    names = list(confidences)
    classes = [
        {
            "name": name,
            "confidence": f"{confidences[name]:.4g}",
            "eps": evaluation["dbscan_eps"][name],
            "color": color,
        }
        for name, color in zip(names, CLASS_COLORS * len(names), strict=False)
    ]
    # NVIDIA's toolkits look there for a class that is not listed.
    others = classes[-1] | {"name": "default", "color": (255, 255, 255)}
    source = Environment(undefined=StrictUndefined).from_string(
        template.read_text(encoding="utf-8")
    )
    text = source.render(
        classes=classes,
        others=others,
        model=model,
        evaluation=evaluation,
        confidence_in_clustering=confidence_in_clustering,
        native=native or {},
        **network,
    )
    part = output.with_name(f"{output.name}.part")
    part.write_text(text.strip() + "\n", encoding="utf-8")
    os.replace(part, output)


if __name__ == "__main__":
    choice = json.loads(Path(snakemake.input.choice).read_text(encoding="utf-8"))
    given = snakemake.params.confidence
    if given is None:
        curves = dict(zip(snakemake.params.runs, snakemake.input.curves, strict=True))
        best = best_confidences(Path(curves[choice["run"]]), snakemake.params.classes)
        # The toolkit draws what is above the threshold, not what equals it.
        found = {name: 0.999 * confidence for name, confidence in best.items()}
    else:
        found = dict.fromkeys(snakemake.params.classes, given)
    write_spec(
        Path(snakemake.input.template),
        Path(snakemake.output[0]),
        model=snakemake.input.model,
        network=snakemake.params.network,
        evaluation=snakemake.params.evaluation,
        confidences=found,
        confidence_in_clustering=snakemake.params.confidence_in_clustering,
        native=snakemake.params.native,
    )
    said = ", ".join(f"{name} {confidence:.4g}" for name, confidence in found.items())
    Path(snakemake.log[0]).write_text(f"confidence thresholds: {said}\n", encoding="utf-8")
