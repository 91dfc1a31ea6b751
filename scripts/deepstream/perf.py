"""deepstream-app's **PERF lines: counting frames, writing the lines and reading them back."""

import re
import statistics
import threading
import time
from collections.abc import Iterable

# The header comes back before value line 1, 21, 41, ...
_HEADER_EVERY = 20

_VALUE = re.compile(r"^(?:\*\*PERF|PERF\(\d+\)):\s+((?:\d+\.\d+ \(\d+\.\d+\)\s*)+)$")
_PAIR = re.compile(r"(\d+\.\d+) \((\d+\.\d+)\)")


class PerfMeter:
    """Frames per second of each stream, as of the last sample and since the first frame."""

    def __init__(self, streams: int, *, instance: int | None = None):
        """Count `streams` streams; `instance` is the pipeline's number when several run at once."""
        self._lock = threading.Lock()
        self._frames = [0] * streams
        self._sampled = [0] * streams
        self._first: float | None = None
        self._last = time.monotonic()
        self._lines = 0
        self._prefix = "**PERF:  " if instance is None else f"PERF({instance}):  "

    @property
    def frames(self) -> list[int]:
        """Frames so far, one number a stream."""
        with self._lock:
            return list(self._frames)

    def count(self, stream: int) -> None:
        """Count one frame that has reached the sinks."""
        with self._lock:
            if self._first is None:
                self._first = time.monotonic()
            self._frames[stream] += 1

    def sample(self) -> str:
        """Return the text for this moment: a value line, with the header when it is due."""
        with self._lock:
            now = time.monotonic()
            span, since = now - self._last, now - (self._first or now)
            pairs = [
                (_rate(total - before, span), _rate(total, since))
                for total, before in zip(self._frames, self._sampled, strict=True)
            ]
            self._sampled = list(self._frames)
            self._last = now
        values = "".join(f"{current:.2f} ({average:.2f})\t" for current, average in pairs)
        text = f"{self._prefix}{values}"
        if self._lines % _HEADER_EVERY == 0:
            names = "".join(f"FPS {index} (Avg)\t" for index in range(len(pairs)))
            text = f"\n**PERF:  {names}\n{text}"
        self._lines += 1
        return text


def _rate(frames, seconds):
    return frames / seconds if seconds > 0 else 0.0


def parse_lines(lines: Iterable[str]) -> list[list[float]]:
    """Read the current figures of every value line: [sample][stream] in frames per second."""
    samples = []
    for line in lines:
        match = _VALUE.match(line.strip("\n"))
        if match:
            samples.append([float(now) for now, _ in _PAIR.findall(match.group(1))])
    return samples


def steady_rates(samples: list[list[float]], *, warm_up: int = 1) -> list[float]:
    """Median frames per second of each stream, leading zeros and `warm_up` samples left out.

    With too few samples for that all that are not zero count. Returns [] when nothing ran.
    """
    running = [sample for sample in samples if sum(sample) > 0]
    steady = running[warm_up:] or running
    return [statistics.median(stream) for stream in zip(*steady, strict=True)]
