"""A picture to draw on: antialiased shapes, soft edges, painted surfaces.

Points are (n, 2) arrays of x, y in pixels with the origin in the top left corner; colours are RGB
in 0..255. Every drawing call touches only the pixels around its shape, so that a face of fifty
shapes costs little in a large picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import cv2
import numpy as np

Colour = tuple[float, float, float]
# A painted surface: pixel columns (1, w) and rows (h, 1) to colours (h, w, 3).
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]

_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates
_FAR = 1 << 14  # OpenCV's fixed-point polygons overflow far outside of the picture


class Canvas:
    """A float32 RGB picture (height, width, 3) with drawing methods.

    `light`, when set, holds a brightness factor for each pixel (height, width, 1); shapes drawn
    with `lit=True` are multiplied by it, which is how one light falls on all parts of a head.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = np.ascontiguousarray(pixels, dtype=np.float32)
        self.light: np.ndarray | None = None

    @classmethod
    def blank(cls, width: int, height: int, colour: Colour = (0, 0, 0)) -> Canvas:
        """A picture of one colour."""
        pixels = np.empty((height, width, 3), np.float32)
        pixels[:] = colour
        return cls(pixels)

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    def fill(
        self,
        points: np.ndarray,
        colour: Colour | Paint,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        lit: bool = False,
        clip: np.ndarray | None = None,
    ) -> None:
        """Fill a polygon.

        `soft` is the standard deviation of the edge's blur in pixels, `clip` a second polygon that
        the fill stays inside.
        """
        window = self._window(points, 3.0 * soft + 2.0)
        if window is None:
            return
        cover = _cover(points, window)
        if soft > 0.25:
            cover = _soften(cover, soft)
        if clip is not None:
            cover = cv2.multiply(cover, _cover(clip, window), scale=1 / 255)
        self._blend(window, cover, colour, alpha, lit)

    def stroke(
        self,
        points: np.ndarray,
        colour: Colour,
        width: float,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        closed: bool = False,
        lit: bool = False,
        clip: np.ndarray | None = None,
    ) -> None:
        """Draw a line of `width` pixels; a line thinner than a pixel is drawn fainter instead."""
        window = self._window(points, 3.0 * soft + width + 2.0)
        if window is None:
            return
        left, top, right, bottom = window
        cover = np.zeros((bottom - top, right - left), np.uint8)
        cv2.polylines(
            cover,
            [_fixed(points, window)],
            closed,
            255,
            max(1, round(width)),
            cv2.LINE_AA,
            _SHIFT,
        )
        if soft > 0.25:
            cover = _soften(cover, soft)
        if clip is not None:
            cover = cv2.multiply(cover, _cover(clip, window), scale=1 / 255)
        self._blend(window, cover, colour, alpha * min(1.0, width), lit)

    @contextmanager
    def magnified(self, box: tuple[float, float, float, float], factor: int) -> Iterator[Canvas]:
        """Draw the region `box` (x1, y1, x2, y2) at `factor` times the size and put it back.

        Yields a canvas on which a point of this one lies at (point - offset) * factor; it carries
        both. Pixels that the drawing leaves alone come back unchanged: each is repeated, and the
        average of equal ones is the same.
        """
        corners = np.array([[box[0], box[1]], [box[2], box[3]]])
        window = self._window(corners, 1.0)
        if window is None:
            yield _Magnified(np.zeros((1, 1, 3)), (0.0, 0.0), factor)
            return
        left, top, right, bottom = window
        region = self.pixels[top:bottom, left:right]
        large = region.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else region
        inner = _Magnified(large, (float(left), float(top)), factor)
        yield inner
        size = (right - left, bottom - top)
        self.pixels[top:bottom, left:right] = (
            cv2.resize(inner.pixels, size, interpolation=cv2.INTER_AREA)
            if factor > 1
            else inner.pixels
        )

    def _window(self, points: np.ndarray, margin: float) -> tuple[int, int, int, int] | None:
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        window = (
            max(int(x1 - margin), 0),
            max(int(y1 - margin), 0),
            min(int(x2 + margin) + 1, self.width),
            min(int(y2 + margin) + 1, self.height),
        )
        return window if window[0] < window[2] and window[1] < window[3] else None

    def _blend(
        self,
        window: tuple[int, int, int, int],
        cover: np.ndarray,
        colour: Colour | Paint,
        alpha: float,
        lit: bool,
    ) -> None:
        left, top, right, bottom = window
        region = self.pixels[top:bottom, left:right]
        amount = cover.astype(np.float32)[..., None]
        amount *= alpha / 255.0
        if callable(colour):
            xs = np.arange(left, right, dtype=np.float32)[None, :] + 0.5
            ys = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
            source = colour(xs, ys)
        else:
            source = np.asarray(colour, np.float32)
        if lit and self.light is not None:
            source = source * self.light[top:bottom, left:right]
        source = source - region
        source *= amount
        region += source


