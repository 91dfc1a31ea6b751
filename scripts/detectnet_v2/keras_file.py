"""Reading of Keras HDF5 files: every weight by layer and name, as TAO's variants name them."""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from detectnet_v2.errors import DetectNetError
from detectnet_v2.keras_config import StoredGraph, read_config

CLASS_NAMES = "class_names"
"""Root attribute of this toolkit's files: the classes in channel order."""

_LFS = b"version https://git-lfs"
_ENCRYPTED = {".tlt", ".etlt"}


@dataclass(frozen=True)
class Stored:
    """The content of a model file.

    `weights[layer][name]` are float32 arrays with Keras's names, kernels in HWIO order; `config`
    is the text of `model_config`, if there is one.
    """

    weights: dict[str, dict[str, np.ndarray]]
    config: str | None
    class_names: tuple[str, ...] | None


def read_keras_file(path: Path) -> Stored:
    """Read all weights of a file.

    Raises:
        DetectNetError: when it is missing, damaged, or no Keras HDF5.
    """
    if not path.is_file():
        raise DetectNetError(f"no model file at {path}: train first, or correct the path")
    if not h5py.is_hdf5(path):
        remedy = (
            "it is encrypted; convert it to .hdf5 with TAO 5 and its key"
            if path.suffix in _ENCRYPTED
            else "give a model written by this toolkit or by TAO 5"
        )
        if _is_lfs_pointer(path):
            remedy = "it is a Git LFS pointer; fetch the file itself with: git lfs pull"
        raise DetectNetError(f"{path} is not a Keras HDF5 file: {remedy}")
    try:
        with h5py.File(path, "r") as file:
            return _read_content(file, path)
    except (OSError, KeyError, RuntimeError) as error:
        raise DetectNetError(
            f"{path} is damaged or incomplete ({_first_line(error)}): copy or train it again"
        ) from error
    except (TypeError, ValueError, IndexError) as error:
        raise DetectNetError(
            f"{path} is HDF5 but not laid out as Keras lays it out ({_first_line(error)}): give a "
            "model written by this toolkit or by TAO 5"
        ) from error


def _is_lfs_pointer(path: Path) -> bool:
    """Whether git left a text about the file in its place."""
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def _read_content(file: h5py.File, path: Path) -> Stored:
    root = file.get("model_weights", file)
    if "layer_names" not in root.attrs:
        raise DetectNetError(
            f"{path} is HDF5 but holds no Keras weights (no layer_names): give a model written by "
            "this toolkit or by TAO 5"
        )
    weights: dict[str, dict[str, np.ndarray]] = {}
    for group_name in _names(root.attrs["layer_names"]):
        group = root[group_name]
        stored = _names(group.attrs["weight_names"])
        kinds = [_weight_kind(name) for name in stored]
        # A nested model keeps all its layers in one group; then the weight's own path names them.
        nested = len(set(kinds)) < len(kinds)
        for name, kind in zip(stored, kinds, strict=True):
            layer = name.split("/")[-2] if nested else group_name
            weights.setdefault(layer, {})[kind] = np.asarray(group[name], dtype=np.float32)
    config = file.attrs.get("model_config")
    class_names = file.attrs.get(CLASS_NAMES)
    return Stored(
        weights,
        None if config is None else _text(config),
        None if class_names is None else tuple(_names(class_names)),
    )


def stored_graph(stored: Stored, path: Path) -> StoredGraph | None:
    """What the file's `model_config` says, None without one.

    Raises:
        DetectNetError: when it is not the graph of a DetectNet_v2.
    """
    if stored.config is None:
        return None
    try:
        config = json.loads(stored.config)
    except ValueError as error:
        raise DetectNetError(f"{path}: model_config is not JSON ({error})") from error
    return read_config(config, str(path))


def _names(attribute: np.ndarray) -> list[str]:
    return [_text(name) for name in attribute]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _weight_kind(name: str) -> str:
    return name.rsplit("/", 1)[-1].split(":", 1)[0]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
