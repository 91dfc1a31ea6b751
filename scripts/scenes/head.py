"""Where the parts of a head are in the picture: an ellipsoid turned by yaw, pitch and roll.

The head's own frame has its origin in the middle, u to the viewer's right, v downwards, and half of
the head's height (crown to chin) as the unit: crown v = -1, eyes v = -0.08, chin v = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from scenes.canvas import smooth

# Half axes of the ellipsoid on which eyes, mouth and masks lie: across, down, towards the viewer.
ACROSS, DOWN, DEPTH = 0.80, 1.06, 0.85

# An annotator's box starts under the hairline, not at the crown.
HAIRLINE = -0.70

# The right half of the outline, crown to chin: u, v and how far the point follows the jaw's width.
_OUTLINE = np.array(
    [
        [0.00, -1.00, 0.0],
        [0.30, -0.96, 0.0],
        [0.57, -0.82, 0.0],
        [0.74, -0.54, 0.0],
        [0.79, -0.20, 0.0],
        [0.77, 0.12, 0.2],
        [0.71, 0.42, 0.6],
        [0.57, 0.72, 1.0],
        [0.33, 0.93, 1.0],
    ]
)


@dataclass(frozen=True)
class Head:
    """The place, size and pose of a head.

    `x`, `y`: the middle in pixels; `unit`: half of the height in pixels; `yaw` (positive looks to
    the viewer's right), `pitch` (positive looks down) and `roll` (clockwise) in radians; `jaw`:
    width of the jaw, about 0.85 to 1.1; `breadth`: width of the whole head against its height.
    """

    x: float
    y: float
    unit: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    jaw: float = 1.0
    breadth: float = 1.0

    def magnified(self, offset: np.ndarray, factor: float) -> Head:
        """The same head in a picture that shows the region from `offset` `factor` times larger."""
        return replace(
            self,
            x=(self.x - offset[0]) * factor,
            y=(self.y - offset[1]) * factor,
            unit=self.unit * factor,
        )

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Pixels of points (n, 2) in the plane of the picture: turned by the roll only."""
        cos, sin = self.unit * math.cos(self.roll), self.unit * math.sin(self.roll)
        turn = np.array([[self.breadth * cos, self.breadth * sin], [-sin, cos]])
        return points @ turn + np.array([self.x, self.y])

    def surface(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        """Pixels of points (n, 2) that lie on the ellipsoid, `lift` above it.

        A point that the pose turns to the far side is moved to the visible edge of the head.
        """
        grow = 1.0 + lift
        u, v = points[:, 0], points[:, 1]
        w = np.maximum(1 - (u / ACROSS) ** 2 - (v / DOWN) ** 2, 0.0)
        np.sqrt(w, out=w)
        w *= DEPTH
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        x, z = u * cos + w * sin, w * cos - u * sin
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        y, z = v * cos + z * sin, z * cos - v * sin
        if z.min() < 0:
            norm = np.hypot(x / ACROSS, y / DOWN)
            hidden = (z < 0) & (norm < 1) & (norm > 0)
            stretch = np.where(hidden, 1 / np.where(hidden, norm, 1), 1.0)
            x, y = x * stretch, y * stretch
        dx, dy = self._chin_shift(v)
        flat = np.empty((len(u), 2))
        flat[:, 0], flat[:, 1] = grow * x + dx, grow * y + dy
        return self.flat(flat)

    def faces_viewer(self, u: float, v: float) -> float:
        """Cosine between the surface's normal at u, v and the view: below 0 it is hidden."""
        w = np.sqrt(max(0.0, 1 - (u / ACROSS) ** 2 - (v / DOWN) ** 2))
        n = np.array([u / ACROSS**2, v / DOWN**2, w / DEPTH])
        n /= np.linalg.norm(n)
        z = -n[0] * np.sin(self.yaw) + n[2] * np.cos(self.yaw)
        return float(-n[1] * np.sin(self.pitch) + z * np.cos(self.pitch))

    @cached_property
    def flat_outline(self) -> np.ndarray:
        """The head's outline in its own frame, closed, from the crown on clockwise."""
        u = _OUTLINE[:, 0] * (1 + (self.jaw - 1) * _OUTLINE[:, 2])
        right = np.stack([u, _OUTLINE[:, 1]], axis=1)
        chin = np.array([[0.12 * self.jaw, 1.0], [-0.12 * self.jaw, 1.0]])
        left = right[:0:-1] * (-1, 1)
        ring = smooth(np.concatenate([right, chin, left]))
        dx, dy = self._chin_shift(ring[:, 1])
        return ring + np.stack([dx, dy], axis=1)

    def _chin_shift(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Mouth and chin stand out from the neck, so they go further with the gaze.
        low = np.minimum(np.maximum((v + 0.1) / 1.1, 0.0), 1.0)
        return 0.20 * math.sin(self.yaw) * low, 0.10 * math.sin(self.pitch) * low

    @cached_property
    def outline(self) -> np.ndarray:
        """The head's outline in pixels."""
        return self.flat(self.flat_outline)

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """The face's box x1, y1, x2, y2 in pixels: hairline to chin, cheek to cheek."""
        face = self.flat(self.flat_outline[self.flat_outline[:, 1] >= HAIRLINE])
        return (*face.min(axis=0).tolist(), *face.max(axis=0).tolist())

    def local(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The head's frame at pixel columns (1, w) and rows (h, 1): u and v, each (h, w)."""
        cos, sin = float(np.cos(self.roll)), float(np.sin(self.roll))
        x, y = (xs - self.x) / self.unit, (ys - self.y) / self.unit
        return (x * cos + y * sin) / self.breadth, y * cos - x * sin

    def lighting(
        self, size: tuple[int, int], direction: np.ndarray, ambient: float, gloss: float = 0.0
    ) -> np.ndarray:
        """Brightness (h, w, 1) of the ellipsoid in a picture of `size` (w, h) pixels.

        The light comes from the unit vector `direction` (x, y, z). Lambert's cosine law with a
        floor of `ambient`, so that the lit side is about 1.1.
        """
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        turned = np.array(
            [
                direction[0] * cos + direction[1] * sin,
                direction[1] * cos - direction[0] * sin,
                direction[2],
            ],
            np.float32,
        )
        xs = np.arange(size[0], dtype=np.float32)[None, :] + 0.5
        ys = np.arange(size[1], dtype=np.float32)[:, None] + 0.5
        u, v = self.local(xs, ys)
        # Flatter downwards than the ellipsoid: a chin is not as dark as the underside of a ball.
        across, down = u / (ACROSS * 1.12), v / (DOWN * 1.5)
        out = np.sqrt(np.maximum(1 - across * across - down * down, 0.02))
        cosine = np.maximum(across * turned[0] + down * turned[1] + out * turned[2], 0.0)
        result = ambient + (1.12 - ambient) * cosine
        if gloss:
            shine = cosine * cosine
            shine *= shine * shine  # to the sixth
            result += gloss * shine * shine
        return result[..., None].astype(np.float32)
