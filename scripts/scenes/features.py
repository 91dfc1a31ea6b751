"""Draws a bare head: ears, skin, eyes, brows, nose, mouth, beard and hair."""

from __future__ import annotations

import numpy as np

from scenes.canvas import Canvas, ellipse, mix, moved, shade, smooth
from scenes.head import Head
from scenes.person import Look

# Where eyes and brows are on the head: across, down.
EYE_U, EYE_V = 0.335, -0.06
BROW_V = -0.30


def draw_skin(canvas: Canvas, head: Head, look: Look) -> None:
    """The ears and the lit surface of the face, with soft colour on the cheeks."""
    for side in (-1, 1):
        _ear(canvas, head, look, side)
    canvas.fill(head.outline, look.skin, lit=True)
    blush = mix(look.skin, (214, 92, 84), 0.35)
    for side in (-1, 1):
        if head.faces_viewer(side * 0.45, 0.32) > 0.2:
            cheek = _patch(head, side * 0.43, 0.30, 0.20, 0.17)
            canvas.fill(
                cheek, blush, alpha=0.45, soft=0.09 * head.unit, lit=True, clip=head.outline
            )
            socket = _patch(head, side * EYE_U, EYE_V - 0.04, 0.21, 0.13)
            dark = shade(look.skin, 0.72)
            canvas.fill(socket, dark, alpha=0.5, soft=0.06 * head.unit, lit=True, clip=head.outline)
    jaw = head.flat(head.flat_outline * (1, 0.25) + (0, 0.86))
    canvas.fill(
        jaw,
        shade(look.skin, 0.62),
        alpha=0.35,
        soft=0.13 * head.unit,
        lit=True,
        clip=head.outline,
    )
    if look.age > 0.7:
        line = shade(look.skin, 0.72)
        for v in (-0.46, -0.55):
            arc = np.array([[-0.32, v + 0.02], [0.0, v - 0.02], [0.32, v + 0.02]])
            canvas.stroke(
                head.surface(smooth(arc, closed=False)),
                line,
                0.02 * head.unit,
                alpha=0.7 * (look.age - 0.4),
            )
        for side in (-1, 1):
            fold = np.array([[0.20, 0.34], [0.30, 0.46], [0.32, 0.58]]) * (side, 1)
            canvas.stroke(
                head.surface(smooth(fold, closed=False)),
                line,
                0.025 * head.unit,
                alpha=0.8 * (look.age - 0.4),
            )


def _ear(canvas: Canvas, head: Head, look: Look, side: int) -> None:
    turned = side * np.sin(head.yaw)
    if turned > 0.45:
        return  # behind the head
    u = side * (0.79 - 0.5 * max(0.0, -turned))
    ear = head.flat(
        smooth(
            np.array(
                [
                    [u - side * 0.06, -0.16],
                    [u + side * 0.09, -0.20],
                    [u + side * 0.14, -0.04],
                    [u + side * 0.08, 0.16],
                    [u - side * 0.02, 0.26],
                    [u - side * 0.06, 0.10],
                ]
            )
        )
    )
    canvas.fill(ear, shade(look.skin, 0.90), lit=True)
    inner = head.flat(ellipse((u + side * 0.04, 0.0), (0.05, 0.12)))
    canvas.fill(inner, shade(look.skin, 0.68), alpha=0.7, soft=0.02 * head.unit, lit=True)


def _patch(head: Head, u: float, v: float, across: float, down: float) -> np.ndarray:
    return head.surface(ellipse((u, v), (across, down), count=24))


def draw_eyes(canvas: Canvas, head: Head, look: Look, gaze: float = 0.0) -> None:
    """Both eyes with lids, iris and a glint; `gaze` moves the irises to the right."""
    for side in (-1, 1):
        if head.faces_viewer(side * EYE_U, EYE_V) < 0.12:
            continue
        _eye(canvas, head, look, side, gaze)


