"""Progress of long work: a bar on a terminal, a line every so often in a log."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


def draws_bars() -> bool:
    """Whether stderr is a terminal, and TQDM_DISABLE does not ask for lines there too."""
    return sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE")


def progress(items: Iterable[T], total: int, what: str, logger: logging.Logger) -> Iterator[T]:
    """Yield the items; show how many of `total` are done; 0 for a number that is not known.

    Args:
        what: the items' name in the plural, e.g. "images".
        logger: gets the lines when stderr is no terminal.
    """
    if draws_bars():
        yield from tqdm(items, total=total or None, unit=what)
        return
    started = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown < SECONDS_BETWEEN_LINES or done == total:
            continue
        shown = now
        rate = done / (now - started)
        if total:
            left = (total - done) / rate
            logger.info("%d of %d %s, %.1f a second, %.0f s left", done, total, what, rate, left)
        else:
            logger.info("%d %s, %.1f a second", done, what, rate)
