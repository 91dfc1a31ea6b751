"""Random spatial and colour augmentation of training images, as NVIDIA's DetectNet_v2 draws it.

Every operation is a matrix. The spatial ones multiply to one 3 x 3 matrix and the colour ones to
one 4 x 3 matrix, so an image is warped once and recoloured once. Points and pixels are row vectors:
``[x y 1] @ spatial`` takes a point of the output to the input, ``[r g b 1] @ color`` takes a pixel
to its new colour. A later operation is multiplied from the left.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError

OUTSIDE = 0.5
"""Colour of what a warp shows from beyond the canvas."""

_GREY = (round(OUTSIDE * 255),) * 3
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# Rotation of the hue about the grey axis, rows are input channels: the part that stays, and the
# parts that go with the cosine and the sine of the angle.
_HUE_CONSTANT = np.repeat(_LUMINANCE[:, None], 3, axis=1)
_HUE_COSINE = np.array([[0.701, -0.299, -0.299], [-0.587, 0.413, -0.587], [-0.114, -0.114, 0.886]])
_HUE_SINE = np.array([[0.168, -0.328, 1.25], [0.330, 0.035, -1.05], [-0.497, 0.292, -0.203]])


def translation(x: float, y: float) -> np.ndarray:
    """Matrix that adds (x, y) pixels."""
    return np.array([[1, 0, 0], [0, 1, 0], [x, y, 1]], dtype=np.float64)


def scaling(x: float, y: float) -> np.ndarray:
    """Matrix that multiplies by (x, y)."""
    return np.diag([x, y, 1.0])


def horizontal_flip(width: float) -> np.ndarray:
    """Matrix that mirrors an image ``width`` pixels wide."""
    return np.array([[-1, 0, 0], [0, 1, 0], [width, 0, 1]], dtype=np.float64)


def zoom(ratio: float, x: float, y: float) -> np.ndarray:
    """Matrix that shrinks the content by ``ratio`` and puts its corner at (x, y) of the output."""
    return translation(-x, -y) @ scaling(ratio, ratio)


def rotation(degrees: float, width: float, height: float) -> np.ndarray:
    """Matrix that rotates about the centre of an image."""
    angle = math.radians(degrees)
    turn = np.array(
        [
            [math.cos(angle), math.sin(angle), 0],
            [-math.sin(angle), math.cos(angle), 0],
            [0, 0, 1],
        ]
    )
    return translation(-width / 2, -height / 2) @ turn @ translation(width / 2, height / 2)


def brightness(offset: float) -> np.ndarray:
    """Colour matrix (4, 4) that adds ``offset`` (1 is the whole range) to every channel."""
    matrix = np.eye(4)
    matrix[3, :3] = offset
    return matrix


def hue_saturation(degrees: float, saturation: float) -> np.ndarray:
    """Colour matrix (4, 4) that turns the hue and multiplies the saturation."""
    angle = math.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] = _HUE_CONSTANT + saturation * (
        math.cos(angle) * _HUE_COSINE + math.sin(angle) * _HUE_SINE
    )
    return matrix


def contrast(change: float, center: float) -> np.ndarray:
    """Colour matrix (4, 4) that multiplies distances from ``center`` by 1 + ``change``."""
    matrix = np.diag([1 + change, 1 + change, 1 + change, 1.0])
    matrix[3, :3] = -change * center
    return matrix


def truncated_normal(rng: np.random.Generator, deviation: float) -> float:
    """A normal value with mean 0 that is drawn again beyond two standard deviations."""
    while True:
        value = rng.standard_normal()
        if abs(value) <= 2:
            return float(value) * deviation


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one image.

    ``spatial`` (3, 3) takes output pixels to input pixels, ``color`` (4, 3) acts on values in
    0..1; ``blur`` and ``noise`` are standard deviations, in pixels and of a range of 1.
    """

    spatial: np.ndarray
    color: np.ndarray
    blur: float = 0.0
    noise: float = 0.0


