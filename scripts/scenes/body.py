"""Draws what is under the head: neck, shoulders and clothes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scenes.canvas import Canvas, ellipse, shade, smooth
from scenes.head import Head
from scenes.person import Look

SHOULDERS = 1.95  # half width of the shoulders in units of the head


def draw_body(canvas: Canvas, head: Head, look: Look) -> None:
    """Shoulders and clothes down to the picture's lower edge, and the neck."""
    body = replace(head, roll=0.25 * head.roll, yaw=0.0, pitch=0.0, breadth=1.0)
    unit = head.unit
    low = max(4.0, (canvas.height - head.y) / unit + 0.5)
    torso = np.array(
        [
            [0.40, 1.34],
            [0.95, 1.58],
            [1.55, 1.80],
            [SHOULDERS, 2.35],
            [SHOULDERS + 0.25, 3.6],
            [SHOULDERS + 0.2, low],
            [-SHOULDERS - 0.2, low],
            [-SHOULDERS - 0.25, 3.6],
            [-SHOULDERS, 2.35],
            [-1.55, 1.80],
            [-0.95, 1.58],
            [-0.40, 1.34],
        ]
    )
    outline = body.flat(smooth(torso))
    colour = look.top_colour
    canvas.fill(outline, _folds(body, look))
    arm = shade(colour, 0.55)
    for side in (-1, 1):
        seam = np.array([[1.42, 2.3], [1.50, 3.0], [1.46, low]]) * (side, 1)
        canvas.stroke(
            body.flat(smooth(seam, closed=False)), arm, 0.07 * unit, alpha=0.5, soft=0.05 * unit
        )
    _clothes(canvas, body, look, outline, low)
    _neck(canvas, body, head, look)
    if look.top in ("suit", "shirt", "coat"):
        for side in (-1, 1):
            collar = np.array([[0.40, 1.26], [0.60, 1.50], [0.18, 1.92], [0.0, 1.62]]) * (side, 1)
            tone = (236, 236, 238) if look.top == "suit" else shade(colour, 1.12)
            canvas.fill(body.flat(collar), tone)
            canvas.stroke(body.flat(collar), shade(tone, 0.6), 0.02 * unit, closed=True, alpha=0.6)
    if look.top == "hoodie":
        hood = np.array([[-0.98, 1.50], [-0.50, 1.20], [0.0, 1.72], [0.50, 1.20], [0.98, 1.50]])
        hood = np.concatenate([hood, [[0.62, 1.86], [0.0, 2.02], [-0.62, 1.86]]])
        canvas.fill(body.flat(smooth(hood)), shade(colour, 0.8))
    if look.scarf:
        _scarf(canvas, body, look)


def _folds(body: Head, look: Look):
    rng = np.random.default_rng(look.seed + 7)
    phase, pace = rng.uniform(0, 6), rng.uniform(2.0, 4.0)
    base = np.asarray(look.top_colour, np.float32)

    def paint(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        u, v = body.local(xs, ys)
        tone = 1.0 - 0.10 * (u / 2.0) ** 2 - 0.05 * (v - 1.5) + 0.06 * np.sin(pace * u + v + phase)
        if look.top == "striped":
            tone = np.where(np.sin(9.0 * v) > 0.2, tone, tone * 0.55 + 0.45)
        return np.clip(tone, 0.25, 1.15)[..., None] * base

    return paint


def _neck(canvas: Canvas, body: Head, head: Head, look: Look) -> None:
    unit = head.unit
    lean = 0.10 * np.sin(head.yaw) - 0.9 * np.sin(head.roll)
    neck = np.array(
        [
            [-0.44 + 0.3 * lean, 0.50],
            [0.44 + 0.3 * lean, 0.50],
            [0.43, 1.30],
            [0.62, 1.52],
            [0.0, 1.84],
            [-0.62, 1.52],
            [-0.43, 1.30],
        ]
    )
    outline = body.flat(smooth(neck))
    canvas.fill(outline, shade(look.skin, 0.86), lit=False)
    under = body.flat(ellipse((0.35 * lean, 0.92), (0.62, 0.34)))
    canvas.fill(under, shade(look.skin, 0.45), alpha=0.75, soft=0.12 * unit, clip=outline)


def _clothes(canvas: Canvas, body: Head, look: Look, outline: np.ndarray, low: float) -> None:
    unit = body.unit
    colour = look.top_colour
    if look.top == "suit":
        shirt = np.array([[-0.42, 1.36], [0.42, 1.36], [0.0, 3.4]])
        canvas.fill(body.flat(shirt), (232, 234, 238))
        tie = np.array([[-0.10, 1.70], [0.10, 1.70], [0.17, 2.7], [0.0, 3.0], [-0.17, 2.7]])
        canvas.fill(body.flat(tie), look.scarf_colour)
        for side in (-1, 1):
            lapel = np.array([[0.42, 1.40], [0.86, 1.72], [0.70, 2.3], [0.05, 3.3]]) * (side, 1)
            canvas.fill(body.flat(lapel), shade(colour, 0.82), clip=outline)
            canvas.stroke(body.flat(lapel), shade(colour, 0.5), 0.03 * unit, closed=True, alpha=0.6)
    elif look.top in ("shirt", "coat"):
        line = body.flat(np.array([[0.0, 1.7], [0.03, low]]))
        canvas.stroke(line, shade(colour, 0.6), 0.035 * unit, alpha=0.8)
        for v in np.arange(2.2, low, 0.55):
            button = body.flat(ellipse((0.07, float(v)), (0.045, 0.045), count=12))
            canvas.fill(button, shade(colour, 1.4))
    elif look.top == "tee":
        badge = body.flat(ellipse((0.0, 2.75), (0.42, 0.34)))
        canvas.fill(badge, look.mask_accent, alpha=0.85)
        canvas.stroke(badge, shade(look.mask_accent, 0.6), 0.05 * unit, closed=True)


def _scarf(canvas: Canvas, body: Head, look: Look) -> None:
    unit = body.unit
    wrap = np.array(
        [
            [-0.74, 1.02],
            [-0.30, 1.14],
            [0.30, 1.14],
            [0.74, 1.02],
            [0.92, 1.42],
            [0.50, 1.80],
            [-0.50, 1.80],
            [-0.92, 1.42],
        ]
    )
    canvas.fill(body.flat(smooth(wrap)), look.scarf_colour)
    end = np.array([[0.20, 1.55], [0.62, 1.55], [0.70, 2.9], [0.30, 2.9]])
    canvas.fill(body.flat(end), shade(look.scarf_colour, 0.88))
    for v in (1.24, 1.42, 1.60):
        fold = np.array([[-0.82, v - 0.04], [0.0, v + 0.10], [0.82, v - 0.04]])
        canvas.stroke(
            body.flat(smooth(fold, closed=False)),
            shade(look.scarf_colour, 0.6),
            0.05 * unit,
            alpha=0.6,
            soft=0.02 * unit,
        )
