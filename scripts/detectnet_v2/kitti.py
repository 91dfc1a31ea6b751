"""KITTI label and calibration files.

A label line has 15 fields: class, truncation, occlusion, observation angle, x1 y1 x2 y2 in pixels,
height width length and x y z in metres, rotation. A detection has a confidence as its 16th.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detectnet_v2.errors import DetectNetError

FIELDS = 15


class Label(NamedTuple):
    """An object of a label file."""

    line: int
    """Number of the line, from 1; blank lines count."""
    index: int
    """Place among the lines that are not blank, from 0."""
    name: str
    values: list[float]
    """The 14 numbers after the class."""

    @property
    def box(self) -> list[float]:
        """x1 y1 x2 y2 in pixels."""
        return self.values[3:7]


def read_labels(path: Path) -> list[Label]:
    """Return the objects of a label file; an empty file has none.

    Raises:
        DetectNetError: the file is missing, or a line is no KITTI label.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DetectNetError(
            f"{path}: label file is missing: each image needs one, empty if it shows no object"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DetectNetError(f"{path}: label file cannot be read: {error}") from error
    labels = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != FIELDS:
            raise DetectNetError(
                f"{path}:{number}: {len(fields)} fields, a KITTI label has {FIELDS}"
            )
        try:
            values = [float(field) for field in fields[1:]]
            int(values[1])
            [int(value) for value in values[3:7]]
        except (ValueError, OverflowError) as error:
            raise DetectNetError(f"{path}:{number}: no KITTI label: {error}") from error
        labels.append(Label(number, len(labels), fields[0], values))
    return labels


def detection_line(name: str, box: Sequence[float], confidence: float) -> str:
    """Return the line of a detection as NVIDIA's inference writes it, without its end."""
    corners = " ".join(f"{value:.3f}" for value in box)
    return f"{name} 0.00 0 0.00 {corners}{' 0.00' * 7} {confidence:.3f}"


def read_calibration(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices of a KITTI calibration file.

    Returns:
        float32 (4, 4) from lidar to camera, R0_rect * Tr_velo_to_cam, and float32 (3, 4) from lidar
        to the left colour image, P2 times the former.

    Raises:
        DetectNetError: the file is missing or lacks one of the three matrices.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DetectNetError(f"{path}: calibration cannot be read: {error}") from error
    rows = dict(line.partition(":")[::2] for line in lines if ":" in line)
    projection = _matrix(path, rows, "P2", (3, 4))
    rotation = np.eye(4)
    rotation[:3, :3] = _matrix(path, rows, "R0_rect", (3, 3))
    motion = np.eye(4)
    motion[:3] = _matrix(path, rows, "Tr_velo_to_cam", (3, 4))
    to_camera = rotation @ motion
    return to_camera.astype(np.float32), (projection @ to_camera).astype(np.float32)


def _matrix(path: Path, rows: dict[str, str], name: str, shape: tuple[int, int]) -> np.ndarray:
    try:
        return np.array(rows[name].split(), np.float32).reshape(shape)
    except KeyError:
        raise DetectNetError(f"{path}: calibration has no {name}") from None
    except ValueError:
        raise DetectNetError(f"{path}: {name} is no {shape[0]} x {shape[1]} matrix") from None
