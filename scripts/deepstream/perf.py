"""deepstream-app's **PERF lines: frames are counted here and written out as NVIDIA does."""

import threading
import time

# The header comes back before value line 1, 21, 41, ...
_HEADER_EVERY = 20


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
