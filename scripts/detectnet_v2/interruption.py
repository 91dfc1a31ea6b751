"""Signals that ask a long task to stop at a moment when it can save its state."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_REQUEST_SECONDS = 2.0
"""Signals this soon after the first say the same: a terminal and a launcher may both send one."""


class Stop:
    """Whether a signal has asked the task to stop."""

    requested = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn a first SIGINT or SIGTERM into a request; a later one has its usual effect."""
    stop = Stop()
    before = {}
    first = 0.0

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not stop.requested:
            stop.requested = True
            first = time.monotonic()
        elif time.monotonic() - first > SAME_REQUEST_SECONDS:
            restore()
            signal.raise_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
