"""Chapter on training: loss, learning rate and mAP of the unpruned model and each retraining."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from report.blocks import Block, Figure, Section, Table, left_out
from report.drawing import FigureFolder, canvas, legend_below, run_colours, thinned
from report.errors import NotThereYet
from report.results import Results, run_label

COLUMNS = ("epoch", "loss", "learning_rate", "images_per_second", "mAP")


def section(results: Results, folder: FigureFolder) -> Section:
    """How the trainings went, from the runs' training.csv."""
    curves, missing = read_curves(results)
    blocks: list[Block] = list(curve_blocks(curves, results, folder)) if curves else []
    if curves:
        blocks += [
            left_out(f"Curves of the model {run_label(run)}", error)
            for run, error in missing.items()
        ]
    elif missing:
        blocks.append(left_out("Loss, learning rate and mAP curves", missing["unpruned"]))
    return Section("training", "Training", lead(curves), blocks)


def read_curves(results: Results) -> tuple[dict[str, pd.DataFrame], dict[str, NotThereYet]]:
    """training.csv of each run, and what is missing of the runs that have none yet."""
    curves, missing = {}, {}
    for run in results.runs:
        try:
            table = results.table(f"{run}/training.csv", COLUMNS)
        except NotThereYet as error:
            missing[run] = error
            continue
        if len(table):
            curves[run] = table.sort_values("epoch", kind="stable")
    return curves, missing


def lead(curves: Mapping[str, pd.DataFrame]) -> str:
    """First and last loss of the unpruned training, in words."""
    if "unpruned" not in curves:
        return ""
    table = curves["unpruned"]
    text = (
        f"The unpruned model trained {table['epoch'].iloc[-1]:.0f} epochs; "
        f"its loss went from {table['loss'].iloc[0]:.3g} to {table['loss'].iloc[-1]:.3g}"
    )
    validated = table["mAP"].dropna()
    if validated.empty:
        return f"{text}."
    best = table.loc[validated.idxmax()]
    return f"{text}, its best mAP on fold 0 is {best['mAP']:.1f} % at epoch {best['epoch']:.0f}."


def curve_blocks(
    curves: Mapping[str, pd.DataFrame], results: Results, folder: FigureFolder
) -> list[Figure | Table]:
    """The three kinds of curves, and a table of how each training ended."""
    together = pd.concat(
        [table.assign(run=run) for run, table in curves.items()], ignore_index=True
    )
    blocks: list[Figure | Table] = [
        folder.keep(
            "loss",
            "Loss",
            "Mean of each epoch, logarithmic. Retrained models start from pruned weights.",
            loss(curves),
            together[["run", "epoch", "loss"]],
        ),
        folder.keep(
            "learning_rate",
            "Learning rate",
            "At the end of each epoch; it rises softly and anneals.",
            learning_rate(curves),
            together[["run", "epoch", "learning_rate"]],
        ),
    ]
    scores = {"mAP": "mAP", **{f"AP {name}": name for name in results.classes}}
    scores = {column: title for column, title in scores.items() if column in together}
    if together["mAP"].notna().any():
        blocks.append(
            folder.keep(
                "validation",
                "Average precision on fold 0 while training",
                "As NVIDIA's toolkit computes it, percent.",
                validation(curves, scores),
                together[["run", "epoch", *scores]].dropna(subset=["mAP"]),
            )
        )
    blocks.append(summary(curves))
    return blocks


def loss(curves: Mapping[str, pd.DataFrame]) -> Drawing:
    """Loss over epochs, a line for each run; tables have epoch and loss."""
    drawing, (axes,) = canvas(2.8)
    _lines(axes, curves, "loss")
    if all((table["loss"] > 0).all() for table in curves.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("epoch")
    legend_below(drawing, [axes])
    return drawing


def learning_rate(curves: Mapping[str, pd.DataFrame]) -> Drawing:
    """Learning rate over epochs, a line for each schedule; tables have epoch and learning_rate."""
    drawing, (axes,) = canvas(2.8)
    schedules: list[tuple[list[str], pd.DataFrame]] = []
    for run, table in curves.items():
        steps = table[["epoch", "learning_rate"]].reset_index(drop=True)
        same = next((runs for runs, other in schedules if other.equals(steps)), None)
        if same is not None:
            same.append(run)
        else:
            schedules.append(([run], steps))
    colours = run_colours(list(curves))
    for runs, steps in schedules:
        # "pruned 0.5, 0.6" says once what both are.
        names = [run_label(run) for run in runs]
        label = ", ".join(names).replace(", pruned ", ", ")
        if names[0] == "unpruned":
            label = label.replace(", ", ", pruned ", 1)
        axes.plot(
            steps["epoch"], steps["learning_rate"], color=colours[runs[0]], label=label,
            marker=lone_marker(steps),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_xlabel("epoch")
    legend_below(drawing, [axes])
    return drawing


def validation(curves: Mapping[str, pd.DataFrame], scores: Mapping[str, str]) -> Drawing:
    """A panel for each score (column to title) over epochs, a line for each run, percent."""
    drawing, rows = canvas(0.75 + 1.35 * len(scores), len(scores), sharex=True)
    for axes, (column, title) in zip(rows, scores.items(), strict=True):
        _lines(axes, curves, column, marker="o", markersize=3.5)
        axes.set_title(title, fontweight="bold")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        low = min(table[column].min() for table in curves.values())
        axes.set_ylim(max(0, low - 4) if pd.notna(low) else 0, None)
    rows[-1].set_xlabel("epoch")
    legend_below(drawing, rows)
    return drawing


def _lines(axes: Axes, curves: Mapping[str, pd.DataFrame], column: str, **options: object) -> None:
    colours = run_colours(list(curves))
    for run, table in curves.items():
        points = table.dropna(subset=[column])
        x, y = thinned(points["epoch"].to_numpy(), points[column].to_numpy())
        marker = options.get("marker") or lone_marker(points)
        axes.plot(x, y, **(options | {"marker": marker}), color=colours[run], label=run_label(run))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def lone_marker(points: pd.DataFrame) -> str:
    """A dot for a single epoch, of which a line would show nothing."""
    return "o" if len(points) == 1 else ""


def summary(curves: Mapping[str, pd.DataFrame]) -> Table:
    """How each training ended, and how fast it was."""
    rows: list[Sequence[str]] = []
    for run, table in curves.items():
        validated = table["mAP"].dropna()
        rows.append(
            (
                run_label(run),
                f"{table['epoch'].iloc[-1]:.0f}",
                f"{table['loss'].iloc[-1]:.4g}",
                f"{validated.iloc[-1]:.2f}" if len(validated) else "–",
                f"{validated.max():.2f}" if len(validated) else "–",
                f"{table['images_per_second'].median():.1f}",
            )
        )
    return Table(
        "How each training ended",
        ("model", "epochs", "loss", "mAP %", "best mAP %", "images/s"),
        rows,
        "The model of the last epoch is the one that is kept. images/s: median over the epochs.",
    )
