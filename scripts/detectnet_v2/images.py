"""Image files as RGB arrays, decoded and stretched as NVIDIA's loader does it."""

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from datasets.pixels import rgb
from PIL import Image, UnidentifiedImageError

from detectnet_v2.errors import DetectNetError


def decode_image(data: bytes, name: str | Path) -> np.ndarray:
    """RGB pixels (h, w, 3) uint8 of an encoded image; ``name`` is for the message only.

    JPEG uses the accurate integer DCT. Grey of 16 bits keeps its high byte, as by TensorFlow's
    decode_png. An orientation in EXIF data is ignored, since labels refer to the pixels as stored.
    Raises DetectNetError for data that is no whole image.
    """
    if simplejpeg.is_jpeg(data):
        # What it refuses (CMYK, stray bytes between markers) Pillow may still read.
        with contextlib.suppress(ValueError):
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(rgb(image))
    except Image.DecompressionBombError as error:
        raise DetectNetError(f"{name}: image is too big ({error}): replace it") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DetectNetError(f"{name}: not a readable image ({reason}): replace it") from error


def read_image(path: Path) -> np.ndarray:
    """RGB pixels (h, w, 3) uint8 of an image file; DetectNetError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DetectNetError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_image(data, path)


def stretch(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize to (height, width, 3) like TensorFlow 1's bilinear: corner to corner, no smoothing.

    Output pixel i is read at i * (old size / new size), with the border pixel repeated: NVIDIA's
    loader does this for ``enable_auto_resize``.
    """
    if image.shape[:2] == (height, width):
        return image
    matrix = np.array([[image.shape[1] / width, 0, 0], [0, image.shape[0] / height, 0]])
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
