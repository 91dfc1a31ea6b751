"""nvstreammux: frames of several sources in, batches in a fixed order out."""

import threading
import time
from queue import Empty

from deepstream.sources import Frame, SourceReader, take


class Muxer:
    """Forms batches round robin over the sources; `next_batch` may be called from many threads.

    A batch is pushed when it is full, when `timeout_us` has passed since its first frame (never
    for -1), or when the sources have ended.
    """

    def __init__(
        self,
        readers: list[SourceReader],
        *,
        batch_size: int,
        timeout_us: int,
        stop: threading.Event,
    ):
        self._active = list(readers)
        self._batch_size = batch_size
        self._timeout_s = timeout_us / 1e6 if timeout_us >= 0 else None
        self._stop = stop
        self._lock = threading.Lock()
        self._turn = 0
        self._number = 0
        self._running = threading.Event()
        self._running.set()

    def pause(self) -> None:
        """Hold back further batches; the sources' queues fill up and wait."""
        self._running.clear()

    def resume(self) -> None:
        """Let batches through again."""
        self._running.set()

    def next_batch(self) -> tuple[int, list[Frame]] | None:
        """Return (running number, frames), None when all sources have ended or on a stop."""
        with self._lock:
            while not self._running.wait(0.1):
                if self._stop.is_set():
                    return None
            batch = self._collect()
            if not batch:
                return None
            number = self._number
            self._number += 1
            return number, batch

    def _collect(self):
        batch: list[Frame] = []
        deadline = None
        while self._active and len(batch) < self._batch_size and not self._stop.is_set():
            self._turn %= len(self._active)
            reader = self._active[self._turn]
            try:
                frame = take(reader, self._stop, deadline)
            except Empty:
                break
            if frame is None:
                self._active.pop(self._turn)
                continue
            batch.append(frame)
            self._turn += 1
            if self._timeout_s is not None and deadline is None:
                deadline = time.monotonic() + self._timeout_s
        return batch
