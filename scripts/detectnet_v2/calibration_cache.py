"""TensorRT's INT8 calibration cache: a header, then a line `tensor: hex` for each scale.

The hexadecimal number is the IEEE 754 float32 of amax / 127, the real value of one INT8 step.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from detectnet_v2.errors import DetectNetError
from detectnet_v2.whole_file import write_text

ALGORITHM = "EntropyCalibration2"
"""What nvinfer's calibrator calls itself; TensorRT skips a cache with another name."""

_HEADER = re.compile(r"TRT-(\d+)-(\w+)")
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)?")


@dataclass(frozen=True)
class CalibrationCache:
    """TensorRT's version number as in the header, the algorithm, and the scale of each tensor."""

    version: int
    algorithm: str
    scales: dict[str, float]


def version_number(version: str) -> int:
    """The number that a TensorRT version has in a cache's header: 8.2.1 is 8201, 10.3.0 is 100300.

    Raises:
        DetectNetError: when it is not a version.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        raise DetectNetError(f"--trt_version {version}: give it as 8.2.1")
    major, minor, patch = (int(part or 0) for part in found.groups())
    # NvInferVersion.h leaves two digits for the minor version since TensorRT 10.
    return major * (10_000 if major >= 10 else 1000) + minor * 100 + patch


def write_cache(path: Path, scales: Mapping[str, float], version: str) -> None:
    """Write a cache; it appears whole or not at all.

    Args:
        path: the file to write or replace.
        scales: amax / 127 by tensor name.
        version: TensorRT's, as `8.2.1`.

    Raises:
        DetectNetError: for a version or scale that cannot be, or when writing fails.
    """
    lines = [f"TRT-{version_number(version)}-{ALGORITHM}"]
    for name, scale in scales.items():
        if not (np.isfinite(np.float32(scale)) and np.float32(scale) > 0):
            raise DetectNetError(f"the scale of {name} is {scale}: it must be positive and finite")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    write_text(path, "\n".join(lines) + "\n")


def read_cache(path: Path) -> CalibrationCache:
    """Read a cache.

    Raises:
        DetectNetError: when the file is missing, its header is not TensorRT's, or a line is not a
            positive, finite scale.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DetectNetError(
            f"cannot read the calibration cache {path} ({error}): make one with calibrate"
        ) from error
    header = _HEADER.fullmatch(lines[0].strip()) if lines else None
    if header is None:
        raise DetectNetError(
            f"{path}:1: {lines[0][:40] if lines else 'empty'!r} is not the header of a calibration "
            f"cache, such as TRT-8201-{ALGORITHM}"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        # Names of TensorRT's own layers have colons and spaces too.
        name, _, digits = line.rpartition(": ")
        scale = _scale(digits)
        if not name or scale is None:
            raise DetectNetError(
                f"{path}:{number}: {line[:60]!r} is not 'tensor: hex' with a positive, finite scale"
            )
        scales[name] = scale
    return CalibrationCache(int(header[1]), header[2], scales)


def check_coverage(cache: CalibrationCache, tensors: Sequence[str], place: str) -> None:
    """Raise a DetectNetError when a tensor has no scale; TensorRT would run it in full precision.

    Args:
        cache: the cache.
        tensors: names that a network has, see `activation_tensors`.
        place: names the cache in the message.
    """
    missing = [name for name in tensors if name not in cache.scales]
    if missing:
        raise DetectNetError(
            f"{place} lacks {len(missing)} of {len(tensors)} tensors (first: {missing[0]}): it was "
            "made for another network; calibrate this ONNX file"
        )


def activation_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the inputs and of all values that the nodes compute, in the order of the graph."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    return inputs + [name for node in model.graph.node for name in node.output]


def _scale(digits: str) -> float | None:
    """The positive, finite float32 with these bits, or None."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,8}", digits.strip()):
        return None
    (scale,) = struct.unpack(">f", int(digits, 16).to_bytes(4, "big"))
    return scale if np.isfinite(scale) and scale > 0 else None