def _eye(canvas: Canvas, head: Head, look: Look, side: int, gaze: float) -> None:
    unit = head.unit
    centre = np.array([side * EYE_U, EYE_V])
    opening = 0.075 * look.eye_open
    corners = np.array(
        [
            [-0.145, 0.015],
            [-0.07, -0.8 * opening],
            [0.01, -opening],
            [0.09, -0.6 * opening],
            [0.145, 0.0],
            [0.06, 0.75 * opening],
            [-0.06, 0.75 * opening],
        ]
    ) * (side, 1)
    lids = head.surface(smooth(corners) + centre)
    canvas.fill(lids, (238, 234, 228), lit=True)
    iris = moved(centre, 0.05 * gaze + 0.02 * np.sin(head.yaw), -0.1 * opening)
    for radius, colour in (
        (0.078, shade(look.eyes, 0.7)),
        (0.062, look.eyes),
        (0.034, (12, 10, 10)),
    ):
        ring = head.surface(ellipse(tuple(iris), (radius, radius), count=20))
        canvas.fill(ring, colour, clip=lids)
    glint = head.surface(ellipse((iris[0] + 0.025, iris[1] - 0.03), (0.016, 0.016), count=10))
    canvas.fill(glint, (255, 255, 255), clip=lids, alpha=0.9)
    upper = head.surface(smooth(corners[:5], closed=False) + centre)
    lash = mix(look.hair, (20, 14, 12), 0.6)
    canvas.stroke(upper, lash, 0.035 * unit)
    crease = head.surface(smooth(corners[:5] * (1.05, 1.5), closed=False) + centre - (0, 0.03))
    canvas.stroke(crease, shade(look.skin, 0.66), 0.02 * unit, alpha=0.6)
    lower = head.surface(smooth(corners[4:], closed=False) + centre)
    canvas.stroke(lower, shade(look.skin, 0.6), 0.015 * unit, alpha=0.5)


def draw_brows(canvas: Canvas, head: Head, look: Look) -> None:
    """Both eyebrows."""
    colour = mix(look.hair, look.skin, 0.15)
    for side in (-1, 1):
        if head.faces_viewer(side * EYE_U, BROW_V) < 0.1:
            continue
        thick = 0.035 * look.brow
        brow = np.array(
            [
                [0.14, BROW_V + 0.05 + thick],
                [0.30, BROW_V - 0.01 + thick],
                [0.52, BROW_V + 0.05],
                [0.32, BROW_V - 0.03 - thick],
                [0.14, BROW_V + 0.03 - thick],
            ]
        ) * (side, 1)
        canvas.fill(head.surface(smooth(brow)), colour, alpha=0.92, lit=True, clip=head.outline)


def draw_nose(canvas: Canvas, head: Head, look: Look) -> None:
    """Bridge, tip and nostrils; the tip stands off the ellipsoid, so that it goes with the pose."""
    unit = head.unit
    dark, light = shade(look.skin, 0.68), shade(look.skin, 1.28)
    bridge = head.surface(np.array([[-0.07, -0.08]]), 0.02)
    tip = head.surface(np.array([[0.0, 0.30]]), 0.26)
    wings = head.surface(np.array([[-0.135, 0.34], [0.135, 0.34]]), 0.10)
    far = wings[0] if head.yaw < 0 else wings[1]
    side = np.concatenate([bridge, tip, far[None]])
    canvas.fill(
        smooth(side, steps=4), dark, alpha=0.42, soft=0.04 * unit, lit=True, clip=head.outline
    )
    shadow = head.surface(ellipse((0.0, 0.40), (0.17, 0.05)), 0.06)
    canvas.fill(shadow, dark, alpha=0.75, soft=0.035 * unit, lit=True, clip=head.outline)
    ball = np.concatenate(
        [wings[:1], moved(tip, 0, -0.06 * unit), wings[1:], moved(tip, 0, 0.06 * unit)]
    )
    canvas.fill(smooth(ball), mix(look.skin, (214, 110, 96), 0.12), lit=True, soft=0.02 * unit)
    for side in (-1, 1):
        if head.faces_viewer(side * 0.14, 0.34) < 0.2:
            continue
        wing = np.array([[0.10, 0.25], [0.155, 0.31], [0.155, 0.38], [0.10, 0.405]]) * (side, 1)
        curve = head.surface(smooth(wing, closed=False), 0.09)
        canvas.stroke(curve, dark, 0.028 * unit, alpha=0.65, soft=0.008 * unit, lit=True)
        flank = np.array([[0.09, -0.14], [0.075, 0.06], [0.10, 0.22]]) * (side, 1)
        curve = head.surface(smooth(flank, closed=False), 0.05)
        canvas.stroke(curve, dark, 0.05 * unit, alpha=0.35, soft=0.025 * unit, lit=True)
    gleam = ellipse((tip[0, 0], tip[0, 1] - 0.04 * unit), (0.05 * unit, 0.045 * unit))
    canvas.fill(gleam, light, alpha=0.5, soft=0.025 * unit, lit=True)
    ridge = np.concatenate([head.surface(np.array([[0.0, -0.10]]), 0.04), tip - (0, 0.08 * unit)])
    canvas.stroke(ridge, light, 0.06 * unit, alpha=0.4, soft=0.025 * unit, lit=True)
    for u in (-0.065, 0.065):
        nostril = head.surface(ellipse((u, 0.375), (0.038, 0.020)), 0.12)
        canvas.fill(nostril, shade(look.skin, 0.32), alpha=0.85)


