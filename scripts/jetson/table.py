"""The table of the recipe's README with this project's figures, the published ones beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SOURCE = "NVIDIA-AI-IOT/face-mask-detection, README"
# Frames per second by model, board and kind of engine. Nano FP16, the others INT8; batch, clip and
# clocks were not published. The model is a DetectNet_v2 with ResNet18 at 960 x 544.
PUBLISHED_FPS = {
    "unpruned": {
        ("nano", "gpu"): 6.5,
        ("xavier_nx", "gpu"): 125.36,
        ("xavier_nx", "dla"): 30.31,
        ("xavier", "gpu"): 269.04,
        ("xavier", "dla"): 61.96,
    },
    "pruned": {
        ("nano", "gpu"): 21.25,
        ("xavier_nx", "gpu"): 279.0,
        ("xavier_nx", "dla"): 116.2,
        ("xavier", "gpu"): 508.32,
        ("xavier", "dla"): 155.5,
    },
}
PUBLISHED_MAP = {"unpruned": 86.12, "pruned": 85.50}
_BOARD_TITLES = {"nano": "Nano", "xavier_nx": "Xavier NX", "xavier": "AGX Xavier"}


@dataclass(frozen=True)
class Column:
    """One column of figures: a device and one of its engines."""

    device: str
    board: str | None
    engine: str

    @property
    def kind(self) -> str:
        """gpu or dla."""
        return "dla" if self.engine.startswith("dla") else "gpu"


def kind_of(model: str) -> str:
    """Return the published row that a model belongs beside."""
    return "unpruned" if model == "unpruned" else "pruned"


def published(board: str | None, model: str, engine: str) -> float | None:
    """Return NVIDIA's figure for a case, None where there is none."""
    kind = "dla" if engine.startswith("dla") else "gpu"
    return PUBLISHED_FPS[kind_of(model)].get((board or "", kind))


def table(benchmarks: Sequence[Mapping[str, Any]]) -> str:
    """Lay out benchmark.json contents of one or more devices as a Markdown table.

    Rows are models, columns devices and engines; the rows of NVIDIA's figures are marked as theirs.
    """
    columns = list(
        dict.fromkeys(
            Column(one["device"], one["versions"].get("board"), case["engine"])
            for one in benchmarks
            for case in one["cases"]
        )
    )
    models = list(dict.fromkeys(case["model"] for one in benchmarks for case in one["cases"]))
    # Unpruned first, as published.
    models.sort(key=lambda model: model != "unpruned")
    accuracy: dict[str, float | None] = {}
    for one in benchmarks:
        accuracy.update(one.get("map_percent") or {})
    rows = [["model", "pruned", "mAP %", *(f"{c.device} {c.engine.upper()} FPS" for c in columns)]]
    for model in models:
        figures = [_measured(benchmarks, column, model) for column in columns]
        pruned = "no" if kind_of(model) == "unpruned" else "yes"
        rows.append([model, pruned, _number(accuracy.get(model)), *figures])
    for kind in dict.fromkeys(kind_of(model) for model in models):
        theirs = [_number(PUBLISHED_FPS[kind].get((c.board or "", c.kind))) for c in columns]
        pruned = "no" if kind == "unpruned" else "yes"
        rows.append(["NVIDIA's, published", pruned, _number(PUBLISHED_MAP[kind]), *theirs])
    return "\n".join([*_aligned(rows), "", *_notes(benchmarks, columns)]) + "\n"


def _measured(benchmarks: Sequence[Mapping[str, Any]], column: Column, model: str) -> str:
    for one in benchmarks:
        for case in one["cases"]:
            if (one["device"], case["engine"], case["model"]) == (
                column.device,
                column.engine,
                model,
            ):
                return _number(case["fps"]["total"])
    return ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        # The first column is text, the others are figures.
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
        if number == 0:
            rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            lines.append("| " + " | ".join(rules) + " |")
    return lines


def _notes(benchmarks: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    notes = []
    for one in benchmarks:
        cases = one["cases"]
        if not cases:
            continue
        seen, settings = one["versions"], one["settings"]
        power = settings.get("nvpmodel")
        mode = "as it was" if power is None else f"nvpmodel {power}"
        clocks = ", jetson_clocks" if settings.get("jetson_clocks") else ""
        precisions = "/".join(dict.fromkeys(case["precision"].upper() for case in cases))
        notes.append(
            f"{one['device']}: {seen.get('model') or 'unknown board'}, DeepStream "
            f"{seen.get('deepstream')}, TensorRT {seen.get('tensorrt')}, {precisions}, "
            f"{cases[0]['streams']} stream(s), batch {cases[0]['batch']}, power {mode}{clocks}; "
            f"median of {min(case['fps']['samples'] for case in cases)} or more figures."
        )
    if any(one.get("map_percent") for one in benchmarks):
        notes.append(
            "mAP is the toolkit's own, of the model in FP32; what INT8 costs is simulated on the "
            "desk, in int8.json of the export."
        )
    titles = [_BOARD_TITLES[c.board] for c in columns if c.board in _BOARD_TITLES]
    precision = "Nano FP16, the others INT8"
    if titles:
        notes.append(
            f"NVIDIA's figures are from {SOURCE} ({precision}; batch, clip and clocks were not "
            "published); they were not measured here."
        )
    else:
        notes.append(f"NVIDIA published no figure for these boards ({SOURCE}).")
    return notes
