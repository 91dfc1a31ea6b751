"""The figures that deepstream-app prints: PERF lines in, frames per second out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# `**PERF:  25.00 (24.98)<tab>` with one config, `PERF(0): 25.00 (24.98)<tab>` with several; the
# header `**PERF:  FPS 0 (Avg)<tab>` has no figures. For each stream: of the interval (average).
_LINE = re.compile(r"PERF(?:\((?P<instance>\d+)\))?:\s*(?P<figures>.*)")
_FIGURE = re.compile(r"(-?\d+(?:\.\d+)?|-?nan|-?inf)\s*\((-?\d+(?:\.\d+)?|-?nan|-?inf)\)", re.I)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Sample:
    """One line of figures: frames per second of each stream, in the interval and on average."""

    instance: int
    now: tuple[float, ...]
    average: tuple[float, ...]


@dataclass(frozen=True)
class Throughput:
    """Frames per second over a measurement: medians, and the range of the total."""

    per_stream: tuple[float, ...]
    total: float
    lowest: float
    highest: float
    samples: int


def parse(text: str) -> list[Sample]:
    """Read all lines of figures from a log; every other line is passed over.

    A last line without its end is left out, it may be cut short.
    """
    whole = text[: text.rfind("\n") + 1]
    samples = []
    for line in whole.splitlines():
        found = _LINE.search(_COLOUR.sub("", line))
        figures = _FIGURE.findall(found["figures"]) if found else []
        if figures:
            now, average = zip(*((_number(a), _number(b)) for a, b in figures), strict=True)
            samples.append(Sample(int(found["instance"] or 0), now, average))
    return samples


def _number(text: str) -> float:
    """Return the figure; before the first frame some versions print nan or inf, which is none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0


def throughput(samples: Sequence[Sample]) -> Throughput | None:
    """Summarise samples taken after the warm-up; None when no frame was counted.

    The figure of the interval counts, since the average includes the slow start. Lines of nothing
    but zeros are no measurement. Instances (several configs in one run) are added up.
    """
    streams: list[float] = []
    totals: list[list[float]] = []
    for instance in sorted({sample.instance for sample in samples}):
        lines = [s.now for s in samples if s.instance == instance and any(s.now)]
        width = max(map(len, lines), default=0)
        # A line with fewer streams than the others was cut or mixed up with another message.
        lines = [line for line in lines if len(line) == width]
        if lines:
            streams += [median(column) for column in zip(*lines, strict=True)]
            totals.append([sum(line) for line in lines])
    if not totals:
        return None
    return Throughput(
        per_stream=tuple(round(stream, 2) for stream in streams),
        total=round(sum(median(one) for one in totals), 2),
        lowest=round(sum(min(one) for one in totals), 2),
        highest=round(sum(max(one) for one in totals), 2),
        samples=min(map(len, totals)),
    )


def window(log: bytes, start: int, end: int) -> str:
    """Return the whole lines that were written between two sizes of a log file, in bytes."""
    if start > 0 and log[start - 1 : start] != b"\n":
        newline = log.find(b"\n", start)
        start = end if newline < 0 else newline + 1
    return log[start:end].decode(errors="replace")