def draw_mouth(canvas: Canvas, head: Head, look: Look) -> None:
    """Lips, closed or open over teeth, by the look's smile."""
    unit = head.unit
    v, lift, gape = 0.60, 0.055 * look.smile, 0.11 * look.open_mouth
    wide = 0.23 + 0.05 * look.smile
    upper = np.array(
        [
            [-wide, v - lift],
            [-0.09, v - 0.055],
            [0.0, v - 0.035],
            [0.09, v - 0.055],
            [wide, v - lift],
        ]
    )
    seam = np.array([[wide * 0.5, v + 0.01 + lift * 0.4], [0, v + 0.015 + lift * 0.6]])
    seam = np.concatenate([seam, seam[:1] * (-1, 1)])
    lower = moved(seam, 0, 0.075 + gape)
    lips = head.surface(smooth(np.concatenate([upper, lower]), steps=4), 0.04)
    canvas.fill(lips, look.lips, lit=True)
    if gape > 0.02:
        inside = np.concatenate(
            [upper[:1] * (0.86, 1), moved(upper[1:4], 0, 0.045), upper[4:] * (0.86, 1)]
        )
        inside = np.concatenate([inside, moved(seam, 0, gape)])
        hollow = head.surface(smooth(inside, steps=4), 0.04)
        canvas.fill(hollow, (70, 22, 24))
        teeth = inside.copy()
        teeth[5:, 1] -= 0.5 * gape
        canvas.fill(head.surface(smooth(teeth, steps=4), 0.04), (240, 236, 226), clip=hollow)
    else:
        line = np.concatenate([upper[4:], seam, upper[:1]])
        canvas.stroke(
            head.surface(smooth(line, closed=False), 0.04), shade(look.lips, 0.5), 0.028 * unit
        )
    under = head.surface(ellipse((0.0, v + 0.15 + gape), (0.15, 0.03)))
    canvas.fill(under, shade(look.skin, 0.66), alpha=0.5, soft=0.03 * unit, clip=head.outline)


def draw_beard(canvas: Canvas, head: Head, look: Look) -> None:
    """Stubble, moustache, goatee or full beard, if the person has one."""
    if look.beard is None:
        return
    unit = head.unit
    colour = mix(look.hair, look.skin, 0.45 if look.beard == "stubble" else 0.08)
    alpha = 0.5 if look.beard == "stubble" else 0.94
    if look.beard in ("full", "stubble"):
        cheeks = np.array(
            [
                [-0.76, 0.05],
                [-0.60, 0.34],
                [-0.34, 0.46],
                [0.0, 0.43],
                [0.34, 0.46],
                [0.60, 0.34],
                [0.76, 0.05],
                [0.74, 0.60],
                [0.40, 1.02],
                [0.0, 1.10],
                [-0.40, 1.02],
                [-0.74, 0.60],
            ]
        )
        grow = 0.07 if look.beard == "full" else 0.0
        canvas.fill(
            head.surface(smooth(cheeks), grow),
            colour,
            alpha=alpha,
            soft=0.035 * unit,
            lit=True,
            clip=None if grow else head.outline,
        )
    if look.beard in ("moustache", "goatee"):
        lip = np.array(
            [[-0.27, 0.56], [-0.12, 0.44], [0.0, 0.46], [0.12, 0.44], [0.27, 0.56], [0, 0.53]]
        )
        canvas.fill(
            head.surface(smooth(lip), 0.06), colour, alpha=alpha, soft=0.01 * unit, lit=True
        )
    if look.beard == "goatee":
        chin = ellipse((0.0, 0.86), (0.20, 0.17))
        canvas.fill(head.surface(chin, 0.04), colour, alpha=alpha, soft=0.03 * unit, lit=True)
