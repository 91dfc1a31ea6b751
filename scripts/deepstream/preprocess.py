"""nvinfer's preprocessing: a surface in, a planar float tensor of the network's size out."""

import cv2
import numpy as np

from deepstream.errors import DeepStreamError
from deepstream.inferconfig import InferConfig
from deepstream.surface import Surface

RGB, BGR, GRAY = range(3)


class Preprocessor:
    """Scales, converts and normalises surfaces for one network: y = scale * (x - offset).

    `dims` is the network's (channels, height, width).
    """

    def __init__(self, config: InferConfig, dims: tuple[int, int, int]):
        self.channels, self.height, self.width = dims
        self._scale = np.float32(config.scale_factor)
        self._color = config.color_format
        self._keep_aspect = config.maintain_aspect_ratio
        self._symmetric = config.symmetric_padding
        expected = 1 if self._color == GRAY else 3
        if self.channels != expected:
            raise DeepStreamError(
                f"{config.path}: model-color-format={self._color} gives {expected} channels, "
                f"the network takes {self.channels}"
            )
        offsets = config.offsets or (0.0,) * self.channels
        if len(offsets) != self.channels:
            raise DeepStreamError(
                f"{config.path}: offsets has {len(offsets)} values for {self.channels} channels"
            )
        self._offsets = [np.float32(offset) for offset in offsets]

    def placement(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return (scale x, scale y, left, top) that map a surface's pixels to the network's."""
        if not self._keep_aspect:
            return self.width / width, self.height / height, 0.0, 0.0
        inner_width, inner_height = self._inner(width, height)
        left, top = self._margin(inner_width, inner_height)
        return inner_width / width, inner_height / height, float(left), float(top)

    def fill(self, surface: Surface, tensor: np.ndarray) -> None:
        """Write one surface into `tensor` (channels, height, width) float32."""
        image = self._image(surface)
        if self._color == GRAY:
            planes = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),)
        else:
            planes = cv2.split(image)
            if self._color == BGR:
                planes = planes[::-1]
        for plane, offset, target in zip(planes, self._offsets, tensor, strict=True):
            if offset:
                np.subtract(plane, offset, out=target, dtype=np.float32)
                np.multiply(target, self._scale, out=target)
            else:
                np.multiply(plane, self._scale, out=target, dtype=np.float32)

    def _image(self, surface):
        if not self._keep_aspect:
            return surface.resized(self.width, self.height).to_rgb()
        inner_width, inner_height = self._inner(surface.width, surface.height)
        left, top = self._margin(inner_width, inner_height)
        image = np.zeros((self.height, self.width, 3), np.uint8)
        inner = surface.resized(inner_width, inner_height).to_rgb()
        image[top : top + inner_height, left : left + inner_width] = inner
        return image

    def _inner(self, width, height):
        """Size of the picture inside the network's input, even because of the chroma planes."""
        ratio = min(self.width / width, self.height / height)
        return (
            max(2, min(self.width, round(width * ratio)) // 2 * 2),
            max(2, min(self.height, round(height * ratio)) // 2 * 2),
        )

    def _margin(self, inner_width, inner_height):
        if not self._symmetric:
            return 0, 0
        return (self.width - inner_width) // 2, (self.height - inner_height) // 2
