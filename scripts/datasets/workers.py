"""Worker processes that start at once and never outlive their parent."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")
PARENT_CHECK_S = 1.0


@contextmanager
def mapped(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int, chunk: int = 16
) -> Iterator[Iterator[Result]]:
    """Results of `function` for `items`, in any order, as they come.

    With one process, or few items, the work is done here.
    """
    cv2.setNumThreads(1)
    if processes <= 1 or len(items) <= chunk:
        yield map(function, items)
        return
    # A forked worker has everything imported; where there is no fork, it starts slower.
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    with context.Pool(processes, _initialise, (os.getpid(),)) as pool:
        yield pool.imap_unordered(function, items, chunksize=chunk)


def _initialise(parent: int) -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A worker waits for its next task on a pipe that it holds open itself, so it would wait
    # for ever after its parent was killed.
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)
