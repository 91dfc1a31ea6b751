"""Draws what else is worn or held before a head: glasses, hats, a hand."""

from __future__ import annotations

import numpy as np

from scenes.canvas import Canvas, ellipse, moved, rectangle, shade, smooth
from scenes.features import EYE_U, EYE_V
from scenes.head import Head
from scenes.person import Look


def draw_glasses(canvas: Canvas, head: Head, look: Look) -> None:
    """Spectacles or sunglasses, if the person wears any."""
    if look.glasses is None:
        return
    unit = head.unit
    frame = {"thin": (60, 58, 60), "thick": (26, 22, 22), "rimless": (150, 146, 140)}
    colour = frame.get(look.glasses, (18, 18, 20))
    width = {"thin": 0.035, "thick": 0.075, "rimless": 0.02}.get(look.glasses, 0.05) * unit
    round_lens = look.seed % 3 == 0
    for side in (-1, 1):
        if head.faces_viewer(side * EYE_U, EYE_V) < 0.05:
            continue
        if round_lens:
            lens = ellipse((side * EYE_U, EYE_V + 0.03), (0.22, 0.20))
        else:
            lens = moved(rectangle(-0.24, -0.15, 0.24, 0.17), side * (EYE_U + 0.01), EYE_V + 0.03)
            lens = np.clip(smooth(lens * (1.0, 0.95)), -2, 2)
        rim = head.surface(lens, 0.08)
        if look.glasses == "sun":
            canvas.fill(rim, (24, 24, 30), alpha=0.93)
            shine = rim.mean(axis=0) + (rim - rim.mean(axis=0)) * (0.5, 0.25)
            canvas.fill(
                shine - (0.05 * unit, 0.06 * unit), (170, 190, 210), alpha=0.35, soft=0.04 * unit
            )
        else:
            canvas.fill(rim, (214, 228, 236), alpha=0.16)
        canvas.stroke(rim, colour, width, closed=True)
        temple = np.array([[0.56, EYE_V - 0.02], [0.72, EYE_V - 0.03], [0.80, EYE_V - 0.02]])
        canvas.stroke(head.surface(temple * (side, 1), 0.06), colour, width)
    bridge = np.array([[-0.12, EYE_V + 0.02], [0.0, EYE_V - 0.02], [0.12, EYE_V + 0.02]])
    canvas.stroke(head.surface(smooth(bridge, closed=False), 0.10), colour, width)


def draw_hat(canvas: Canvas, head: Head, look: Look) -> None:
    """The hat, hood, veil or helmet, if the person wears one."""
    if look.hat is None:
        return
    shift = 0.35 * np.sin(head.yaw)
    {
        "cap": _cap,
        "beanie": _beanie,
        "brim": _brim,
        "theatre": _theatre,
        "helmet": _helmet,
        "hood": _hood,
        "veil": _hood,
    }[look.hat](canvas, head, look, shift)


def _dome(low: float, high: float, wide: float) -> np.ndarray:
    return np.array(
        [
            [-wide, low],
            [-wide - 0.02, low - 0.30],
            [-0.66 * wide, high + 0.12],
            [0.0, high],
            [0.66 * wide, high + 0.12],
            [wide + 0.02, low - 0.30],
            [wide, low],
            [0.5 * wide, low - 0.05],
            [0.0, low - 0.07],
            [-0.5 * wide, low - 0.05],
        ]
    )


def _cap(canvas: Canvas, head: Head, look: Look, shift: float) -> None:
    unit = head.unit
    dome = head.flat(smooth(_dome(-0.40, -1.20, 0.84)))
    canvas.fill(dome, look.hat_colour, lit=True)
    for u in (-0.4, 0.0, 0.4):
        seam = np.array([[shift * 0.3, -1.18], [0.8 * u + shift * 0.4, -0.9], [u + shift, -0.44]])
        canvas.stroke(
            head.flat(smooth(seam, closed=False)),
            shade(look.hat_colour, 0.6),
            0.025 * unit,
            alpha=0.6,
            clip=dome,
        )
    logo = head.flat(ellipse((shift, -0.78), (0.17, 0.15)))
    canvas.fill(logo, shade(look.mask_accent, 1.2), lit=True)
    peak = np.array(
        [
            [-0.62 + shift, -0.50],
            [0.0 + shift, -0.62],
            [0.62 + shift, -0.50],
            [0.56 + 1.7 * shift, -0.30],
            [1.8 * shift, -0.22],
            [-0.56 + 1.7 * shift, -0.30],
        ]
    )
    shadow = head.flat(smooth(moved(peak, 0, 0.14)))
    canvas.fill(shadow, shade(look.skin, 0.3), alpha=0.55, soft=0.06 * unit, clip=head.outline)
    canvas.fill(head.flat(smooth(peak)), shade(look.hat_colour, 0.72), lit=True)


