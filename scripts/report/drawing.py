"""Style of the figures, and their way into the page and the report folder."""

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from PIL import Image

from report.blocks import Figure

# A figure is about as wide as a phone held upright (points of 1/72 inch, taken as CSS pixels), so
# that its text is read there without zooming.
WIDTH = 4.5
LEGEND_LETTERS = 56
INK = "#1f2a37"
MUTED = "#66727f"
GRID = "#e3e8ee"
PAPER = "#ffffff"
THEIRS = "#8a6d1f"
KEPT = "#3f86d8"
# Writing on coloured areas: white that no theme turns round.
ON_COLOUR = "#fffffe"

# In the page these colours follow the reader's light or dark setting.
_THEMED = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card", THEIRS: "--theirs"}

_CLASS_COLOURS = {"mask": "#1f9d61", "no-mask": "#d94a3d"}
_OTHER_CLASSES = ("#3f7fd0", "#b8860b", "#8e5bd0", "#008b8b", "#c2568f")
_RUN_COLOURS = ("#3f86d8", "#8b63d6", "#c9559d", "#d98324", "#2a9d9d", "#7d8b2f")

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": mpl.cycler(color=_RUN_COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.columnspacing": 1.4,
    "legend.fontsize": 9,
    "legend.handlelength": 1.4,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "xtick.major.size": 3,
    "xtick.major.width": 0.7,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0,
}


