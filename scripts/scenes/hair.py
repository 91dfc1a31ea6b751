"""Draws hair: what hangs behind the head, and the cap with its hairline before it."""

from __future__ import annotations

import numpy as np

from scenes.canvas import Canvas, ellipse, shade, smooth
from scenes.head import Head
from scenes.person import Look


def draw_hair_behind(canvas: Canvas, head: Head, look: Look) -> None:
    """The hair that neck and face cover: the back of the skull, a bob, long hair, a bun, curls."""
    if look.style == "bald":
        return
    back = -0.22 * np.sin(head.yaw)
    dark = shade(look.hair, 0.72)
    canvas.fill(head.flat(ellipse((back, -0.22), (0.84, 0.86))), dark, lit=True)
    if look.style in ("bob", "long"):
        low = 0.85 if look.style == "bob" else 2.0
        flow = np.array(
            [
                [0.0, -1.06],
                [0.62, -0.92],
                [0.92, -0.30],
                [1.00, 0.40],
                [0.98, low - 0.2],
                [0.66, low],
                [-0.66, low],
                [-0.98, low - 0.2],
                [-1.00, 0.40],
                [-0.92, -0.30],
                [-0.62, -0.92],
            ]
        )
        flow[:, 0] += back
        outline = head.flat(smooth(flow))
        canvas.fill(outline, dark, lit=True)
        _strands(canvas, head, look, outline, low - 0.1)
    elif look.style == "bun":
        bun = ellipse((back, -1.18), (0.34, 0.30))
        canvas.fill(head.flat(bun), look.hair, lit=True)
        ring = ellipse((back, -1.18), (0.22, 0.18))
        canvas.stroke(head.flat(ring), dark, 0.04 * head.unit, closed=True, alpha=0.6)
    elif look.style == "curly":
        rng = np.random.default_rng(look.seed)
        for turn in np.linspace(-2.6, 2.6, 15):
            radius = 0.28 + 0.08 * rng.random()
            u, v = back + 0.84 * np.sin(turn), -0.26 - 0.84 * np.cos(turn)
            if v < 0.62:
                canvas.fill(head.flat(ellipse((u, v), (radius, radius), count=16)), dark, lit=True)


def _strands(canvas: Canvas, head: Head, look: Look, outline: np.ndarray, low: float) -> None:
    rng = np.random.default_rng(look.seed + 1)
    for u in np.linspace(-0.92, 0.92, 11):
        if abs(u) < 0.5:
            continue  # the face is before it
        wave = u + rng.uniform(-0.08, 0.08, 4)
        line = np.stack([wave, np.linspace(-0.4, low, 4)], axis=1)
        tone = shade(look.hair, 0.5 if rng.random() < 0.5 else 1.12)
        curve = head.flat(smooth(line, closed=False))
        canvas.stroke(curve, tone, 0.03 * head.unit, alpha=0.5, lit=True, clip=outline)


def draw_hair_before(canvas: Canvas, head: Head, look: Look) -> None:
    """The cap of hair over the forehead; its lower edge is the hairline of the style."""
    if look.style == "bald":
        gleam = head.flat(ellipse((-0.12, -0.78), (0.24, 0.10)))
        canvas.fill(gleam, (255, 255, 255), alpha=0.25, soft=0.09 * head.unit, clip=head.outline)
        return
    shift = 0.42 * np.sin(head.yaw)
    puff = {"crop": 0.03, "curly": 0.17, "short": 0.09}.get(look.style, 0.07)
    side = {"crop": -0.12, "bob": 0.62, "long": 0.95, "curly": -0.02}.get(look.style, 0.02)
    inner = 0.70 if side > 0.3 else 0.73
    line = _hairline(look)
    line[:, 0] = line[:, 0] + shift * (1 - np.abs(line[:, 0]))
    edge = 0.80 + puff * 0.6
    cap = np.concatenate(
        [
            [[-inner, side], [-edge, min(side, 0.1)], [-edge - puff * 0.2, -0.30]],
            [[-0.66 - puff * 0.5, -0.80 - puff * 0.3], [-0.30, -1.00 - puff], [0.05, -1.04 - puff]],
            [[0.40, -0.98 - puff], [0.68 + puff * 0.5, -0.78 - puff * 0.3]],
            [[edge + puff * 0.2, -0.30], [edge, min(side, 0.1)], [inner, side]],
            line,
        ]
    )
    polygon = head.flat(smooth(cap, steps=5))
    canvas.fill(polygon, look.hair, lit=True)
    rng = np.random.default_rng(look.seed)
    for u in np.linspace(-0.62, 0.62, 9):
        tone = shade(look.hair, 0.6) if rng.random() < 0.5 else shade(look.hair, 1.14)
        start = np.array([0.15 * u + shift, -1.04 - puff])
        end = np.array([u * 1.15 + 0.1 * rng.random(), -0.42 + 0.2 * rng.random()])
        bow = (start + end) / 2 + (0.25 * u, -0.10)
        strand = head.flat(smooth(np.stack([start, bow, end]), closed=False))
        canvas.stroke(strand, tone, 0.028 * head.unit, alpha=0.45, lit=True, clip=polygon)
    gloss = head.flat(ellipse((-0.18 + shift, -0.86), (0.30, 0.07), -0.25))
    canvas.fill(
        gloss, shade(look.hair, 1.45), alpha=0.35, soft=0.05 * head.unit, lit=True, clip=polygon
    )


def _hairline(look: Look) -> np.ndarray:
    # From the viewer's right to the left, between the two temples.
    if look.style == "fringe":
        return np.array(
            [[0.58, -0.30], [0.30, -0.36], [0.0, -0.33], [-0.30, -0.37], [-0.58, -0.30]]
        )
    if look.style == "parted":
        return np.array(
            [[0.62, -0.38], [0.34, -0.72], [-0.02, -0.58], [-0.36, -0.46], [-0.62, -0.32]]
        )
    if look.style in ("bob", "long"):
        return np.array(
            [[0.60, -0.20], [0.36, -0.56], [0.03, -0.76], [-0.33, -0.56], [-0.60, -0.20]]
        )
    high = -0.62 - 0.12 * look.age
    return np.array(
        [[0.62, -0.42], [0.40, high], [0.0, high + 0.04], [-0.40, high], [-0.62, -0.42]]
    )
