"""What the rule scripts of devices do around their work: a log, and errors as lines."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deepstream.errors import DeepStreamError
from tqdm.contrib.logging import logging_redirect_tqdm

from jetson.errors import JetsonError


@contextmanager
def reported(log_files: Iterable[str]) -> Iterator[None]:
    """Log to stderr and to files; a user's error is logged and ends the script with exit 1."""
    log = logging.getLogger("jetson")
    log.setLevel(logging.INFO)
    handlers = [logging.StreamHandler(), *(logging.FileHandler(path) for path in log_files)]
    for handler in handlers:
        log.addHandler(handler)
    try:
        with logging_redirect_tqdm([log]):
            yield
    except (JetsonError, DeepStreamError) as error:
        log.error("%s", error)
        sys.exit(1)
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