class Augmenter:
    """Draws and applies the operations of ``augmentation_config`` and ``native.augmentation``.

    ``canvas`` is the width and height that images are padded to with black before anything else;
    ``width`` and ``height`` are those of the network's input.
    """

    def __init__(
        self,
        config: spec_pb2.AugmentationConfig,
        native: spec_pb2.NativeConfig.Augmentation | None = None,
        *,
        canvas: tuple[int, int],
    ) -> None:
        self.width = config.preprocessing.output_image_width
        self.height = config.preprocessing.output_image_height
        self._canvas = max(canvas[0], self.width), max(canvas[1], self.height)
        self._spatial = config.spatial_augmentation
        self._color = config.color_augmentation
        self._native = native or spec_pb2.NativeConfig.Augmentation()
        self._base = self._preprocessing(config.preprocessing)
        self._check_ranges()

    @property
    def mosaic_probability(self) -> float:
        """How often four images share one canvas."""
        return self._native.mosaic_probability

    def unchanged(self) -> Drawn:
        """What validation applies: scale and crop of the preprocessing, no chance."""
        return Drawn(self._base, np.eye(4)[:, :3])

    def draw(self, rng: np.random.Generator, size: tuple[int, int] | None = None) -> Drawn:
        """Draw all operations for one image; how much ``rng`` is used depends on the settings.

        With ``size``, width and height, the whole output is scaled to that size: the same is drawn,
        and a blur is as wide in the image.
        """
        width, height = size or (self.width, self.height)
        shrink = scaling(self.width / width, self.height / height)
        return Drawn(
            spatial=shrink @ self._draw_spatial(rng),
            color=self._draw_color(rng),
            blur=(
                rng.uniform(0, self._native.blur_sigma_max) * (width / self.width)
                if rng.random() < self._native.blur_probability
                else 0.0
            ),
            noise=rng.uniform(0, self._native.noise_stddev_max),
        )

    def warp(self, image: np.ndarray, drawn: Drawn, out: np.ndarray | None = None) -> np.ndarray:
        """Apply ``drawn.spatial`` to ``image`` (h, w, 3) uint8: (height, width, 3) uint8.

        Samples lie at pixel centres and are interpolated linearly; beyond the canvas all is grey.
        With ``out``, an array of another size may be filled: the upper left part of the output.
        """
        if out is None:
            out = np.empty((self.height, self.width, 3), dtype=np.uint8)
        image = self._on_canvas(image)
        if np.array_equal(drawn.spatial, np.eye(3)):
            np.copyto(out, image[: out.shape[0], : out.shape[1]])
            return out
        centred = translation(0.5, 0.5) @ drawn.spatial @ translation(-0.5, -0.5)
        cv2.warpAffine(
            image,
            centred.T[:2],
            (out.shape[1], out.shape[0]),
            dst=out,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=_GREY,
        )
        return out

    def recolor(self, image: np.ndarray, drawn: Drawn, rng: np.random.Generator) -> None:
        """Apply colours, blur and noise of ``drawn`` to ``image`` (h, w, 3) uint8 in place."""
        if not np.array_equal(drawn.color, np.eye(4)[:, :3]):
            matrix = drawn.color.T.copy()
            matrix[:, 3] *= 255
            cv2.transform(image, matrix, dst=image)
        if drawn.blur > 0:
            cv2.GaussianBlur(image, (0, 0), drawn.blur, dst=image)
        if drawn.noise > 0:
            noise = rng.standard_normal(image.shape, dtype=np.float32) * (255 * drawn.noise)
            cv2.add(image, noise, dst=image, dtype=cv2.CV_8U)

    def _check_ranges(self) -> None:
        spatial, native = self._spatial, self._native
        for place, name, low, high, used in (
            (
                "augmentation_config.spatial_augmentation",
                "zoom",
                spatial.zoom_min,
                spatial.zoom_max,
                spatial.zoom_min > 0 or spatial.zoom_max > 0,
            ),
            (
                "native.augmentation",
                "scale",
                native.scale_min,
                native.scale_max,
                native.scale_probability > 0,
            ),
        ):
            if used and not 0 < low <= high:
                raise DetectNetError(
                    f"{place}: {name}_min {low:g} and {name}_max {high:g}: "
                    f"0 < {name}_min <= {name}_max is needed"
                )

    def _preprocessing(self, config: spec_pb2.AugmentationConfig.Preprocessing) -> np.ndarray:
        # Factors, whatever their names say: 0.5 halves the image; 0 leaves that side as it is.
        matrix = scaling(1 / (config.scale_width or 1), 1 / (config.scale_height or 1))
        sides = config.crop_left, config.crop_top, config.crop_right, config.crop_bottom
        if any(sides):
            left, top, right, bottom = sides
            if (right - left, bottom - top) != (self.width, self.height):
                raise DetectNetError(
                    f"augmentation_config.preprocessing: the crop is {right - left} x "
                    f"{bottom - top}, the output image {self.width} x {self.height}: "
                    "they must be equal"
                )
            matrix = translation(left, top) @ matrix
        return matrix

    def _draw_spatial(self, rng: np.random.Generator) -> np.ndarray:
        config, native = self._spatial, self._native
        width, height = self.width, self.height
        matrix = self._base
        if rng.random() < config.hflip_probability:
            matrix = horizontal_flip(width) @ matrix
        limit_x, limit_y = int(config.translate_max_x), int(config.translate_max_y)
        matrix = (
            translation(
                int(rng.integers(-limit_x, limit_x, endpoint=True)),
                int(rng.integers(-limit_y, limit_y, endpoint=True)),
            )
            @ matrix
        )
        if config.zoom_max > 0:
            ratio = rng.uniform(config.zoom_min, config.zoom_max)
            matrix = self._placed(ratio, rng) @ matrix
        # An unset probability means always, as in the specs from before the field existed.
        if config.rotate_rad_max > 0 and rng.random() < (config.rotate_probability or 1.0):
            degrees = rng.uniform(-config.rotate_rad_max, config.rotate_rad_max)
            matrix = rotation(degrees, width, height) @ matrix
        if rng.random() < native.scale_probability:
            scale = math.exp(rng.uniform(math.log(native.scale_min), math.log(native.scale_max)))
            matrix = self._placed(1 / scale, rng) @ matrix
        return matrix

    def _placed(self, ratio: float, rng: np.random.Generator) -> np.ndarray:
        """Zoom with the content anywhere in the output, or the output anywhere in the content."""
        x = rng.random() * (self.width - self.width / ratio)
        y = rng.random() * (self.height - self.height / ratio)
        return zoom(ratio, x, y)

    def _draw_color(self, rng: np.random.Generator) -> np.ndarray:
        config = self._color
        matrix = brightness(truncated_normal(rng, config.color_shift_stddev))
        matrix = (
            hue_saturation(
                truncated_normal(rng, config.hue_rotation_max / 2),
                1 + rng.uniform(-config.saturation_shift_max, config.saturation_shift_max),
            )
            @ matrix
        )
        change = truncated_normal(rng, config.contrast_scale_max / 2)
        matrix = contrast(change, config.contrast_center) @ matrix
        if rng.random() < self._native.grayscale_probability:
            matrix = hue_saturation(0, 0) @ matrix
        return matrix[:, :3]

    def _on_canvas(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if (width, height) == self._canvas:
            return image
        if width > self._canvas[0] or height > self._canvas[1]:
            raise DetectNetError(
                f"an image is {width} x {height}, more than the canvas of {self._canvas[0]} x "
                f"{self._canvas[1]}: do the tfrecords have its true size? Run dataset_convert again"
            )
        canvas = np.zeros((self._canvas[1], self._canvas[0], 3), dtype=np.uint8)
        canvas[:height, :width] = image
        return canvas


def transform_boxes(boxes: np.ndarray, spatial: np.ndarray) -> np.ndarray:
    """Boxes (n, 4), x1 y1 x2 y2 in pixels, taken from input to output by ``spatial`` (3, 3).

    Two opposite corners are transformed and put in order, so that boxes stay upright; they are
    not clipped.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 2)
    inverse = np.linalg.inv(spatial)
    corners = corners @ inverse[:2, :2] + inverse[2, :2]
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
