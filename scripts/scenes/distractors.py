"""Draws things that are no faces but share something with them: round, pale, eyed, or a mask."""

from __future__ import annotations

import numpy as np

from scenes.canvas import Canvas, ellipse, mix, moved, rectangle, shade, smooth
from scenes.person import BRIGHT, CLOTH, HAIRS, SKINS, SURGICAL, pick


def draw_distractors(rng: np.random.Generator, canvas: Canvas, size: float) -> None:
    """A few of them behind the people; `size` is about a head's height in pixels."""
    # With each the band of the picture, from the top, in which its middle lies.
    kinds = (
        (_ball, 0.75, 0.95),
        (_smiley, 0.12, 0.5),
        (_hanging_mask, 0.15, 0.5),
        (_back_of_head, 0.25, 0.6),
        (_clock, 0.15, 0.45),
        (_balloon, 0.12, 0.5),
        (_plant, 0.6, 0.85),
    )
    for _ in range(int(rng.integers(0, 4))):
        kind, high, low = kinds[int(rng.integers(len(kinds)))]
        x, y = canvas.width * rng.random(), canvas.height * rng.uniform(high, low)
        kind(rng, canvas, float(x), float(y), size * float(rng.uniform(0.3, 0.6)))


def _sphere(canvas: Canvas, x: float, y: float, radius: float, colour) -> np.ndarray:
    base = np.asarray(colour, np.float32)

    def paint(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        reach = np.hypot((xs - x) / radius + 0.35, (ys - y) / radius + 0.4)
        return np.clip(1.15 - 0.5 * reach, 0.25, 1.2)[..., None] * base

    outline = ellipse((x, y), (radius, radius))
    canvas.fill(outline, paint)
    return outline


def _ball(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    colour = pick(rng, (*BRIGHT, (222, 120, 50), (210, 230, 80)))
    outline = _sphere(canvas, x, y, size, colour)
    for bow in (-0.5, 0.0, 0.5):
        seam = np.array([[-1.0, 2 * bow], [0.0, bow], [1.0, 2 * bow]]) * size + (x, y)
        canvas.stroke(
            smooth(seam, closed=False), shade(colour, 0.35), 0.06 * size, alpha=0.7, clip=outline
        )


def _balloon(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    colour = pick(rng, (*BRIGHT, *SKINS[2:5]))
    _string(canvas, x, y + size, size)
    _sphere(canvas, x, y, size, colour)
    shine = ellipse((x - 0.35 * size, y - 0.4 * size), (0.16 * size, 0.26 * size), 0.5)
    canvas.fill(shine, (255, 255, 255), alpha=0.6, soft=0.06 * size)


def _string(canvas: Canvas, x: float, y: float, size: float) -> None:
    low = canvas.height - y
    line = np.array([[0.0, 0.0], [0.2 * size, 0.4 * low], [-0.1 * size, 0.7 * low], [0.0, low]])
    canvas.stroke(smooth(moved(line, x, y), closed=False), (90, 90, 90), 0.04 * size)


def _smiley(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    colour = pick(rng, ((250, 210, 50), (250, 220, 90), (236, 130, 50)))
    _string(canvas, x, y + size, size)
    canvas.fill(ellipse((x, y), (size, size)), colour)
    canvas.stroke(ellipse((x, y), (size, size)), (40, 34, 20), 0.08 * size, closed=True)
    for side in (-1, 1):
        eye = ellipse((x + side * 0.36 * size, y - 0.28 * size), (0.11 * size, 0.2 * size))
        canvas.fill(eye, (30, 26, 20))
    mouth = np.array([[-0.5, 0.22], [0.0, 0.58], [0.5, 0.22]]) * size + (x, y)
    canvas.stroke(smooth(mouth, closed=False), (30, 26, 20), 0.1 * size)


def _hanging_mask(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float
) -> None:
    colour = pick(rng, SURGICAL + CLOTH[:3])
    shape = smooth(
        np.array([[-1, -0.5], [0, -0.62], [1, -0.5], [0.9, 0.45], [0, 0.62], [-0.9, 0.45]])
    )
    # It hangs from a line across the picture.
    line = np.array([[0.0, y - 0.62 * size], [canvas.width, y - 0.55 * size]])
    canvas.stroke(line, (70, 66, 60), 0.05 * size)
    for side in (-1, 1):
        loop = ellipse((x + side * 1.05 * size, y), (0.3 * size, 0.42 * size), count=20)
        canvas.stroke(loop, (236, 236, 236), 0.07 * size, closed=True)
    canvas.fill(shape * size + (x, y), colour)
    for v in (-0.2, 0.05, 0.3):
        pleat = np.array([[-0.92, v], [0.0, v + 0.06], [0.92, v]]) * size + (x, y)
        canvas.stroke(smooth(pleat, closed=False), shade(colour, 0.75), 0.06 * size, alpha=0.7)
    canvas.stroke(shape * size + (x, y), shade(colour, 0.7), 0.04 * size, closed=True)


def _back_of_head(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float
) -> None:
    # Hair, ears and shoulders, no face.
    hair = pick(rng, HAIRS)
    skin = pick(rng, SKINS)
    unit = size * 1.3
    torso = smooth(
        np.array([[-0.4, 0.9], [0.4, 0.9], [1.7, 1.5], [1.9, 4.0], [-1.9, 4.0], [-1.7, 1.5]])
    )
    canvas.fill(torso * unit + (x, y), pick(rng, BRIGHT + CLOTH))
    canvas.fill(rectangle(-0.36, 0.5, 0.36, 1.25) * unit + (x, y), shade(skin, 0.85))
    for side in (-1, 1):
        ear = ellipse((x + side * 0.76 * unit, y + 0.1 * unit), (0.1 * unit, 0.2 * unit), count=16)
        canvas.fill(ear, shade(skin, 0.9))
    _sphere_hair(canvas, x, y, unit, hair)


def _sphere_hair(canvas: Canvas, x: float, y: float, unit: float, hair) -> None:
    outline = ellipse((x, y - 0.05 * unit), (0.78 * unit, 0.98 * unit))
    canvas.fill(outline, shade(hair, 0.9))
    for u in np.linspace(-0.6, 0.6, 9):
        strand = np.array([[0.1 * u, -1.0], [u, -0.3], [u * 0.8, 0.8]]) * unit + (x, y)
        canvas.stroke(
            smooth(strand, closed=False), shade(hair, 1.15), 0.04 * unit, alpha=0.5, clip=outline
        )


def _clock(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    pole = rectangle(x - 0.1 * size, y, x + 0.1 * size, canvas.height)
    canvas.fill(pole, (60, 60, 66))
    canvas.fill(ellipse((x, y), (size, size)), (40, 40, 44))
    canvas.fill(ellipse((x, y), (0.88 * size, 0.88 * size)), (244, 242, 236))
    for turn in np.arange(12) * np.pi / 6:
        tick = np.array([[0.72, 0.0], [0.82, 0.0]]) * size
        cos, sin = np.cos(turn), np.sin(turn)
        canvas.stroke(
            tick @ np.array([[cos, sin], [-sin, cos]]) + (x, y), (40, 40, 44), 0.05 * size
        )
    for reach, turn in ((0.45, rng.uniform(0, 6.28)), (0.66, rng.uniform(0, 6.28))):
        hand = np.array([[0.0, 0.0], [reach * np.cos(turn), reach * np.sin(turn)]]) * size + (x, y)
        canvas.stroke(hand, (30, 30, 34), 0.07 * size)


def _plant(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    pot = np.array([[-0.5, 0.2], [0.5, 0.2], [0.36, 1.0], [-0.36, 1.0]]) * size + (x, y)
    for turn in np.linspace(-2.6, -0.5, 9):
        reach = size * rng.uniform(0.9, 1.6)
        tip = np.array([x + reach * np.cos(turn), y + reach * np.sin(turn)])
        leaf = ellipse(
            ((tip[0] + x) / 2, (tip[1] + y) / 2), (reach / 2, 0.14 * size), float(turn), count=16
        )
        canvas.fill(leaf, (50 + 40 * rng.random(), 110 + 50 * rng.random(), 60))
    canvas.fill(pot, (176, 98, 66))


def draw_sign(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    """A traffic sign on its pole or a board with lines of writing."""
    if rng.random() < 0.6:
        canvas.fill(rectangle(x - 0.08 * size, y, x + 0.08 * size, canvas.height), (120, 122, 126))
        rim = pick(rng, ((204, 40, 44), (40, 90, 180), (204, 40, 44)))
        inside = (246, 246, 244) if rim[0] > 100 else rim
        canvas.fill(ellipse((x, y), (size, size)), rim)
        canvas.fill(ellipse((x, y), (0.76 * size, 0.76 * size)), inside)
        bar = rectangle(-0.5, -0.14, 0.5, 0.14) * size + (x, y)
        canvas.fill(bar, (30, 30, 34) if rim[0] > 100 else (250, 250, 250))
        return
    board = rectangle(-1.7, -0.8, 1.7, 0.8) * size + (x, y)
    colour = pick(rng, BRIGHT)
    canvas.fill(board, colour)
    ink = mix(colour, (255, 255, 255), 0.8) if sum(colour) < 420 else (36, 36, 40)
    for v in (-0.4, 0.0, 0.4):
        at = -1.4
        while at < 1.2:
            word = float(rng.uniform(0.2, 0.6))
            stroke = rectangle(at, v - 0.1, min(at + word, 1.4), v + 0.1) * size + (x, y)
            canvas.fill(stroke, ink, alpha=0.85)
            at += word + 0.15


def draw_picture(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    """A framed landscape on a wall."""
    frame = rectangle(-1.2, -0.9, 1.2, 0.9) * size + (x, y)
    canvas.fill(frame, pick(rng, ((70, 48, 30), (190, 160, 90), (30, 30, 32))))
    inner = rectangle(-1.05, -0.75, 1.05, 0.75) * size + (x, y)
    canvas.fill(inner, tuple(rng.uniform(120, 230, 3)))
    hill = np.array(
        [[-1.05, 0.75], [-1.05, 0.2], [-0.3, -0.1], [0.4, 0.3], [1.05, 0.0], [1.05, 0.75]]
    )
    canvas.fill(hill * size + (x, y), tuple(rng.uniform(60, 160, 3)), clip=inner)
    sun = ellipse((x + 0.4 * size, y - 0.35 * size), (0.2 * size, 0.2 * size), count=20)
    canvas.fill(sun, (250, 230, 150), clip=inner)
