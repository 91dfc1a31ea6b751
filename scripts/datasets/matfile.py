"""MATLAB files, opened with errors that say what a wrong file holds."""

from pathlib import Path
from typing import Any

import scipy.io
from scipy.io.matlab import MatReadError

from datasets.errors import DatasetError


def load(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB 5 file; raises DatasetError for anything else."""
    if not path.is_file():
        raise DatasetError(f"{path} is no file; the annotations of this layout are one .mat file")
    try:
        # Other exceptions come out of scipy's binary parser on damaged files: its own classes,
        # zlib's, and whatever wrong sizes lead to.
        return scipy.io.loadmat(path)
    except NotImplementedError as error:
        raise DatasetError(f"{path} is a MATLAB 7.3 file; save it again with `save -v7`") from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except (MatReadError, ValueError, TypeError, KeyError, IndexError, EOFError) as error:
        raise DatasetError(f"{path} is damaged or no MATLAB file: {error}") from error


def variables(contents: dict[str, Any]) -> str:
    """The names of the variables in a file, for a message."""
    return ", ".join(sorted(key for key in contents if not key.startswith("__"))) or "nothing"
