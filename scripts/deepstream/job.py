"""What this package's rule scripts do around their work: a log, one-line errors, whole files."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectnet_v2.errors import DetectNetError
from etlt.errors import EtltError

from deepstream.errors import DeepStreamError


@contextmanager
def reported(log_file: str | Path | None) -> Iterator[logging.Logger]:
    """Log to stderr and to a file; a user's error ends the script with one line and exit 1."""
    log = logging.getLogger("deepstream")
    loggers = (log, logging.getLogger("detectnet_v2"))
    screen = logging.StreamHandler()
    handlers: list[logging.Handler] = [screen]
    if log_file:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, mode="w", encoding="utf-8"))
    for logger in loggers:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield log
    except (DeepStreamError, DetectNetError, EtltError, OSError) as error:
        # sys.exit prints the line on the screen.
        log.removeHandler(screen)
        log.error("error: %s", error)
        sys.exit(f"error: {error}")
    finally:
        for logger in loggers:
            for handler in handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            handler.close()


def single(files: str | Sequence[str] | None) -> str | None:
    """Return the file of a Snakemake input that is one path, a list of one, or a list of none.

    An input function that returns a list makes a list of the input, whatever its length.
    """
    if files is None or isinstance(files, str):
        return files
    return files[0] if files else None


def write_json(content: dict[str, Any], path: str | Path) -> None:
    """Write a JSON file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
