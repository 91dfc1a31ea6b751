"""Chapter on pruning: what each model costs and keeps, and the widths of its layers."""

from collections.abc import Mapping, Sequence

import pandas as pd
from jetson.table import SOURCE
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from report.blocks import Figure, Note, Section, Table, parts
from report.drawing import (
    KEPT,
    MUTED,
    PAPER,
    THEIRS,
    FigureFolder,
    canvas,
    legend_below,
    place_labels,
    ring,
    run_colours,
)
from report.errors import NotThereYet
from report.published import MODELS
from report.results import Results, run_label
from report.sections.accuracy import signed

MODEL_COLUMNS = ("run", "mAP", "parameters", "share of parameters", "MACs", "drop")


def section(results: Results, folder: FigureFolder) -> Section:
    """What pruning cost, from chosen/ and pruned/."""
    return Section(
        "pruning",
        "Pruning",
        lead(results),
        parts(
            ("Trade-off of the pruned models", lambda: tradeoff_blocks(results, folder)),
            ("Widths of the layers", lambda: width_block(results, folder)),
            ("Cost of each model", lambda: models_table(read_models(results), results)),
        ),
    )


def lead(results: Results) -> str:
    """The choice and its reason, in words."""
    try:
        choice = results.choice
    except NotThereYet:
        return ""
    return f"Chosen: {run_label(choice['run'])}, {choice['reason']}."


def read_models(results: Results) -> pd.DataFrame:
    """The table of all models, unpruned first."""
    return results.table("chosen/models.csv", MODEL_COLUMNS, text=("run",))


def tradeoff_blocks(results: Results, folder: FigureFolder) -> list[Figure]:
    """mAP against size and work."""
    models = read_models(results)
    limit = results.config["prune"]["max_map_drop"]
    theirs = published_shares()
    caption = (
        f"The shaded band is prune.max_map_drop = {limit:g} points below the unpruned model: "
        "the smallest model inside is chosen."
    )
    blocks = [
        folder.keep(
            "tradeoff_parameters",
            "mAP against parameters",
            f"{caption} Hollow squares are NVIDIA's published figures on their own images; for the "
            "pruned one their README says 12 % and leaves open whether kept or removed.",
            tradeoff_parameters(models, results.chosen, limit, theirs),
            pd.concat(
                [models.assign(source="this run"), theirs.assign(source=SOURCE)],
                ignore_index=True,
            ),
        )
    ]
    # A pruned model of TLT is encrypted: nobody knows its work.
    if models["MACs"].notna().all():
        blocks.append(
            folder.keep(
                "tradeoff_macs",
                "mAP against work per image",
                "Multiply-accumulate operations of one image. None are published.",
                tradeoff_macs(models, results.chosen, limit),
                models,
            )
        )
    return blocks


def published_shares() -> pd.DataFrame:
    """The published models: name, mAP and share of parameters; the open one in two rows."""
    return pd.DataFrame(
        [
            (model.name, model.mean_average_precision, share)
            for model in MODELS
            for share in model.shares
        ],
        columns=["run", "mAP", "share of parameters"],
    )


def tradeoff_parameters(
    models: pd.DataFrame, chosen: str | None, max_map_drop: float, theirs: pd.DataFrame
) -> Drawing:
    """mAP over the share of parameters that is kept, percent, with the published points.

    `models` has run, mAP and share of parameters (of 1), `theirs` the same.
    """
    drawing, (axes,) = canvas(3.5)
    labels = []
    for name, group in theirs.groupby("run", sort=False):
        shares = 100 * group["share of parameters"]
        axes.plot(
            shares, group["mAP"], "s", color=THEIRS, markerfacecolor="none", linestyle=":",
            markersize=7, linewidth=1, markeredgewidth=1.4, zorder=2,
        )  # fmt: skip
        options = {"color": THEIRS}
        labels += [(x, y, "", options) for x, y in zip(shares, group["mAP"], strict=True)]
        labels[-1] = (*labels[-1][:2], f"NVIDIA, {name}", options)
    own = _points(axes, models, 100 * models["share of parameters"], chosen, max_map_drop)
    axes.set_xlim(0, 106)
    axes.set_xlabel("parameters, percent of the unpruned model")
    _finish(axes, own + labels)
    return drawing


def tradeoff_macs(models: pd.DataFrame, chosen: str | None, max_map_drop: float) -> Drawing:
    """mAP over billions of multiply-accumulates; `models` has run, mAP and MACs."""
    drawing, (axes,) = canvas(3.5)
    labels = _points(axes, models, models["MACs"] / 1e9, chosen, max_map_drop)
    axes.set_xlim(0, 1.06 * models["MACs"].max() / 1e9)
    axes.set_xlabel("billion multiply-accumulates per image")
    _finish(axes, labels)
    return drawing


def _finish(axes: Axes, labels: list[tuple[float, float, str, dict]]) -> None:
    """Room around the points, but none for a mAP below 0, and the labels."""
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.06 * high), high)
    place_labels(axes, labels)


