"""The rules for the corners of an annotated box."""

Box = tuple[float, float, float, float]
EMPTY = "box is empty"
OUTSIDE = "box is outside the image"
PORTRAIT = "width / height is below min_aspect"


def corrected(box: Box, width: int, height: int) -> tuple[Box, str]:
    """Put inverted corners right and clip to the image; pixels in, pixels out.

    Returns the box and a reason, empty for a box with an area inside the image; a box without
    one comes back unclipped, for the report.
    """
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    ordered = (x1, y1, x2, y2)
    if x1 == x2 or y1 == y2:
        return ordered, EMPTY
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return ordered, OUTSIDE
    return clipped, ""


def is_geometry(reason: str) -> bool:
    """Whether a face is dropped for its box or its image's shape, not by a class rule."""
    return reason in (EMPTY, OUTSIDE) or reason.startswith(PORTRAIT)
