"""From the bytes of any image to a JPEG of the network's size, as Pillow would make it but faster.

The resize is Pillow's antialiased bicubic in effect: OpenCV's bicubic does not widen its kernel
when it shrinks an image, so a short filter before it does that. benchmarks/convert.py measures
both the speed and the likeness.
"""

import io
import math
import re
import struct
from functools import lru_cache, partial

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# The parameter a of the bicubic kernel (Keys 1981) in Pillow and in OpenCV.
PILLOW_A = -0.5
OPENCV_A = -0.75
# A JPEG is decoded at half its size (or less) only while it stays this much bigger than needed:
# the DCT's own shrinking is not Pillow's filter.
DECODE_MARGIN = 2
# Warnings of libjpeg that mean lost picture data; it would go on with grey or shifted blocks.
DAMAGE = ("Corrupt JPEG data", "Premature end", "Unsupported marker", "Inconsistent progression")
# One that an intact JPEG gets too, when its writer filled up the end of the picture data.
SURPLUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
END_OF_IMAGE = b"\xff\xd9"
COLOURS = ("YCbCr", "Gray", "RGB")


class CorruptImageError(Exception):
    """An image whose body cannot be decoded; the message is the reason."""


def decode(data: bytes, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image for shrinking or stretching to `width` x `height`.

    Returns pixels (h, w, 3) RGB uint8, at a power-of-two fraction of its size where that is big
    enough, and the size (width, height) of the whole image. EXIF orientation is not applied, the
    annotations are for the pixels as stored. Raises CorruptImageError, also for a JPEG that
    libjpeg would only warn about.
    """
    if data.startswith(b"\xff\xd8"):
        decoded = _decode_jpeg(data, width, height)
        if decoded:
            return decoded
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = rgb(image)
    except UnidentifiedImageError as error:
        raise CorruptImageError("image is of no known format") from error
    # Pillow's plugins let struct, value and index errors through on damaged files.
    except (OSError, ValueError, IndexError, SyntaxError, struct.error) as error:
        raise CorruptImageError(f"image is damaged: {error}") from error
    except Image.DecompressionBombError as error:
        raise CorruptImageError(f"image is too big: {error}") from error
    return pixels, (pixels.shape[1], pixels.shape[0])


def rgb(image: Image.Image) -> np.ndarray:
    """Pixels (h, w, 3) uint8. Grey of 16 bits keeps its high byte, where Pillow would clip it."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image) // 256).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _decode_jpeg(data: bytes, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]] | None:
    """As `decode`; None for a JPEG that libjpeg-turbo does not turn into RGB (CMYK, 12 bit)."""
    try:
        full_height, full_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in COLOURS:
            return None
        factor = 1
        while (
            factor < 8
            and full_width >= 2 * factor * DECODE_MARGIN * width
            and full_height >= 2 * factor * DECODE_MARGIN * height
        ):
            factor *= 2
        decoded = partial(
            simplejpeg.decode_jpeg,
            data,
            "RGB",
            min_height=math.ceil(full_height / factor),
            min_width=math.ceil(full_width / factor),
        )
        try:
            pixels = decoded()
        except ValueError as error:
            if not _is_filled_up(data, str(error)):
                raise
            pixels = decoded(strict=False)
    except ValueError as error:
        if str(error).startswith(DAMAGE):
            raise CorruptImageError(f"image is damaged: {error}") from error
        return None
    return pixels, (full_width, full_height)


def _is_filled_up(data: bytes, warning: str) -> bool:
    """Whether libjpeg's warning is only of filling bytes between the picture data and its end.

    Many a damaged file gets the same warning, when the decoder comes out of step and is done too
    early; what it leaves over is picture data then, and no row of 00 and FF.
    """
    surplus = SURPLUS.match(warning)
    if not surplus:
        return False
    end = data.rfind(END_OF_IMAGE)
    return not data[max(0, end - int(surplus[1])) : end].strip(b"\x00\xff")


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Stretch pixels (h, w, 3) uint8 to (height, width, 3), antialiased bicubic."""
    rows, columns = pixels.shape[:2]
    if columns > width or rows > height:
        pixels = cv2.sepFilter2D(
            pixels,
            -1,
            shrinking_filter(columns, width),
            shrinking_filter(rows, height),
            borderType=cv2.BORDER_REPLICATE,
        )
    if (columns, rows) == (width, height):
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=4096)
def shrinking_filter(before: int, after: int) -> np.ndarray:
    """Taps of the filter that, followed by OpenCV's bicubic, comes nearest to Pillow's.

    Pillow's kernel is widened by the ratio `before / after`; the taps are the least squares
    solution of `sum_k taps[k] * opencv(x - k) = pillow(x / ratio) / ratio` over x in pixels.
    """
    ratio = before / after
    if ratio <= 1:
        return np.ones(1, np.float32)
    reach = max(2, math.ceil(2 * ratio) - 1)
    x = np.linspace(-2 * ratio - 3, 2 * ratio + 3, 2001)
    wanted = _bicubic(x / ratio, PILLOW_A) / ratio
    # The filter is symmetric: one unknown for the taps at k and -k.
    basis = [_bicubic(x, OPENCV_A)]
    basis += [_bicubic(x - k, OPENCV_A) + _bicubic(x + k, OPENCV_A) for k in range(1, reach + 1)]
    half = np.linalg.lstsq(np.stack(basis, axis=1), wanted, rcond=None)[0]
    taps = np.concatenate((half[:0:-1], half))
    return (taps / taps.sum()).astype(np.float32)


def _bicubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG of pixels (h, w, 3) RGB uint8, colours at half the resolution, as Pillow saves it."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
