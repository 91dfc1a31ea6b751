"""FDDB: ten ellipse lists, each a sequence of image name, number of faces and ellipses.

An ellipse row is `major_axis_radius minor_axis_radius angle center_x center_y 1`, the angle in
radians between the major axis and the x axis, everything else in pixels.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.annotation import AnnotatedImage, Face
from datasets.errors import DatasetError

LISTS = "*-ellipseList.txt"


def read(images: Path, annotations: Path, options: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Read the ellipse lists of a folder, or one list; every face has the raw class `face`.

    Raises DatasetError when there is no list or it cannot be read.
    """
    lists = sorted(annotations.glob(LISTS)) if annotations.is_dir() else [annotations]
    if not lists:
        raise DatasetError(f"{annotations} holds no file like {LISTS}")
    annotated = []
    for path in lists:
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise DatasetError(f"{path}: {error.strerror}") from error
        annotated += parse(text, path.name)
    return annotated


def parse(text: str, source: str) -> list[AnnotatedImage]:
    """Parse one ellipse list; `source` is the file's name for the reasons.

    After a fault, reading goes on with the next line that can be an image name.
    """
    lines = text.splitlines()
    annotated = []
    position = 0
    while position < len(lines):
        name = lines[position].strip()
        position += 1
        if not name:
            continue
        if _numbers(name):
            # A row more than announced: the image before it is not what the list says.
            if annotated and not annotated[-1].error:
                annotated[-1].error = f"{source} line {position}: more ellipses than announced"
            continue
        image = AnnotatedImage(name + ".jpg")
        annotated.append(image)
        announced = lines[position].strip() if position < len(lines) else ""
        if not announced.isdigit():
            image.error = f"{source} line {position + 1}: no number of faces"
            position += not _is_name(announced)
            continue
        position += 1
        rows = lines[position : position + int(announced)]
        for row in rows:
            if _is_name(row):
                break
            image.faces.append(_face(row, f"{source} line {position + 1}"))
            position += 1
        if len(image.faces) < int(announced):
            image.error = (
                f"{source} line {position + 1}: cut short,"
                f" {len(image.faces)} of {announced} ellipses"
            )
    return annotated


def ellipse_bounds(
    major: float, minor: float, angle: float, center_x: float, center_y: float
) -> tuple[float, float, float, float]:
    """Exact bounds x1, y1, x2, y2 of an ellipse; radii in pixels, angle in radians.

    The ellipse is the image of the unit circle under a rotation and two stretches, and the
    extent of such an image along an axis is the length of the matrix's row for that axis.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    half_width = math.hypot(major * cosine, minor * sine)
    half_height = math.hypot(major * sine, minor * cosine)
    return (
        center_x - half_width,
        center_y - half_height,
        center_x + half_width,
        center_y + half_height,
    )


def _numbers(line: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        return []


def _is_name(line: str) -> bool:
    return "/" in line and len(line.split()) == 1


def _face(row: str, where: str) -> Face:
    numbers = _numbers(row)
    if len(numbers) < 5 or not all(map(math.isfinite, numbers)):
        return Face("face", None, malformed=f"{where}: {row.strip()!r} is no ellipse")
    return Face("face", ellipse_bounds(*numbers[:5]))
