"""The part of the data chapter on the sizes of the faces, which evaluation has a least one of."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from report.blocks import Figure
from report.drawing import INK, MUTED, FigureFolder, beside, canvas, class_colours, legend_below
from report.results import Results

SELECTION = ("dataset", "image", "name", "width", "height", "class", "x1", "y1", "x2", "y2")
TEXT = ("dataset", "image", "name", "class")
SIDES = ("height", "width")


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


def size_blocks(results: Results, folder: FigureFolder) -> list[Figure]:
    """Face sizes in the network's pixels: all by class, and their heights dataset by dataset."""
    faces = read_faces(results)
    width, height = results.network
    faces["width"] *= width
    faces["height"] *= height
    least = {side: results.config["evaluate"][f"minimum_{side}"] for side in SIDES}
    # As detectnet_v2.metrics leaves them out.
    is_small = (faces["height"] < least["height"]) | (faces["width"] < least["width"])
    small = is_small.mean() if len(faces) else 0
    return [
        folder.keep(
            "face_sizes",
            "Face size at the network's input",
            f"{small:.1%} of the faces are lower than {least['height']} px or narrower than "
            f"{least['width']} px, which evaluation leaves out. "
            f"Images are stretched to {width}×{height}.",
            face_sizes(faces, results.classes, least),
            pd.concat(
                [histogram(faces, ["split", "class"], side) for side in SIDES], ignore_index=True
            ),
        ),
        folder.keep(
            "face_heights_by_dataset",
            "Face height, dataset by dataset",
            "All splits together; bars of the classes are stacked, each row has its own scale.",
            face_heights_by_dataset(
                faces, list(results.config["datasets"]), results.classes, least["height"]
            ),
            histogram(faces, ["dataset", "class"], "height"),
        ),
    ]


def size_bins(sizes: pd.Series) -> np.ndarray:
    """Edges a quarter of an octave apart that hold all sizes, pixels."""
    positive = sizes[sizes > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (8, 512)
    first, last = np.floor(4 * np.log2(low)), np.ceil(4 * np.log2(high) + 1e-9)
    return 2 ** (np.arange(first, max(last, first + 1) + 1) / 4)


def histogram(faces: pd.DataFrame, by: Sequence[str], side: str) -> pd.DataFrame:
    """Faces in each bin of a side, `height` or `width`, for each group."""
    edges = size_bins(faces[side])
    rows = []
    for key, group in faces.groupby(list(by), sort=False):
        for low, high, count in zip(
            edges[:-1], edges[1:], np.histogram(group[side], edges)[0], strict=True
        ):
            rows.append((*key, side, round(low, 2), round(high, 2), count))
    return pd.DataFrame(rows, columns=[*by, "side", "pixels from", "pixels to", "faces"])


def face_sizes(faces: pd.DataFrame, classes: Sequence[str], least: Mapping[str, float]) -> Drawing:
    """Histograms of the heights and widths of each class, one below the other.

    `faces` has class, height and width in pixels, `least` the least height and width evaluated.
    """
    drawing, panels = canvas(4.8, 2)
    edges = size_bins(pd.concat([faces[side] for side in SIDES]))
    for axes, side in zip(panels, SIDES, strict=True):
        for name, colour in class_colours(classes).items():
            sizes = faces.loc[faces["class"] == name, side]
            axes.hist(sizes, edges, histtype="stepfilled", color=colour, alpha=0.28)
            axes.hist(sizes, edges, histtype="step", color=colour, linewidth=1.6, label=name)
        _size_axis(axes, edges, least[side])
        axes.set_ylim(0, 1.14 * axes.get_ylim()[1])
        beside(axes, least[side], 0.96 * axes.get_ylim()[1], f"evaluated from {least[side]} px", 5)
        axes.set_ylabel("faces")
        axes.set_xlabel(f"{side}, pixels")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    legend_below(drawing, panels)
    return drawing


def face_heights_by_dataset(
    faces: pd.DataFrame, order: Sequence[str], classes: Sequence[str], least: float
) -> Drawing:
    """A histogram for each dataset below each other; `faces` has dataset, class and height."""
    datasets = [name for name in order if (faces["dataset"] == name).any()]
    drawing, rows = canvas(0.7 + 0.72 * max(len(datasets), 1), max(len(datasets), 1), sharex=True)
    edges = size_bins(faces["height"])
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
        _size_axis(axes, edges, least)
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


def _size_axis(axes: Axes, edges: np.ndarray, least: float) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(least, color=INK, linestyle=(0, (4, 3)), linewidth=0.9, zorder=3)