def style() -> mpl.rc_context:
    """A context in which figures are made and saved."""
    return mpl.rc_context(STYLE)


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour for each class: mask green, no-mask red, any other one of a fixed row."""
    others = iter(_OTHER_CLASSES * (1 + len(classes) // len(_OTHER_CLASSES)))
    return {name: _CLASS_COLOURS.get(name) or next(others) for name in classes}


def run_colours(runs: Sequence[str]) -> dict[str, str]:
    """A colour for each trained model: ink for the unpruned one, then one of a fixed row."""
    pruned = [run for run in runs if run != "unpruned"]
    colours = {run: _RUN_COLOURS[i % len(_RUN_COLOURS)] for i, run in enumerate(pruned)}
    return {"unpruned": INK} | colours


def canvas(height: float, rows: int = 1, **options: object) -> tuple[Drawing, list[Axes]]:
    """An empty figure, `height` in inches, with `rows` axes below each other."""
    drawing = Drawing(figsize=(WIDTH, height), layout="constrained")
    axes = drawing.subplots(rows, 1, squeeze=False, **options)
    return drawing, list(axes[:, 0])


def legend_below(drawing: Drawing, panels: Sequence[Axes]) -> None:
    """Put the legend of all panels under the figure, where it covers no curve; in one row where it
    fits."""
    found = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    rows = -(-sum(len(label) + 5 for label in found) // LEGEND_LETTERS)
    drawing.legend(
        found.values(), found.keys(), loc="outside lower left", ncols=-(-len(found) // rows)
    )


def beside(axes: Axes, x: float, y: float, text: str, gap: float) -> None:
    """Write to the right of a place, or to its left where the gap (points) is not positive."""
    axes.annotate(
        text, (x, y), (gap, 0), textcoords="offset points", va="center", color=MUTED,
        ha="left" if gap > 0 else "right", fontsize=9,
    )  # fmt: skip


def ring(axes: Axes, x: float, y: float) -> None:
    """Mark the point of the chosen model."""
    axes.plot(
        x, y, "o", markersize=15, markerfacecolor="none", markeredgecolor=INK,
        markeredgewidth=1.3, zorder=4,
    )  # fmt: skip


def place_labels(
    axes: Axes, labels: Sequence[tuple[float, float, str, dict]], size: float = 9
) -> None:
    """Write a text at each point, on the side where it covers the least.

    `labels` are x, y in data units, text and options of Axes.annotate; limits and scales of the
    axes must be final. All points and lines count as covered, and every label once it is placed.
    """
    # Brings scales and the layout up to date; the labels then stay out of it.
    axes.figure.draw_without_rendering()
    box = axes.get_position()
    frame = axes.figure.get_size_inches() * 72 * (box.width, box.height)
    unit = axes.transAxes.inverted().transform(
        axes.transData.transform([(x, y) for x, y, _, _ in labels])
    )
    points = unit * frame
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for line in axes.lines:
        taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in _along(axes, line, frame)]
    for (x, y, text, options), at in zip(labels, points, strict=True):
        lines = text.split("\n")
        width, height = 0.62 * size * max(map(len, lines)), 1.25 * size * len(lines)
        sides = [
            (dx, dy)
            for distance in (10, 18)
            for dx, dy in (
                (0, -distance - height / 2), (0, distance + height / 2),
                (distance + width / 2, 0), (-distance - width / 2, 0),
                (distance / 2 + width / 2, -distance - height / 2),
                (-distance / 2 - width / 2, -distance - height / 2),
                (distance / 2 + width / 2, distance + height / 2),
                (-distance / 2 - width / 2, distance + height / 2),
            )
        ]  # fmt: skip
        rectangles = [
            (at[0] + dx - width / 2, at[1] + dy - height / 2,
             at[0] + dx + width / 2, at[1] + dy + height / 2)
            for dx, dy in sides
        ]  # fmt: skip
        costs = [
            sum(_shared(rectangle, other) for other in taken) + 3 * _outside(rectangle, frame)
            for rectangle in rectangles
        ]
        best = int(np.argmin(costs))
        taken.append(rectangles[best])
        label = axes.annotate(
            text, (x, y), sides[best], textcoords="offset points", ha="center", va="center",
            fontsize=size, annotation_clip=False, **options,
        )  # fmt: skip
        label.set_in_layout(False)


def _along(axes: Axes, line: Line2D, frame: np.ndarray) -> np.ndarray:
    """Points on a line, 4 apart, in the axes' frame; none where only its markers are drawn."""
    if line.get_linestyle() == "None" or len(line.get_xdata()) < 2:
        return np.empty((0, 2))
    path = axes.transAxes.inverted().transform(
        axes.transData.transform(np.column_stack((line.get_xdata(), line.get_ydata())))
    )
    path = path * frame
    pieces = []
    for start, end in pairwise(path):
        steps = max(int(np.hypot(*(end - start)) // 4), 1)
        pieces.append(start + (end - start) * np.linspace(0, 1, steps + 1)[:, None])
    return np.concatenate(pieces)


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(rectangle: Sequence[float], frame: Sequence[float]) -> float:
    area = (rectangle[2] - rectangle[0]) * (rectangle[3] - rectangle[1])
    return area - _shared(rectangle, (0, 0, *frame))


def thinned(x: np.ndarray, y: np.ndarray, points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A curve with at most about `points` points, for the page's size: in each stretch of x its
    first point and its extremes stay."""
    if len(x) <= points:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), points // 3):
        kept |= {part[0], part[np.argmin(y[part])], part[np.argmax(y[part])]}
    order = sorted(int(index) for index in kept)
    return x[order], y[order]


@dataclass(frozen=True)
class FigureFolder:
    """Where the figures go as files: `{name}.svg`, `{name}.png` and `{name}.csv`."""

    path: Path

    def keep(
        self, name: str, title: str, caption: str, drawing: Drawing, table: pd.DataFrame
    ) -> Figure:
        """Write a figure and the table behind it, and return it for the page."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.write(f"{name}.csv", table.to_csv(index=False).encode())
        png = io.BytesIO()
        drawing.savefig(png, format="png", dpi=160, metadata={"Software": None})
        self.write(f"{name}.png", png.getvalue())
        svg = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": name}):
            # Without dates and generator, the same results give the same file.
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            drawing.savefig(svg, format="svg", metadata=nothing)
        self.write(f"{name}.svg", svg.getvalue())
        return Figure(name, title, caption, inline_svg(svg.getvalue().decode(), name, title))

    def save_jpeg(self, name: str, image: Image.Image) -> None:
        """Write a photograph."""
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        self.write(name, buffer.getvalue())

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        part = self.path / f"{name}.part"
        part.write_bytes(content)
        os.replace(part, self.path / name)


def inline_svg(document: str, name: str, title: str) -> str:
    """The svg element of a document written by matplotlib, fit for a page with other figures:
    ids start with `name`, the size is left to the page, colours follow its theme."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, variable in _THEMED.items():
        svg = svg.replace(colour, f"var({variable})")
    opening = re.match(r"<svg[^>]*>", svg)
    view_box = re.search(r'viewBox="([^"]*)"', opening[0])[1]
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    start = (
        f'<svg viewBox="{view_box}" role="img" aria-label="{label}"'
        ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return start + svg[opening.end() :].strip()