def _beanie(canvas: Canvas, head: Head, look: Look, shift: float) -> None:
    unit = head.unit
    dome = head.flat(smooth(_dome(-0.42, -1.28, 0.86)))
    canvas.fill(dome, look.hat_colour, lit=True)
    for u in np.linspace(-0.7, 0.7, 9):
        rib = np.array([[0.35 * u, -1.24], [0.9 * u, -0.85], [u, -0.45]])
        canvas.stroke(
            head.flat(smooth(rib, closed=False)),
            shade(look.hat_colour, 0.68),
            0.03 * unit,
            alpha=0.6,
            clip=dome,
        )
    band = np.array([[-0.88, -0.66], [0.0, -0.74], [0.88, -0.66], [0.86, -0.36], [0, -0.44]])
    band = np.concatenate([band, [[-0.86, -0.36]]])
    canvas.fill(head.flat(smooth(band)), shade(look.hat_colour, 1.16), lit=True)
    if look.seed % 2:
        bobble = head.flat(ellipse((0.0, -1.34), (0.22, 0.20)))
        canvas.fill(bobble, look.mask_accent, lit=True, soft=0.02 * unit)


def _brim(canvas: Canvas, head: Head, look: Look, shift: float) -> None:
    brim = ellipse((0.4 * shift, -0.52), (1.45, 0.30))
    canvas.fill(head.flat(brim), shade(look.hat_colour, 0.85), lit=True)
    dome = head.flat(smooth(_dome(-0.50, -1.22, 0.74)))
    canvas.fill(dome, look.hat_colour, lit=True)
    ribbon = np.array([[-0.75, -0.76], [0.0, -0.84], [0.75, -0.76], [0.75, -0.56], [0, -0.62]])
    ribbon = np.concatenate([ribbon, [[-0.75, -0.56]]])
    canvas.fill(head.flat(smooth(ribbon)), look.mask_accent, lit=True)
    shadow = head.flat(ellipse((0.4 * shift, -0.30), (0.72, 0.20)))
    canvas.fill(shadow, shade(look.skin, 0.3), alpha=0.5, soft=0.08 * head.unit, clip=head.outline)


def _theatre(canvas: Canvas, head: Head, look: Look, shift: float) -> None:
    colour = (110, 176, 190) if look.seed % 2 else (96, 150, 120)
    dome = head.flat(smooth(_dome(-0.48, -1.24, 0.86)))
    canvas.fill(dome, colour, lit=True)
    hem = np.array([[-0.85, -0.52], [0.0, -0.60], [0.85, -0.52]])
    canvas.stroke(head.flat(smooth(hem, closed=False)), shade(colour, 0.6), 0.04 * head.unit)
    for u in (-0.5, -0.15, 0.25, 0.55):
        fold = np.array([[u, -0.62], [u * 0.8 + shift * 0.2, -0.85]])
        canvas.stroke(head.flat(fold), shade(colour, 0.7), 0.04 * head.unit, alpha=0.6)


def _helmet(canvas: Canvas, head: Head, look: Look, shift: float) -> None:
    colour = ((246, 200, 40), (238, 238, 236), (214, 72, 40))[look.seed % 3]
    dome = head.flat(smooth(_dome(-0.48, -1.26, 0.92)))
    canvas.fill(dome, colour, lit=True)
    for u in (-0.22, 0.22):
        ridge = np.array([[u + shift, -0.58], [0.8 * u + 0.6 * shift, -1.20]])
        canvas.stroke(head.flat(ridge), shade(colour, 0.75), 0.06 * head.unit, clip=dome)
    rim = ellipse((0.6 * shift, -0.50), (1.02, 0.10))
    canvas.fill(head.flat(rim), shade(colour, 0.8), lit=True)


