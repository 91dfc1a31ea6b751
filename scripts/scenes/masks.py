"""Draws the masks: surgical, cloth, patterned, FFP2 and bandana, worn right or wrong."""

from __future__ import annotations

import numpy as np

from scenes.canvas import Canvas, Paint, ellipse, shade, smooth
from scenes.head import Head
from scenes.person import Look


def draw_mask(canvas: Canvas, head: Head, look: Look) -> None:
    """The mask with its straps; nothing when the person wears none."""
    if look.mask is None:
        return
    top, bottom = {"full": (0.10, 1.10), "nose": (0.46, 1.12), "chin": (0.80, 1.22)}[look.worn]
    lift = 0.12 if look.mask == "ffp2" else 0.06
    sides = 0.70 if look.mask in ("surgical", "cloth", "patterned") else 0.66
    straps = shade(look.mask_colour, 0.86) if look.mask != "surgical" else (232, 234, 236)
    if look.mask != "bandana":
        _straps(canvas, head, look, straps, top, bottom, sides)
    shape = head.surface(smooth(_outline(look, top, bottom, sides)), lift)
    shadow = shape + np.array([0.0, 0.05 * head.unit])
    canvas.fill(shadow, shade(look.skin, 0.4), alpha=0.45, soft=0.05 * head.unit, clip=head.outline)
    canvas.fill(shape, _fabric(head, look), lit=True)
    {
        "surgical": _surgical,
        "cloth": _cloth,
        "patterned": _cloth,
        "ffp2": _ffp2,
        "bandana": _bandana,
    }[look.mask](canvas, head, look, shape, (top, bottom, lift))


def _outline(look: Look, top: float, bottom: float, sides: float) -> np.ndarray:
    middle = (top + bottom) / 2
    if look.mask == "bandana":
        return np.array(
            [
                [0.0, top + 0.02],
                [0.34, top + 0.04],
                [0.76, top + 0.02],
                [0.78, middle],
                [0.46, bottom + 0.16],
                [0.0, bottom + 0.42],
                [-0.46, bottom + 0.16],
                [-0.78, middle],
                [-0.76, top + 0.02],
                [-0.34, top + 0.04],
            ]
        )
    peak = 0.05 if look.mask in ("cloth", "patterned", "ffp2") else 0.02
    low = 0.50 if look.mask == "ffp2" else 0.56
    right = np.array(
        [
            [0.16, top + 0.01],
            [0.42, top + 0.12],
            [sides, top + 0.16],
            [sides + 0.02, middle - 0.02],
            [low, bottom - 0.20],
            [0.28, bottom - 0.03],
        ]
    )
    return np.concatenate([[[0.0, top - peak]], right, [[0.0, bottom]], right[::-1] * (-1, 1)])


def _straps(
    canvas: Canvas,
    head: Head,
    look: Look,
    colour: tuple[float, float, float],
    top: float,
    bottom: float,
    sides: float,
) -> None:
    width = (0.05 if look.mask in ("surgical", "ffp2") else 0.06) * head.unit
    for side in (-1, 1):
        if head.faces_viewer(side * 0.72, 0.1) < -0.2:
            continue
        if look.mask == "ffp2":
            over = np.array([[sides, top + 0.25], [0.80, -0.20], [0.74, -0.52]])
            under = np.array([[0.52, bottom - 0.25], [0.80, 0.52], [0.86, 0.42]])
        else:
            over = np.array([[sides, top + 0.17], [0.76, 0.02], [0.81, -0.12]])
            under = np.array([[0.58, bottom - 0.24], [0.76, 0.40], [0.81, 0.16]])
        for line in (over, under):
            curve = head.surface(smooth(line * (side, 1), closed=False), 0.02)
            canvas.stroke(curve, shade(look.skin, 0.45), width, alpha=0.35, soft=0.3 * width)
            canvas.stroke(curve, colour, width)


