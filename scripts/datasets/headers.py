"""Width and height of an image from the first bytes of its file; no pixel is decoded."""

import io
import struct
from pathlib import Path

from PIL import Image

HEADER_BYTES = 16384
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers; C4, C8 and CC lie between them and mean other things.
START_OF_FRAME = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}
WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
START_OF_SCAN = 0xDA


class ImageHeaderError(Exception):
    """A file that is no image, or whose header is damaged; the message is the reason."""


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels, as stored (EXIF orientation is ignored, as in the annotations).

    Raises ImageHeaderError, also when the file is not there.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - cheaper than Path.open
            head = file.read(HEADER_BYTES)
            if head.startswith(b"\xff\xd8"):
                return _jpeg_size(file, head)
    except FileNotFoundError as error:
        raise ImageHeaderError("image is missing") from error
    except OSError as error:
        raise ImageHeaderError(f"image cannot be read: {error.strerror}") from error
    if head.startswith(PNG_SIGNATURE) and head[12:16] == b"IHDR" and len(head) >= 24:
        return _positive(*struct.unpack(">II", head[16:24]))
    if not head:
        raise ImageHeaderError("image is empty")
    try:
        with Image.open(path) as image:
            return _positive(*image.size)
    except Image.DecompressionBombError as error:
        raise ImageHeaderError(f"image is too big: {error}") from error
    # Pillow's plugins let struct, value and index errors through on damaged headers.
    except (OSError, ValueError, IndexError, struct.error, SyntaxError) as error:
        raise ImageHeaderError("image header is damaged or of no known format") from error


def _positive(width: int, height: int) -> tuple[int, int]:
    if width < 1 or height < 1:
        raise ImageHeaderError(f"image header says {width} x {height} pixels")
    return width, height


def _jpeg_size(file: io.RawIOBase, head: bytes) -> tuple[int, int]:
    """Walk the segments up to the frame header; ITU T.81, B.1 and B.2.2."""
    # `start` is the place in the file of head[0]: big EXIF or colour profile segments lead
    # beyond what has been read.
    start, position = 0, 2
    while True:
        if position + 9 > len(head):
            start, position = start + position, 0
            file.seek(start)
            head = file.read(HEADER_BYTES)
            if len(head) < 9:
                raise ImageHeaderError("image ends before its frame header")
        if head[position] != 0xFF:
            raise ImageHeaderError("image header is damaged")
        marker = head[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in WITHOUT_LENGTH:
            position += 2
        elif marker in START_OF_FRAME:
            height, width = struct.unpack_from(">HH", head, position + 5)
            return _positive(width, height)
        elif marker == START_OF_SCAN:
            raise ImageHeaderError("image has no frame header")
        else:
            position += 2 + struct.unpack_from(">H", head, position + 2)[0]
