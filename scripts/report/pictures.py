"""Photographs for the page, shrunk and as data URIs."""

import base64
import io

from PIL import Image

from report.blocks import Picture

QUALITIES = (80, 70, 60, 50, 40, 30)


def picture(
    image: Image.Image, title: str, caption: str, width: int, most_bytes: int = 120_000
) -> Picture:
    """The image as a JPEG data URI, shrunk to `width` pixels and, by its quality, towards
    `most_bytes`; where the lowest quality is not enough, the image gets smaller too."""
    image = image.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.LANCZOS)
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
            if buffer.tell() <= most_bytes:
                break
        if buffer.tell() <= most_bytes or image.width < 64:
            break
        image = image.resize((image.width * 3 // 4, max(image.height * 3 // 4, 1)), Image.LANCZOS)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, caption, f"data:image/jpeg;base64,{encoded}", *image.size)
