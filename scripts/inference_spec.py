"""Write the spec with which `detectnet_v2 inference` shows what the chosen model finds."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# Green for the first class, mask, and red for no-mask, as on the contact sheets.
COLORS = ((0, 170, 60), (225, 30, 30), (20, 90, 220), (230, 150, 0), (150, 40, 190))
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
) -> None:
    """Render the spec; what is drawn is what is at least as sure as the given confidences."""
    names = list(confidences)
    classes = [
        # The toolkit draws what is above the threshold, not what equals it.
        {"name": name, "confidence": f"{0.999 * confidences[name]:.4g}", "color": color}
        for name, color in zip(names, COLORS * len(names), strict=False)
    ]
    source = Environment(undefined=StrictUndefined).from_string(
        template.read_text(encoding="utf-8")
    )
    text = source.render(classes=classes, model=model, evaluation=evaluation, **network)
    part = output.with_name(f"{output.name}.part")
    part.write_text(text.strip() + "\n", encoding="utf-8")
    os.replace(part, output)


if __name__ == "__main__":
    choice = json.loads(Path(snakemake.input.choice).read_text(encoding="utf-8"))
    curves = dict(zip(snakemake.params.runs, snakemake.input.curves, strict=True))
    found = best_confidences(Path(curves[choice["run"]]), snakemake.params.classes)
    write_spec(
        Path(snakemake.input.template),
        Path(snakemake.output[0]),
        model=snakemake.input.model,
        network=snakemake.params.network,
        evaluation=snakemake.params.evaluation,
        confidences=found,
    )
    said = ", ".join(f"{name} {confidence:.4g}" for name, confidence in found.items())
    Path(snakemake.log[0]).write_text(f"confidence with the best F1: {said}\n", encoding="utf-8")
