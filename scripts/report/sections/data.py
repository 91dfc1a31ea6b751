"""Chapter on the data: faces per dataset and class, and what was left out and why."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from report.blocks import Figure, Note, Section, Table, parts
from report.drawing import (
    KEPT,
    MUTED,
    ON_COLOUR,
    PAPER,
    FigureFolder,
    beside,
    canvas,
    class_colours,
)
from report.errors import NotThereYet
from report.results import Results
from report.sections import sizes

COUNTS = ("dataset", "class", "labelled", "taken", "total", "images")
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
            ("Sizes of the faces", lambda: sizes.size_blocks(results, folder)),
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
        if failed := not_converted(results, split):
            sentences.append(f"Of these images {failed:,} could not be converted.")
    return " ".join(sentences)


def images_of(counts: pd.DataFrame) -> int:
    """Chosen images of a split; each dataset's number stands in the rows of all its classes."""
    return int(counts.drop_duplicates("dataset")["images"].sum())


def not_converted(results: Results, split: str) -> int:
    """How many of the chosen images of a split could not be converted, as far as is known."""
    return sum(
        row[-1] for name in results.datasets(split) for row in _not_converted(results, split, name)
    )


def read_counts(results: Results) -> pd.DataFrame:
    """The counts tables of all splits, with a column `split`."""
    frames = [
        results.table(f"selection/{split}.counts.csv", COUNTS, text=TEXT).assign(split=split)
        for split in results.splits
    ]
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
    rows, caption, sums = count_rows(counts, results.classes)
    failed = sum(not_converted(results, split) for split in results.splits)
    if failed:
        caption += f" {failed:,} of the images could not be converted and count here all the same."
    table = Table(
        "Images and faces taken",
        ("split", "dataset", "images", *results.classes),
        rows,
        caption,
        sums,
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
        beside(axes, limit, -0.62, f"limit {limit:,}", -5)
    else:
        beside(axes, reach, -0.62, f"limit {limit:,} →", 0)
    axes.set_yticks(range(len(bars)), [f"{name}\n{split}" for split, name in bars])
    axes.set_ylim(len(bars) - 0.5, -0.9)
    axes.set_xlim(0, reach)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("faces")
    return drawing


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
