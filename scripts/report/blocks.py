"""What a section of the page is made of; templates/page.html says how each block looks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from report.errors import NotThereYet


@dataclass(frozen=True)
class Figure:
    """A drawing, as an SVG element that the page holds inline."""

    name: str
    title: str
    caption: str
    svg: str
    kind: str = "figure"


@dataclass(frozen=True)
class Picture:
    """A photograph as a data URI; `width` and `height` in pixels keep its place while it loads."""

    title: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """Photographs beside each other, each at least `minimum_width` CSS pixels wide.

    `is_detailed`: on a phone they keep a readable size and scroll sideways.
    """

    title: str
    caption: str
    pictures: Sequence[Picture]
    minimum_width: int = 260
    is_detailed: bool = False
    kind: str = "gallery"


# Cells with longer texts break into several lines.
LONG_TEXT = 24
# Letters and gaps that fit into half the page.
HALF_PAGE = 72


@dataclass(frozen=True)
class Table:
    """Rows of cells. A column of numbers is set flush right; `marked` rows stand out.

    A text that the row above has in the same leading columns is shown once.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Sequence[int] = ()
    kind: str = "table"

    @property
    def is_wide(self) -> bool:
        """Whether the table needs the page's whole width."""
        columns = zip(self.columns, *self.rows, strict=True)
        return sum(min(max(map(len, column)), LONG_TEXT) + 3 for column in columns) > HALF_PAGE

    def is_long(self, cell: str) -> bool:
        """Whether a cell's text may break into several lines."""
        return len(cell) > LONG_TEXT

    @property
    def shown(self) -> list[list[str]]:
        """The rows without what repeats the row above."""
        rows: list[list[str]] = []
        for place, row in enumerate(self.rows):
            cells = list(row)
            for column, cell in enumerate(cells[:-1]):
                if self.numeric[column] or not place or self.rows[place - 1][column] != cell:
                    break
                cells[column] = ""
            rows.append(cells)
        return rows

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold nothing but numbers and dashes."""
        return [
            any(column) and all(not cell or cell[0] in "0123456789+−-.–" for cell in column)
            for column in zip(*self.rows, strict=True)
        ]


@dataclass(frozen=True)
class Listing:
    """Text that keeps its line breaks, folded away until the reader opens it."""

    title: str
    text: str
    kind: str = "listing"


@dataclass(frozen=True)
class Missing:
    """A part that is left out, and what makes it: a file, and how many `others` with it."""

    title: str
    path: str
    commands: Sequence[str]
    others: int = 0
    kind: str = "missing"


@dataclass(frozen=True)
class Note:
    """A part that has nothing to show, and why."""

    title: str
    text: str
    kind: str = "note"


Block = Figure | Gallery | Table | Listing | Missing | Note


@dataclass(frozen=True)
class Section:
    """A chapter of the page: `lead` is its finding in one or two sentences."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Fact:
    """One figure of the summary at the top."""

    label: str
    value: str
    detail: str
    tone: str = ""


def left_out(title: str, missing: NotThereYet, others: int = 0) -> Missing | Note:
    """What stands in the place of a part: how to make its file, or why that cannot be made.

    `others` is how many files are not there besides.
    """
    if missing.reason:
        return Note(title, missing.reason)
    return Missing(title, missing.path, (missing.target,), others)


def _told(block: Any) -> str | None:
    return getattr(block, "path", None) or getattr(block, "text", None)


def parts(*makers: tuple[str, Callable[[], Any]]) -> list[Block]:
    """The blocks that each maker returns, or what `left_out` says where a file is not there.

    A maker returns a block or several. What several makers miss is told once.
    """
    blocks: list[Block] = []
    for title, make in makers:
        try:
            made = make()
        except NotThereYet as missing:
            line = left_out(title, missing)
            if all(_told(block) != _told(line) for block in blocks):
                blocks.append(line)
            continue
        blocks += made if isinstance(made, Iterable) else [made]
    return blocks
