"""nvdsosd and nvmultistreamtiler: boxes and labels on frames, several streams in one picture."""

import cv2
import numpy as np

from deepstream.appconfig import Osd, PrimaryGie, Tiler
from deepstream.detector import Objects
from deepstream.inferconfig import InferConfig

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Height of a capital letter of the font at scale 1, in pixels.
_CAPITAL = 21.0
_DEFAULT_TEXT_SIZE = 15


def draw(
    image: np.ndarray, objects: Objects, config: InferConfig, gie: PrimaryGie, osd: Osd
) -> None:
    """Draw objects on an RGB image (h, w, 3) uint8, in place."""
    for class_id, box, confidence in zip(
        objects.class_ids, objects.boxes, objects.confidence, strict=True
    ):
        color = gie.border_colors.get(int(class_id), gie.border_color)
        left, top, right, bottom = (round(float(value)) for value in box)
        if osd.display_box:
            fill = gie.fill_colors.get(int(class_id))
            if fill is not None:
                _fill(image, (left, top, right, bottom), fill)
            if osd.border_width:
                cv2.rectangle(image, (left, top), (right, bottom), _rgb(color), osd.border_width)
        if osd.display_text:
            _label(image, left, top, f"{config.label(int(class_id))} {confidence:.2f}", osd)


def _rgb(color):
    return tuple(round(255 * part) for part in color[:3])


def _fill(image, box, color):
    """Blend a colour over a box with the colour's alpha."""
    left, top, right, bottom = (max(0, value) for value in box)
    area = image[top:bottom, left:right]
    if area.size:
        cover = np.empty_like(area)
        cover[:] = _rgb(color)
        area[:] = cv2.addWeighted(area, 1 - color[3], cover, color[3], 0)


def _label(image, left, top, text, osd):
    scale = (osd.text_size or _DEFAULT_TEXT_SIZE) / _CAPITAL
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    # Above the box, or inside it when there is no room.
    y = top - base - 1 if top - height - base - 1 >= 0 else top + height + 2
    x = max(0, min(left, image.shape[1] - width))
    if osd.text_background[3] > 0:
        _fill(image, (x, y - height - 1, x + width, y + base), osd.text_background)
    cv2.putText(image, text, (x, y), _FONT, scale, _rgb(osd.text_color), 1, cv2.LINE_AA)


class Mosaic:
    """Holds the newest picture of every stream and shows them in a grid."""

    def __init__(self, tiler: Tiler):
        self._tiler = tiler
        self._width = tiler.width // tiler.columns
        self._height = tiler.height // tiler.rows
        self._canvas = np.zeros((tiler.height, tiler.width, 3), np.uint8)

    def update(self, stream: int, image: np.ndarray) -> None:
        """Put a stream's picture in its cell; streams beyond the grid are not shown."""
        row, column = divmod(stream, self._tiler.columns)
        if row >= self._tiler.rows:
            return
        top, left = row * self._height, column * self._width
        self._canvas[top : top + self._height, left : left + self._width] = cv2.resize(
            image, (self._width, self._height), interpolation=cv2.INTER_AREA
        )

    @property
    def picture(self) -> np.ndarray:
        """The grid, RGB (height, width, 3) uint8."""
        return self._canvas
