"""Draws one person into a picture and tells what an annotator would write about the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.body import draw_body
from scenes.canvas import Canvas
from scenes.features import (
    EYE_U,
    EYE_V,
    draw_beard,
    draw_brows,
    draw_eyes,
    draw_mouth,
    draw_nose,
    draw_skin,
)
from scenes.hair import draw_hair_before, draw_hair_behind
from scenes.head import DOWN, Head
from scenes.masks import draw_mask
from scenes.person import Look
from scenes.wear import draw_glasses, draw_hand, draw_hat

# A head is drawn larger and averaged down until it is about this high in pixels.
_DRAWN_UNIT = 48.0


@dataclass(frozen=True)
class Light:
    """The light on the heads of a scene: direction towards it (x, y, z), floor and gloss."""

    direction: tuple[float, float, float]
    ambient: float
    gloss: float


@dataclass(frozen=True)
class Face:
    """One face as annotators describe it; pixels, angles in radians.

    `box`: x1, y1, x2, y2, may leave the picture; `ellipse`: major radius, minor radius, angle of
    the major axis against the x axis, centre x, centre y (FDDB's order); `eyes`: left and right in
    the picture; `state`: mask, poor or bare; `occluder` and `glasses`: boxes relative to `box` as
    x, y, w, h, or None; `hand`: None, mouth or half; `complex_mask`: patterned or tied cloth;
    `yaw`: the pose; `hidden`: the part (0..1) that other people cover.
    """

    box: tuple[float, float, float, float]
    ellipse: tuple[float, float, float, float, float]
    eyes: tuple[tuple[float, float], tuple[float, float]]
    state: str
    occluder: tuple[float, float, float, float] | None
    glasses: tuple[float, float, float, float] | None
    hand: str | None
    complex_mask: bool
    yaw: float
    hidden: float = 0.0


def draw_person(canvas: Canvas, head: Head, look: Look, light: Light, gaze: float = 0.0) -> None:
    """The person from behind to before: body, hair, head, what is worn, a hand."""
    draw_body(canvas, head, look)
    reach = 2.3 * head.unit
    box = (head.x - reach, head.y - reach, head.x + reach, head.y + 3.0 * head.unit)
    factor = int(np.clip(round(_DRAWN_UNIT / head.unit), 1, 4))
    with canvas.magnified(box, factor) as inner:
        large = head.magnified(inner.offset, factor)
        inner.light = large.lighting(
            (inner.width, inner.height), np.array(light.direction), light.ambient, light.gloss
        )
        _draw_head(inner, large, look, gaze)


def _draw_head(canvas: Canvas, head: Head, look: Look, gaze: float) -> None:
    covered = look.hat in ("hood", "veil")
    if not covered:
        draw_hair_behind(canvas, head, look)
        # The hair behind must not cover the throat.
        _throat(canvas, head, look)
    draw_skin(canvas, head, look)
    draw_eyes(canvas, head, look, gaze)
    draw_brows(canvas, head, look)
    draw_beard(canvas, head, look)
    draw_mouth(canvas, head, look)
    draw_nose(canvas, head, look)
    if not covered:
        draw_hair_before(canvas, head, look)
    draw_mask(canvas, head, look)
    draw_glasses(canvas, head, look)
    draw_hat(canvas, head, look)
    draw_hand(canvas, head, look)


def _throat(canvas: Canvas, head: Head, look: Look) -> None:
    if look.style not in ("bob", "long"):
        return
    tone = tuple(0.72 * c for c in look.skin)
    throat = np.array([[-0.42, 0.5], [0.42, 0.5], [0.42, 1.35], [0.0, 1.62], [-0.42, 1.35]])
    canvas.fill(head.flat(throat), tone, soft=0.02 * head.unit)


def describe(head: Head, look: Look) -> Face:
    """The annotation of the face that `draw_person` draws."""
    x1, y1, x2, y2 = head.box
    eyes = head.surface(np.array([[-EYE_U, EYE_V], [EYE_U, EYE_V]]))
    occluder = glasses = None
    if look.mask is not None:
        top = {"full": 0.10, "nose": 0.46, "chin": 0.80}[look.worn]
        occluder = _relative(head, (-0.7, top, 0.7, 1.05), (x1, y1))
    elif look.hand is not None:
        occluder = _relative(head, (-0.4, 0.3, 0.4, 1.0), (x1, y1))
    if look.glasses is not None:
        glasses = _relative(head, (-0.58, -0.2, 0.58, 0.16), (x1, y1))
    middle = head.flat(np.array([[0.10 * np.sin(head.yaw), 0.12]]))[0]
    major, minor = 0.92 * head.unit, 0.78 * head.unit * head.breadth
    angle = np.pi / 2 + head.roll
    angle = angle - np.pi if angle > np.pi / 2 else angle
    return Face(
        box=(x1, y1, x2, y2),
        ellipse=(major, minor, float(angle), float(middle[0]), float(middle[1])),
        eyes=(tuple(eyes[0].tolist()), tuple(eyes[1].tolist())),
        state=look.state,
        occluder=occluder,
        glasses=glasses,
        hand=look.hand,
        complex_mask=look.mask in ("patterned", "bandana"),
        yaw=head.yaw,
    )


def _relative(
    head: Head, part: tuple[float, float, float, float], corner: tuple[float, float]
) -> tuple[float, float, float, float]:
    u1, v1, u2, v2 = part
    points = head.surface(np.array([[u1, v1], [u2, v1], [u1, min(v2, DOWN)], [u2, min(v2, DOWN)]]))
    low, high = points.min(axis=0), points.max(axis=0)
    return (
        float(low[0] - corner[0]),
        float(low[1] - corner[1]),
        float(high[0] - low[0]),
        float(high[1] - low[1]),
    )