def _hood(canvas: Canvas, head: Head, look: Look, shift: float) -> None:
    # A ring of cloth around the face that falls on the shoulders; a veil lies close to the chin.
    close = 1.10 if look.hat == "veil" else 1.32
    outer = np.array(
        [
            [0.0, -1.26],
            [0.66, -1.10],
            [1.00, -0.50],
            [1.02, 0.30],
            [0.98, 1.00],
            [1.25, 1.75],
            [0.0, 2.05],
            [-1.25, 1.75],
            [-0.98, 1.00],
            [-1.02, 0.30],
            [-1.00, -0.50],
            [-0.66, -1.10],
        ]
    )
    inner = np.array(
        [
            [0.0, -0.62],
            [-0.46, -0.50],
            [-0.69, -0.10],
            [-0.67, 0.50],
            [-0.44, close - 0.18],
            [0.0, close],
            [0.44, close - 0.18],
            [0.67, 0.50],
            [0.69, -0.10],
            [0.46, -0.50],
        ]
    )
    inner[:, 0] += shift * 0.6
    # One polygon with a hole: around the outside, in through a slit at the top, around the face.
    ring, hole = smooth(outer), smooth(inner)
    shape = np.concatenate([ring, ring[:1], hole, hole[:1]])
    canvas.fill(head.flat(shape), look.hat_colour, lit=True)
    canvas.stroke(
        head.flat(hole), shade(look.hat_colour, 0.55), 0.06 * head.unit, closed=True, alpha=0.7
    )
    for side in (-1, 1):
        fold = np.array([[0.78, -0.5], [0.86, 0.4], [0.70, 1.3]]) * (side, 1)
        canvas.stroke(
            head.flat(smooth(fold, closed=False)),
            shade(look.hat_colour, 0.65),
            0.06 * head.unit,
            alpha=0.5,
            soft=0.03 * head.unit,
        )


def draw_hand(canvas: Canvas, head: Head, look: Look) -> None:
    """A hand before the mouth or before half of the face, with its sleeve, if there is one."""
    if look.hand is None:
        return
    unit = head.unit
    side = 1 if look.seed % 2 else -1
    place = np.array([side * 0.30, 0.72]) if look.hand == "mouth" else np.array([side * 0.36, 0.10])
    place[0] += 0.5 * np.sin(head.yaw)
    wrist = np.array([[0.06, 0.30], [0.42, 0.10], [0.78, 0.72], [0.36, 0.92]]) * (side, 1)
    canvas.fill(head.flat(smooth(wrist) + place), shade(look.skin, 0.9), lit=True)
    sleeve = np.array(
        [[0.22, 0.78], [0.76, 0.50], [1.30, 1.10], [1.75, 2.10], [1.60, 2.90], [0.85, 2.70]]
    ) * (side, 1)
    canvas.fill(head.flat(smooth(sleeve) + place), look.top_colour)
    cuff = np.array([[0.20, 0.80], [0.52, 0.62], [0.78, 0.50]]) * (side, 1)
    edge = shade(look.top_colour, 0.6)
    canvas.stroke(head.flat(smooth(cuff, closed=False) + place), edge, 0.05 * unit)
    palm = np.array(
        [[-0.26, -0.16], [0.20, -0.28], [0.44, 0.02], [0.50, 0.32], [0.28, 0.46], [-0.14, 0.26]]
    ) * (side, 1)
    tone = shade(look.skin, 0.95)
    shadow = head.flat(smooth(palm) + place + (-0.04 * side, 0.08))
    canvas.fill(shadow, shade(look.skin, 0.3), alpha=0.5, soft=0.06 * unit, clip=head.outline)
    for finger in range(4):
        start = np.array([side * (0.16 - 0.05 * finger), -0.20 + 0.13 * finger])
        tip = np.array([side * (-0.40 - 0.06 * (finger == 1)), -0.34 + 0.155 * finger])
        joint = (start + tip) / 2 + (0.0, -0.05)
        line = head.flat(smooth(np.stack([start, joint, tip]), closed=False) + place)
        canvas.stroke(line, shade(look.skin, 0.5), 0.165 * unit, lit=True)
        canvas.stroke(line, tone, 0.125 * unit, lit=True)
        nail = head.flat(ellipse(tuple(tip + place), (0.045, 0.03), count=12))
        canvas.fill(nail, shade(look.skin, 1.2), alpha=0.8)
    canvas.fill(head.flat(smooth(palm) + place), tone, lit=True)
    thumb = np.array([[0.10, 0.30], [-0.16, 0.34], [-0.36, 0.18]]) * (side, 1)
    line = head.flat(smooth(thumb, closed=False) + place)
    canvas.stroke(line, shade(look.skin, 0.5), 0.19 * unit, lit=True)
    canvas.stroke(line, shade(look.skin, 0.97), 0.15 * unit, lit=True)
