"""Style of the figures, and their way into the page and the report folder."""

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from PIL import Image

from report.blocks import Figure

# A figure is about as wide as a phone held upright (points of 1/72 inch, taken as CSS pixels), so
# that its text is read there without zooming.
WIDTH = 5.1
INK = "#1f2a37"
MUTED = "#66727f"
GRID = "#e3e8ee"
PAPER = "#ffffff"
THEIRS = "#8a6d1f"

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
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
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
    """An empty figure of the common width, `height` in inches, with `rows` axes below each other."""
    drawing = Drawing(figsize=(WIDTH, height), layout="constrained")
    axes = drawing.subplots(rows, 1, squeeze=False, **options)
    return drawing, list(axes[:, 0])


def legend_below(drawing: Drawing, axes: Axes, columns: int = 3) -> None:
    """Put the legend under the figure, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        drawing.legend(
            handles, labels, loc="outside lower left", ncols=min(columns, len(labels))
        )


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