def _points(
    axes: Axes, models: pd.DataFrame, x: pd.Series, chosen: str | None, max_map_drop: float
) -> list[tuple[float, float, str, dict]]:
    """Draw the models with a ring around the chosen one; returns their labels."""
    colours = run_colours(list(models["run"]))
    reference = models.loc[models["run"] == "unpruned", "mAP"].max()
    axes.axhspan(reference - max_map_drop, reference, color=KEPT, alpha=0.13, linewidth=0)
    order = x.sort_values().index
    axes.plot(x[order], models.loc[order, "mAP"], color=MUTED, linewidth=1, zorder=1)
    labels = []
    for index, model in models.iterrows():
        at = (x[index], model["mAP"])
        is_chosen = model["run"] == chosen
        if is_chosen:
            ring(axes, *at)
        axes.plot(
            *at, "o", color=colours[model["run"]], markersize=8, markeredgecolor=PAPER,
            markeredgewidth=0.8, zorder=3,
        )  # fmt: skip
        text = f"{run_label(model['run'])}, chosen" if is_chosen else run_label(model["run"])
        labels.append((*at, text, {"fontweight": "bold"} if is_chosen else {}))
    axes.set_ylabel("mAP on fold 0, percent")
    return labels


def models_table(models: pd.DataFrame, results: Results) -> Table:
    """Cost and accuracy of every model."""
    rows: list[Sequence[str]] = []
    marked = []
    classes = [name for name in results.classes if f"AP {name}" in models]
    for _, model in models.iterrows():
        if model["run"] == results.chosen:
            marked.append(len(rows))
        rows.append(
            (
                run_label(model["run"]),
                f"{model['parameters'] / 1e6:.2f}",
                f"{100 * model['share of parameters']:.1f}",
                f"{model['MACs'] / 1e9:.2f}" if pd.notna(model["MACs"]) else "–",
                f"{model['mAP']:.2f}",
                *(f"{model[f'AP {name}']:.2f}" for name in classes),
                "–" if model["run"] == "unpruned" else signed(-model["drop"]),
            )
        )
    return Table(
        "What each model costs",
        ("model", "parameters, M", "% kept", "GMACs", "mAP %", *classes, "change"),
        rows,
        "The chosen model is marked. Change: points of mAP against the unpruned model.",
        marked=marked,
    )


def width_block(results: Results, folder: FigureFolder) -> Figure | Note:
    """Filters of each layer before and after pruning; no model of TLT can be looked into."""
    widths = read_widths(results)
    if widths.empty:
        return Note("Widths of the layers", "Not known: the models are encrypted (.tlt).")
    run = results.chosen if results.chosen and results.chosen != "unpruned" else None
    threshold = run.partition("/")[2] if run else widths["threshold"].iloc[-1]
    what = "the chosen one" if run else "the smallest that is there"
    return folder.keep(
        "layer_widths",
        "Filters per layer, before and after pruning",
        f"Bars: {run_label(f'retrained/{threshold}')}, {what}. Ticks: the other pruned models.",
        layer_widths(widths, threshold),
        widths,
    )


def read_widths(results: Results) -> pd.DataFrame:
    """Filters before and after, for each threshold that is there: threshold, layer, before, after.

    Empty where the models are encrypted; raises NotThereYet where there is none.
    """
    rows = []
    missing = None
    for threshold in results.thresholds:
        try:
            document = results.document(f"pruned/{threshold}/pruning.json", ("ratio",))
        except NotThereYet as error:
            missing = missing or error
            continue
        widths: Mapping[str, Mapping[str, int]] = document.get("widths", {"before": {}})
        rows += [
            (threshold, layer, before, widths["after"].get(layer, 0))
            for layer, before in widths["before"].items()
        ]
    if not rows and missing:
        raise missing
    return pd.DataFrame(rows, columns=["threshold", "layer", "before", "after"])


def layer_widths(widths: pd.DataFrame, threshold: str) -> Drawing:
    """A bar for each layer: filters kept at `threshold`, of those before; ticks for the others.

    `widths` has threshold, layer, before and after.
    """
    layers = list(widths["layer"].unique())
    drawing, (axes,) = canvas(0.95 + 0.235 * len(layers))
    colours = run_colours([f"retrained/{t}" for t in widths["threshold"].unique()])
    before = widths.groupby("layer")["before"].max()
    bars = widths[widths["threshold"] == threshold].set_index("layer")["after"]
    counts = [before[name] for name in layers]
    axes.barh(layers, counts, height=0.7, color=MUTED, alpha=0.25, label="before")
    kept = [bars.get(name, 0) for name in layers]
    colour = colours[f"retrained/{threshold}"]
    axes.barh(layers, kept, height=0.7, color=colour, label=run_label(f"retrained/{threshold}"))
    for other, group in widths.groupby("threshold", sort=False):
        if other == threshold:
            continue
        positions = [layers.index(name) for name in group["layer"]]
        # A tick in the paper's colour behind sets it off from the bar.
        axes.plot(group["after"], positions, "|", color=PAPER, markersize=9, markeredgewidth=4.5)
        axes.plot(
            group["after"], positions, "|", color=colours[f"retrained/{other}"], markersize=9,
            markeredgewidth=2.2, label=run_label(f"retrained/{other}"),
        )  # fmt: skip
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=8.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, None)
    axes.set_xlabel("filters")
    legend_below(drawing, [axes])
    return drawing