def _fabric(head: Head, look: Look) -> Paint:
    base = np.asarray(look.mask_colour, np.float32)
    accent = np.asarray(look.mask_accent, np.float32)
    if look.mask not in ("patterned", "bandana"):
        return lambda xs, ys: np.broadcast_to(base, (ys.size, xs.size, 3))
    pattern = look.pattern
    rng = np.random.default_rng(look.seed + 3)
    pace = float(rng.uniform(9.0, 15.0))
    phases = rng.uniform(0, 6.3, 6)

    def paint(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        u, v = head.local(xs, ys)
        u = u - 0.6 * np.sin(head.yaw)
        if pattern == "stripes":
            strength = np.sin(pace * v + 2.0 * u * u) > 0
        elif pattern == "checks":
            strength = 0.5 * (np.sin(pace * u) > 0) + 0.5 * (np.sin(pace * v) > 0)
        elif pattern == "dots":
            strength = np.sin(pace * u) * np.sin(pace * v) > 0.45
        elif pattern == "flowers":
            turn = np.arctan2(np.sin(pace * v * 0.7), np.sin(pace * u * 0.7))
            reach = np.hypot(np.sin(pace * u * 0.7), np.sin(pace * v * 0.7))
            strength = reach < 0.5 + 0.25 * np.cos(5 * turn)
        else:
            wave = np.sin(6 * u + phases[0]) + np.sin(7 * v + phases[1])
            wave = wave + np.sin(5 * (u + v) + phases[2]) + np.sin(8 * (u - v) + phases[3])
            strength = np.clip(np.floor(wave * 0.8 + 1.5) / 3, 0, 1)
        strength = np.asarray(strength, np.float32)[..., None]
        return base + strength * (accent - base)

    return paint


Extent = tuple[float, float, float]  # top, bottom, lift


def _across(head: Head, v: float, bow: float, reach: float, lift: float) -> np.ndarray:
    line = np.array([[-reach, v], [-reach / 2, v + bow], [0, v + 1.3 * bow], [reach / 2, v + bow]])
    line = np.concatenate([line, [[reach, v]]])
    return head.surface(smooth(line, closed=False), lift)


def _surgical(canvas: Canvas, head: Head, look: Look, shape: np.ndarray, extent: Extent) -> None:
    top, bottom, lift = extent
    unit = head.unit
    dark, light = shade(look.mask_colour, 0.74), shade(look.mask_colour, 1.5)
    for part in (0.30, 0.48, 0.66):
        v = top + part * (bottom - top)
        pleat = _across(head, v, 0.05, 0.70, lift)
        canvas.stroke(
            pleat, dark, 0.045 * unit, alpha=0.65, soft=0.012 * unit, lit=True, clip=shape
        )
        canvas.stroke(
            pleat - (0, 0.04 * unit), light, 0.03 * unit, alpha=0.5, soft=0.01 * unit, clip=shape
        )
    hem = _across(head, top + 0.13, -0.06, 0.66, lift)
    canvas.stroke(hem, light, 0.05 * unit, alpha=0.45, clip=shape, lit=True)
    canvas.stroke(shape, dark, 0.025 * unit, closed=True, alpha=0.7, lit=True)
    wire = head.surface(
        np.array([[-0.20, top + 0.07], [0.0, top + 0.03], [0.20, top + 0.07]]), lift
    )
    canvas.stroke(wire, dark, 0.03 * unit, alpha=0.7)


def _cloth(canvas: Canvas, head: Head, look: Look, shape: np.ndarray, extent: Extent) -> None:
    top, bottom, lift = extent
    unit = head.unit
    seam = np.array([[0.0, top], [0.0, (top + bottom) / 2], [0.0, bottom]])
    line = head.surface(smooth(seam, closed=False), lift + 0.02)
    canvas.stroke(line, shade(look.mask_colour, 0.55), 0.03 * unit, alpha=0.7, clip=shape)
    gleam = head.surface(ellipse((-0.22, top + 0.35), (0.20, 0.17)), lift)
    canvas.fill(
        gleam, shade(look.mask_colour, 1.5), alpha=0.30, soft=0.08 * unit, lit=True, clip=shape
    )
    for side in (-1, 1):
        crease = np.array([[0.66, top + 0.35], [0.42, top + 0.45], [0.22, top + 0.62]]) * (side, 1)
        canvas.stroke(
            head.surface(smooth(crease, closed=False), lift),
            shade(look.mask_colour, 0.5),
            0.04 * unit,
            alpha=0.45,
            soft=0.02 * unit,
            clip=shape,
        )
    canvas.stroke(
        shape, shade(look.mask_colour, 0.6), 0.03 * unit, closed=True, alpha=0.6, lit=True
    )


def _ffp2(canvas: Canvas, head: Head, look: Look, shape: np.ndarray, extent: Extent) -> None:
    top, bottom, lift = extent
    unit = head.unit
    dark = shade(look.mask_colour, 0.7)
    ring = head.surface(ellipse((0.0, (top + bottom) / 2 + 0.02), (0.44, 0.38)), lift + 0.05)
    canvas.fill(
        ring, shade(look.mask_colour, 1.6), alpha=0.45, soft=0.10 * unit, lit=True, clip=shape
    )
    for part in (0.28, 0.80):
        bow = 0.14 if part > 0.5 else -0.10
        canvas.stroke(
            _across(head, top + part * (bottom - top), bow, 0.60, lift + 0.03),
            dark,
            0.035 * unit,
            alpha=0.6,
            soft=0.01 * unit,
            clip=shape,
        )
    if look.seed % 2:
        valve = head.surface(ellipse((0.20, 0.70), (0.15, 0.13)), lift + 0.06)
        canvas.fill(valve, shade(look.mask_colour, 0.82), lit=True)
        canvas.stroke(valve, dark, 0.03 * unit, closed=True)
        slot = head.surface(ellipse((0.20, 0.71), (0.09, 0.04)), lift + 0.06)
        canvas.fill(slot, shade(look.mask_colour, 0.6))
    canvas.stroke(shape, dark, 0.03 * unit, closed=True, alpha=0.7)


def _bandana(canvas: Canvas, head: Head, look: Look, shape: np.ndarray, extent: Extent) -> None:
    top, bottom, lift = extent
    unit = head.unit
    for side in (-1, 1):
        for reach in (0.35, 0.62):
            fold = np.array([[0.74, top + 0.1], [reach, (top + bottom) / 2], [0.08, bottom + 0.3]])
            canvas.stroke(
                head.surface(smooth(fold * (side, 1), closed=False), lift),
                shade(look.mask_colour, 0.5),
                0.05 * unit,
                alpha=0.5,
                soft=0.03 * unit,
                clip=shape,
            )
    canvas.stroke(shape, shade(look.mask_colour, 0.55), 0.025 * unit, closed=True, alpha=0.6)
