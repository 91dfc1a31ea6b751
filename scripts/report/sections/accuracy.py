"""Chapter on accuracy: metrics of each model, and its precision-recall curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing

from report.blocks import Block, Figure, Section, Table, left_out
from report.drawing import FigureFolder, canvas, legend_below, run_colours, thinned
from report.errors import NotThereYet
from report.published import MODELS
from report.results import Results, run_label

CURVE = ("class", "confidence", "precision", "recall")
METRICS = ("mAP", "average_precision")
SUBSETS = {"fold0": "fold 0", "val": "the val split"}


def section(results: Results, folder: FigureFolder) -> Section:
    """How good each model is, from the runs' evaluations."""
    metrics, missing = read_metrics(results)
    blocks: list[Block] = []
    if metrics:
        blocks.append(metrics_table(metrics, results))
    blocks += curve_blocks(results, folder)
    if missing:
        first = missing[0]
        blocks.append(left_out("Metrics", first, len(missing) - 1))
    return Section("accuracy", "Accuracy", lead(metrics, results), blocks)


def read_metrics(results: Results) -> tuple[dict[tuple[str, str], dict], list[NotThereYet]]:
    """metrics.json by run and subset, and what is not there yet."""
    metrics, missing = {}, []
    subsets = ["fold0", *(["val"] if "val" in results.splits else [])]
    for subset in subsets:
        for run in results.runs:
            try:
                document = results.document(f"{run}/evaluation/{subset}/metrics.json", METRICS)
            except NotThereYet as error:
                missing.append(error)
                continue
            metrics[run, subset] = document
    return metrics, missing


def lead(metrics: Mapping[tuple[str, str], dict], results: Results) -> str:
    """The unpruned model's mAP by subset, in words, and which classes have no face there."""
    found, notes = [], []
    for subset, title in SUBSETS.items():
        values = metrics.get(("unpruned", subset))
        if values is None:
            continue
        found.append(f"{values['mAP']:.2f} % on {title}")
        lacking = [name for name in results.classes if not has_faces(values, name)]
        if lacking:
            notes.append(
                f" There is no face of {' and '.join(lacking)} in {title}, which counts as 0 in "
                "the mean, as in NVIDIA's toolkit."
            )
    text = f"The unpruned model reaches a mAP of {' and '.join(found)}." if found else ""
    return text + "".join(notes)


def has_faces(values: Mapping[str, Any], name: str) -> bool:
    """Whether an evaluation had faces of a class, as far as its metrics.json tells."""
    return values.get("faces", {}).get(name) != 0


def metrics_table(metrics: Mapping[tuple[str, str], dict], results: Results) -> Table:
    """mAP and AP of each model, as NVIDIA's toolkit and as COCO compute them, percent."""
    rows: list[Sequence[str]] = []
    marked = []
    for (run, subset), values in metrics.items():
        if run == results.chosen:
            marked.append(len(rows))
        coco = values.get("coco", {})
        rows.append(
            (
                run_label(run),
                SUBSETS[subset],
                percent(values["mAP"]),
                *(percent(average_precision(values, name)) for name in results.classes),
                percent(coco.get("AP50")),
                percent(coco.get("AP")),
                f"{values['images']:,}" if "images" in values else "–",
            )
        )
    for model in MODELS:
        if set(model.average_precision) == set(results.classes):
            each = (percent(model.average_precision[name]) for name in results.classes)
            mean = percent(model.mean_average_precision)
            rows.append((f"{model.name} (NVIDIA)", "theirs", mean, *each, "–", "–", "–"))
    return Table(
        "Average precision, percent",
        ("model", "images of", "mAP", *results.classes, "COCO AP50", "COCO AP50:95", "images"),
        rows,
        "mAP and the classes' columns as NVIDIA's toolkit computes them. Rows marked NVIDIA are "
        "published figures for other validation images: a yardstick, not a fair comparison.",
        marked=marked,
    )


def average_precision(values: Mapping[str, Any], name: str) -> float | None:
    """A class's average precision in an evaluation; None where it had no face of the class."""
    return values["average_precision"].get(name) if has_faces(values, name) else None


def percent(value: float | None) -> str:
    """Two decimals, a dash for nothing."""
    return "–" if value is None else f"{value:.2f}"


def signed(value: float) -> str:
    """A difference in points, two decimals, with its sign."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text[1:] == "0.00" else text


def curve_blocks(results: Results, folder: FigureFolder) -> list[Figure]:
    """A figure of precision-recall curves for each class; none before there are any."""
    curves = {}
    for run in results.runs:
        try:
            curves[run] = results.table(
                f"{run}/evaluation/fold0/precision_recall.csv", CURVE, text=("class",)
            )
        except NotThereYet:
            continue
    if not curves:
        return []
    together = pd.concat(
        [table.assign(run=run) for run, table in curves.items()], ignore_index=True
    )
    return [
        folder.keep(
            f"precision_recall_{name}",
            f"Precision and recall, {name}",
            "On fold 0. Dots: the confidence with the best F1 score.",
            precision_recall({run: table[table["class"] == name] for run, table in curves.items()}),
            together.loc[together["class"] == name, ["run", *CURVE]],
        )
        for name in results.classes
    ]


def precision_recall(curves: Mapping[str, pd.DataFrame]) -> Drawing:
    """Precision over recall, a line for each run; tables have confidence, precision and recall."""
    drawing, (axes,) = canvas(3.6)
    colours = run_colours(list(curves))
    for run, table in curves.items():
        table = table.sort_values("confidence", ascending=False, kind="stable")  # noqa: PLW2901
        recall, precision = thinned(table["recall"].to_numpy(), table["precision"].to_numpy())
        axes.plot(recall, precision, color=colours[run], label=run_label(run), linewidth=1.6)
        best = best_point(table)
        if best is not None:
            axes.plot(
                best["recall"], best["precision"], "o", color=colours[run], markersize=6,
                markeredgecolor="white", markeredgewidth=0.8, zorder=5,
            )  # fmt: skip
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    legend_below(drawing, [axes])
    return drawing


def best_point(curve: pd.DataFrame) -> pd.Series | None:
    """The row with the best F1 score, 2PR / (P + R); None where precision or recall is always 0."""
    total = curve["precision"] + curve["recall"]
    score = (2 * curve["precision"] * curve["recall"]).where(total > 0, 0) / total.where(
        total > 0, 1
    )
    if score.empty or not score.max() > 0:
        return None
    return curve.loc[score.idxmax()]
