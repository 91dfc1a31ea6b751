"""Chapter on the data: faces per dataset and class, their sizes, and what was left out and why."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from report.blocks import Figure, Note, Section, Table, parts
from report.drawing import (
    INK,
    KEPT,
    MUTED,
    ON_COLOUR,
    PAPER,
    FigureFolder,
    canvas,
    class_colours,
    legend_below,
)
from report.errors import NotThereYet
from report.results import Results

COUNTS = ("dataset", "class", "labelled", "taken", "total", "images")
SELECTION = ("dataset", "image", "name", "width", "height", "class", "x1", "y1", "x2", "y2")
INDEX = ("image", "class", "dropped")
MANIFEST = ("name", "error")
TEXT = ("dataset", "image", "name", "class", "dropped", "error")

# More reasons than this, in one dataset, would hide the ones that count.
MOST_REASONS = 8
# How much of the longest bar a letter of the writing in it takes.
LETTER_SHARE = 0.022


def section(results: Results, folder: FigureFolder) -> Section:
    """What the chosen data is, from selection/ and index/."""
    return Section(
        "data",
        "Data",
        lead(results),
        parts(
            ("Faces per dataset and class", lambda: counts_blocks(results, folder)),
            ("Sizes of the faces", lambda: size_blocks(results, folder)),
            ("What was left out", lambda: dropped_blocks(results, folder)),
        ),
    )


def lead(results: Results) -> str:
    """Images and faces of each class, in words; empty before the faces are chosen."""
    try:
        counts = read_counts(results)
    except NotThereYet:
        return ""
    limit = results.config["category_limit"]
    sentences = []
    for split, rows in counts.groupby("split", sort=False):
        faces = rows.groupby("class", sort=False)["taken"].sum()
        numbers = [(name, int(faces.get(name, 0))) for name in results.classes]
        shares = " and ".join(f"{number / limit:.0%}" for _, number in numbers)
        sentences.append(
            f"The {split} split has {images_of(rows):,} images with "
            f"{' and '.join(f'{number:,} {name}' for name, number in numbers)} faces, "
            f"{shares} of category_limit."
        )
    return " ".join(sentences)


def images_of(counts: pd.DataFrame) -> int:
    """Images of a split; each dataset's number stands in the rows of all its classes."""
    return int(counts.drop_duplicates("dataset")["images"].sum())


def read_counts(results: Results) -> pd.DataFrame:
    """The counts tables of all splits, with a column `split`."""
    frames = [
        results.table(f"selection/{split}.counts.csv", COUNTS, text=TEXT).assign(split=split)
        for split in results.splits
    ]
    return pd.concat(frames, ignore_index=True)


