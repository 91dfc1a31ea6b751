"""What inference writes for a frame: the image with its boxes, and a KITTI label file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError
from detectnet_v2.kitti import detection_line
from detectnet_v2.postprocess import Detections, class_entry
from detectnet_v2.whole_file import whole_file, write_text

DEFAULT_COLOR = (0, 255, 0)


@dataclass(frozen=True)
class ClassStyle:
    """How a class is shown: its place among the network's classes, its name, its colour (RGB)."""

    index: int
    name: str
    color: tuple[int, int, int]


def class_styles(inference: spec_pb2.Inference) -> list[ClassStyle]:
    """Return the classes that are shown, in order: postproc_classes, or all of the network.

    A class with settings of its own is called by its output_map; one that takes those of "default"
    keeps its name. Classes that the network does not have are left out.
    """
    names = list(inference.inferencer_config.target_classes)
    config = inference.bbox_handler_config
    styles = []
    for name in config.postproc_classes or names:
        if name not in names:
            continue
        entry = class_entry(config, name)
        color = entry.bbox_color
        own = name in config.classwise_bbox_handler_config
        styles.append(
            ClassStyle(
                index=names.index(name),
                name=(entry.output_map or name) if own else name,
                color=(color.R, color.G, color.B)
                if entry.HasField("bbox_color")
                else DEFAULT_COLOR,
            )
        )
    return styles


def to_frame(
    boxes: np.ndarray, input_size: tuple[int, int], frame_size: tuple[int, int]
) -> np.ndarray:
    """Return boxes (n, 4) of the network's input, clipped to it, in pixels of the frame.

    Args:
        input_size, frame_size: width and height.
    """
    limits = np.array(input_size * 2, np.float64)
    clipped = np.clip(boxes, 0, limits)
    clipped[:, 2:] = np.maximum(clipped[:, 2:], clipped[:, :2])
    return clipped * (np.array(frame_size * 2) / limits)


def label_lines(found: Sequence[Detections], styles: Sequence[ClassStyle]) -> list[str]:
    """Return the lines of a KITTI file with a confidence as the 16th field."""
    return [
        detection_line(style.name, box, confidence)
        for style in styles
        for box, confidence in zip(*found[style.index], strict=True)
    ]


def draw(
    image: Image.Image, found: Sequence[Detections], styles: Sequence[ClassStyle], line_width: int
) -> None:
    """Draw the boxes, growing outwards by one pixel a line, and class and confidence."""
    canvas = ImageDraw.Draw(image)
    for style in styles:
        for box, confidence in zip(*found[style.index], strict=True):
            x1, y1, x2, y2 = (float(value) for value in box)
            for grown in range(max(line_width, 1)):
                corners = (x1 - grown, y1 - grown, x2 + grown, y2 + grown)
                canvas.rectangle(corners, outline=style.color)
            canvas.text((x1, y1), f"{style.name}:{confidence:.3f}")


def check_formats(paths: Sequence[Path]) -> None:
    """Raise a DetectNetError when an image has a format that Pillow reads and does not write."""
    for path in paths:
        if _format_of(path) not in Image.SAVE:
            raise DetectNetError(
                f"{path}: an overlay cannot be written as {path.suffix}: convert the image to "
                ".png, or set bbox_handler_config.disable_overlay to true"
            )


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its suffix, whole or not at all.

    Raises:
        DetectNetError: it cannot be written.
    """
    with whole_file(path) as part:
        try:
            image.save(part, format=_format_of(path))
        except ValueError as error:
            raise DetectNetError(f"cannot write {path}: {error}") from error


def _format_of(path: Path) -> str:
    return Image.registered_extensions()[path.suffix.lower()]


def write_labels(path: Path, found: Sequence[Detections], styles: Sequence[ClassStyle]) -> None:
    """Write the label file of a frame; it is empty when nothing was found."""
    write_text(path, "".join(f"{line}\n" for line in label_lines(found, styles)))