class _Magnified(Canvas):
    """A magnified region; `offset` is its corner in the picture it was cut from."""

    def __init__(self, pixels: np.ndarray, offset: tuple[float, float], factor: int) -> None:
        super().__init__(pixels)
        self.offset = np.array(offset)
        self.factor = factor


def _soften(cover: np.ndarray, deviation: float) -> np.ndarray:
    # Two box filters are near to a Gaussian of the same variance and much faster when it is wide.
    if deviation < 1.5:
        return cv2.GaussianBlur(cover, (0, 0), deviation)
    reach = round(np.sqrt(6.0 * deviation * deviation + 1.0)) | 1
    return cv2.blur(cv2.blur(cover, (reach, reach)), (reach, reach))


def _fixed(points: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    # OpenCV puts pixel centres on whole numbers, this package puts them on halves.
    shifted = points - np.array([window[0] + 0.5, window[1] + 0.5])
    shifted *= 1 << _SHIFT
    np.rint(shifted, out=shifted)
    far = float(_FAR << _SHIFT)
    return np.minimum(np.maximum(shifted, -far, out=shifted), far, out=shifted).astype(np.int32)


def _cover(points: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = window
    cover = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(cover, [_fixed(points, window)], 255, cv2.LINE_AA, _SHIFT)
    return cover


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """The colour `amount` (0..1) of the way from the first to the second."""
    return tuple(a + (b - a) * amount for a, b in zip(first, second, strict=True))


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter (factor > 1, towards white)."""
    if factor <= 1:
        return mix((0, 0, 0), colour, factor)
    return mix(colour, (255, 255, 255), factor - 1)


def moved(points: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The points (n, 2), each `dx` further right and `dy` further down."""
    return np.asarray(points, float) + np.array([dx, dy])


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, count: int = 40
) -> np.ndarray:
    """The outline of an ellipse as `count` points; `angle` in radians, clockwise on the screen."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    turn = np.array([[radii[0] * cos, radii[0] * sin], [-radii[1] * sin, radii[1] * cos]])
    return _circle(count) @ turn + np.array(centre)


@cache
def _circle(count: int) -> np.ndarray:
    turn = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """The four corners of a rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)


def smooth(points: np.ndarray, *, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A uniform Catmull-Rom curve through the points (n, 2), `steps` points a span.

    Catmull & Rom 1974, "A class of local interpolating splines".
    """
    points = np.asarray(points, float)
    if closed:
        ring = np.concatenate([points[-1:], points, points[:2]])
    else:
        ring = np.concatenate([points[:1], points, points[-1:]])
    weights = _spans(steps)
    spans = len(ring) - 3
    curve = np.empty((spans, steps, 2))
    curve[:] = weights[:, 0, None] * ring[:spans, None]
    for part in range(1, 4):
        curve += weights[:, part, None] * ring[part : part + spans, None]
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


@cache
def _spans(steps: int) -> np.ndarray:
    """Weights (steps, 4) of the four points around a span at `steps` places in it."""
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    return 0.5 * np.concatenate(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ],
        axis=1,
    )


def noise(rng: np.random.Generator, width: int, height: int, cells: float) -> np.ndarray:
    """Smooth noise (height, width) in about -1..1 with features of a `cells`-th of the width."""
    columns = max(2, round(cells))
    rows = max(2, round(cells * height / width))
    grid = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