def read_faces(results: Results) -> pd.DataFrame:
    """The chosen faces of all splits: split, dataset, class, and width and height as shares of the
    image, which are the same after it is stretched to the network's input."""
    frames = []
    for split in results.splits:
        faces = results.table(f"selection/{split}.csv", SELECTION, text=TEXT)
        faces = faces[faces["class"] != ""]
        frames.append(
            pd.DataFrame(
                {
                    "split": split,
                    "dataset": faces["dataset"],
                    "class": faces["class"],
                    "width": (faces["x2"] - faces["x1"]) / faces["width"],
                    "height": (faces["y2"] - faces["y1"]) / faces["height"],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def counts_blocks(results: Results, folder: FigureFolder) -> list[Figure | Table]:
    """The counts as bars and as the table that the recipe prints."""
    counts = read_counts(results)
    limit = results.config["category_limit"]
    figure = folder.keep(
        "face_counts",
        "Faces per class, by dataset",
        f"Datasets fill up in the config's order until a class has category_limit = {limit:,} "
        "faces; an image is taken whole.",
        face_counts(counts, results.classes, limit),
        counts,
    )
    table = Table(
        "Images and faces taken",
        ("split", "dataset", "images", *results.classes),
        *count_rows(counts, results.classes),
    )
    return [figure, table]


def count_rows(
    counts: pd.DataFrame, classes: Sequence[str]
) -> tuple[list[tuple[str, ...]], str, list[int]]:
    """Rows of the counts table, its caption and the indices of the sums."""
    rows, sums = [], []
    for split, group in counts.groupby("split", sort=False):
        for dataset, numbers in group.groupby("dataset", sort=False):
            each = numbers.set_index("class").reindex(classes, fill_value=0)
            cells = []
            for name in classes:
                taken, labelled = each.loc[name, ["taken", "labelled"]]
                cells.append(f"{taken:,}" + (f" of {labelled:,}" if labelled > taken else ""))
            rows.append((split, dataset, f"{numbers['images'].iloc[0]:,}", *cells))
        taken = group.groupby("class")["taken"].sum()
        sums.append(len(rows))
        rows.append(
            (split, "all", f"{images_of(group):,}", *(f"{taken.get(n, 0):,}" for n in classes))
        )
    return rows, "Of: faces that the class rules accept, where not all were taken.", sums


def face_counts(counts: pd.DataFrame, classes: Sequence[str], limit: int) -> Drawing:
    """One bar for each split and class, stacked by dataset, against the limit.

    `counts` has the columns split, dataset, class and taken.
    """
    bars = [(s, c) for s in counts["split"].unique() for c in classes]
    drawing, (axes,) = canvas(0.7 + 0.52 * len(bars))
    colours = class_colours(classes)
    longest = max(counts.groupby(["split", "class"])["taken"].sum().max(), 1)
    # A limit far off would press the bars against the axis; then an arrow stands for it.
    reach = limit if limit <= 2.5 * longest else 1.25 * longest
    reach = max(reach, longest) * 1.04
    for row, (split, name) in enumerate(bars):
        left = 0
        taken = counts[(counts["split"] == split) & (counts["class"] == name)]
        for index, (dataset, number) in enumerate(
            zip(taken["dataset"], taken["taken"], strict=True)
        ):
            axes.barh(
                row, number, left=left, height=0.66, color=colours[name],
                alpha=(1.0, 0.62)[index % 2], edgecolor=PAPER, linewidth=1,
            )  # fmt: skip
            if number > LETTER_SHARE * max(len(dataset), len(f"{number:,}")) * reach:
                axes.text(
                    left + number / 2, row, f"{dataset}\n{number:,}", ha="center", va="center",
                    fontsize=8.5, color=ON_COLOUR, linespacing=1.05,
                )  # fmt: skip
            left += number
        axes.text(left + 0.012 * reach, row, f"{left:,}", va="center", fontweight="bold")
    if limit <= reach:
        axes.axvline(limit, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        _beside(axes, limit, -0.62, f"limit {limit:,}", -5)
    else:
        _beside(axes, reach, -0.62, f"limit {limit:,} →", 0)
    axes.set_yticks(range(len(bars)), [f"{name}\n{split}" for split, name in bars])
    axes.set_ylim(len(bars) - 0.5, -0.9)
    axes.set_xlim(0, reach)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("faces")
    return drawing


def _beside(axes: Axes, x: float, y: float, text: str, gap: float) -> None:
    """Write to the right of a place, or to its left where the gap (points) is not positive."""
    axes.annotate(
        text, (x, y), (gap, 0), textcoords="offset points", va="center", color=MUTED,
        ha="left" if gap > 0 else "right", fontsize=9,
    )  # fmt: skip


def size_blocks(results: Results, folder: FigureFolder) -> list[Figure]:
    """Face heights in the network's pixels: all by class, and dataset by dataset."""
    faces = read_faces(results)
    width, height = results.network
    faces["width"] *= width
    faces["height"] *= height
    least = results.config["evaluate"]["minimum_height"]
    small = (faces["height"] < least).mean() if len(faces) else 0
    return [
        folder.keep(
            "face_heights",
            "Face height at the network's input",
            f"{small:.1%} of the faces are lower than {least} px, which evaluation leaves out. "
            f"Images are stretched to {width}×{height}.",
            face_heights(faces, results.classes, least),
            histogram(faces, ["split", "class"]),
        ),
        folder.keep(
            "face_heights_by_dataset",
            "Face height, dataset by dataset",
            "All splits together; bars of the classes are stacked, each row has its own scale.",
            face_heights_by_dataset(
                faces, list(results.config["datasets"]), results.classes, least
            ),
            histogram(faces, ["dataset", "class"]),
        ),
    ]


def height_bins(heights: pd.Series) -> np.ndarray:
    """Edges a quarter of an octave apart that hold all heights, pixels."""
    positive = heights[heights > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (8, 512)
    first, last = np.floor(4 * np.log2(low)), np.ceil(4 * np.log2(high) + 1e-9)
    return 2 ** (np.arange(first, max(last, first + 1) + 1) / 4)


def histogram(faces: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Faces in each bin of height, for each group."""
    edges = height_bins(faces["height"])
    rows = []
    for key, group in faces.groupby(by, sort=False):
        for low, high, count in zip(
            edges[:-1], edges[1:], np.histogram(group["height"], edges)[0], strict=True
        ):
            rows.append((*key, round(low, 2), round(high, 2), count))
    return pd.DataFrame(rows, columns=[*by, "height from", "height to", "faces"])


def face_heights(faces: pd.DataFrame, classes: Sequence[str], least: float) -> Drawing:
    """Histogram of the heights of each class; `faces` has class and height in pixels."""
    drawing, (axes,) = canvas(2.9)
    edges = height_bins(faces["height"])
    for name, colour in class_colours(classes).items():
        heights = faces.loc[faces["class"] == name, "height"]
        axes.hist(heights, edges, histtype="stepfilled", color=colour, alpha=0.28)
        axes.hist(heights, edges, histtype="step", color=colour, linewidth=1.6, label=name)
    _height_axis(axes, edges, least)
    axes.set_ylim(0, 1.14 * axes.get_ylim()[1])
    _beside(axes, least, 0.96 * axes.get_ylim()[1], f"evaluated from {least} px", 5)
    axes.set_ylabel("faces")
    axes.set_xlabel("height, pixels")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    legend_below(drawing, [axes])
    return drawing


def face_heights_by_dataset(
    faces: pd.DataFrame, order: Sequence[str], classes: Sequence[str], least: float
) -> Drawing:
    """A histogram for each dataset below each other; `faces` has dataset, class and height."""
    datasets = [name for name in order if (faces["dataset"] == name).any()]
    drawing, rows = canvas(0.7 + 0.72 * max(len(datasets), 1), max(len(datasets), 1), sharex=True)
    edges = height_bins(faces["height"])
    colours = class_colours(classes)
    for axes, dataset in zip(rows, datasets, strict=False):
        chosen = faces[faces["dataset"] == dataset]
        axes.hist(
            [chosen.loc[chosen["class"] == name, "height"] for name in classes],
            edges,
            stacked=True,
            color=[colours[name] for name in classes],
            label=classes,
            alpha=0.85,
        )
        _height_axis(axes, edges, least)
        axes.set_ylim(0, 1.45 * axes.get_ylim()[1])
        axes.set_yticks([])
        axes.text(0.012, 0.97, dataset, transform=axes.transAxes, va="top", fontweight="bold")
        axes.text(
            1, 0.97, f"{len(chosen):,} faces", transform=axes.transAxes, va="top", ha="right",
            color=MUTED,
        )  # fmt: skip
    rows[-1].set_xlabel("height, pixels")
    legend_below(drawing, rows)
    return drawing


def _height_axis(axes: Axes, edges: np.ndarray, least: float) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(least, color=INK, linestyle=(0, (4, 3)), linewidth=0.9, zorder=3)


def read_dropped(results: Results) -> pd.DataFrame:
    """Faces and whole images by dataset and reason, an empty reason for what was kept.

    Columns split, dataset, reason, faces, images. A row of the index without a class stands for a
    whole image; images that could not be converted are in the manifests.
    """
    rows = []
    for split in results.splits:
        for dataset in results.datasets(split):
            index = results.table(f"index/{split}/{dataset}.csv", INDEX, text=TEXT)
            is_face = index["class"] != ""
            for reason, group in index.groupby("dropped", sort=False):
                faces = int(is_face[group.index].sum())
                whole = group.loc[~is_face[group.index], "image"].nunique()
                rows.append((split, dataset, reason, faces, whole if reason else 0))
            rows += _not_converted(results, split, dataset)
    return pd.DataFrame(rows, columns=["split", "dataset", "reason", "faces", "images"])


def _not_converted(results: Results, split: str, dataset: str) -> list[tuple]:
    try:
        manifest = results.table(f"kitti/{split}/{dataset}.manifest.csv", MANIFEST, text=TEXT)
    except NotThereYet:
        return []
    errors = manifest.loc[manifest["error"] != "", "error"].value_counts()
    return [(split, dataset, f"conversion: {e}", 0, int(n)) for e, n in errors.items()]


def dropped_blocks(results: Results, folder: FigureFolder) -> list[Figure | Table | Note]:
    """How much of each dataset its rules keep, and the reasons for the rest."""
    table = read_dropped(results)
    figure = folder.keep(
        "kept_faces",
        "Faces that the rules keep",
        "Of all annotated faces, before category_limit chooses among them.",
        kept_faces(table),
        table,
    )
    left_out = table[table["reason"] != ""]
    if left_out.empty:
        return [figure, Note("What was left out", "Nothing: every face and image was usable.")]
    rows = []
    for (split, dataset), group in left_out.groupby(["split", "dataset"], sort=False):
        ordered = group.sort_values(["faces", "images"], ascending=False, kind="stable")
        for _, row in ordered[:MOST_REASONS].iterrows():
            rows.append((split, dataset, row["reason"], row["faces"], row["images"]))
        rest = ordered[MOST_REASONS:]
        if len(rest):
            reason = f"{len(rest)} more reasons"
            rows.append((split, dataset, reason, rest["faces"].sum(), rest["images"].sum()))
    return [
        figure,
        Table(
            "What was left out, and why",
            ("split", "dataset", "reason", "faces", "whole images"),
            [(*row[:3], _count(row[3]), _count(row[4])) for row in rows],
        ),
    ]


def _count(number: int) -> str:
    return f"{number:,}" if number else "–"


def kept_faces(dropped: pd.DataFrame) -> Drawing:
    """Bars of kept and dropped faces, in percent, one for each split and dataset.

    `dropped` has the columns split, dataset, reason and faces; no reason means kept.
    """
    rows = list(dropped.groupby(["split", "dataset"], sort=False))
    drawing, (axes,) = canvas(0.75 + 0.36 * max(len(rows), 1))
    for row, (_, group) in enumerate(rows):
        total = group["faces"].sum()
        kept = group.loc[group["reason"] == "", "faces"].sum()
        share = 100 * kept / total if total else 0
        axes.barh(row, share, height=0.62, color=KEPT)
        axes.barh(row, 100 - share, left=share, height=0.62, color=MUTED, alpha=0.25)
        inside = share > 45
        axes.text(
            share - 1.5 if inside else share + 1.5, row, f"{kept:,} of {total:,}", va="center",
            ha="right" if inside else "left", color=ON_COLOUR if inside else None, fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"{dataset} · {split}" for (split, dataset), _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("percent of the annotated faces")
    return drawing
