"""Draws what is behind the people: rooms, streets, parks, halls, studios, lights at night."""

from __future__ import annotations

import cv2
import numpy as np

from scenes.canvas import Canvas, Colour, ellipse, mix, noise, rectangle, shade, smooth
from scenes.distractors import draw_picture, draw_sign
from scenes.person import pick

WALLS: tuple[Colour, ...] = (
    (214, 206, 190),
    (188, 200, 206),
    (224, 214, 200),
    (170, 184, 160),
    (206, 178, 160),
    (150, 158, 172),
    (232, 230, 224),
    (120, 110, 130),
)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Canvas:
    """A picture without people of one of the kinds, slightly out of focus."""
    kinds = (_room, _street, _park, _hall, _studio, _night)
    canvas = Canvas.blank(width, height)
    kinds[int(rng.integers(len(kinds)))](rng, canvas)
    blur = float(rng.choice([0.0, 0.6, 1.2, 2.4])) * height / 400
    if blur > 0.3:
        canvas.pixels = cv2.GaussianBlur(canvas.pixels, (0, 0), blur)
    return canvas


def _gradient(canvas: Canvas, top: Colour, bottom: Colour, y1: float, y2: float) -> None:
    first, last = max(0, round(y1)), min(canvas.height, round(y2))
    if first >= last:
        return
    ramp = np.linspace(0, 1, last - first, dtype=np.float32)[:, None, None]
    colours = np.asarray(top, np.float32) * (1 - ramp) + np.asarray(bottom, np.float32) * ramp
    canvas.pixels[first:last] = colours


def _grain(
    rng: np.random.Generator, canvas: Canvas, strength: float, cells: float, y1: float, y2: float
) -> None:
    first, last = max(0, round(y1)), min(canvas.height, round(y2))
    if last - first < 2:
        return
    field = noise(rng, canvas.width, last - first, cells)
    canvas.pixels[first:last] *= 1.0 + strength * field[..., None]


def _room(rng: np.random.Generator, canvas: Canvas) -> None:
    w, h = canvas.width, canvas.height
    wall = pick(rng, WALLS)
    floor = h * rng.uniform(0.72, 0.92)
    _gradient(canvas, shade(wall, 1.1), shade(wall, 0.85), 0, floor)
    if rng.random() < 0.5:
        step = w / rng.integers(12, 30)
        for x in np.arange(0, w, 2 * step):
            canvas.fill(rectangle(x, 0, x + step, floor), shade(wall, 0.93), alpha=0.7)
    _gradient(canvas, (120, 92, 68), (84, 62, 46), floor, h)
    for x in np.linspace(-w, 2 * w, 16):
        canvas.stroke(
            np.array([[w / 2 + (x - w / 2) * 0.6, floor], [x, h]]), (70, 50, 36), 1.5, alpha=0.5
        )
    canvas.fill(rectangle(0, floor - 0.02 * h, w, floor), shade(wall, 0.7))
    if rng.random() < 0.6:
        _window(rng, canvas, w * rng.uniform(0.02, 0.6), h * 0.08, w * 0.32, h * 0.42)
    if rng.random() < 0.6:
        _shelf(rng, canvas, w * rng.uniform(0.0, 0.7), h * rng.uniform(0.1, 0.3), w * 0.3, h * 0.5)
    for _ in range(int(rng.integers(0, 3))):
        draw_picture(rng, canvas, w * rng.uniform(0.05, 0.85), h * rng.uniform(0.1, 0.4), h * 0.13)
    if rng.random() < 0.4:
        _curtain(rng, canvas, 0 if rng.random() < 0.5 else w * 0.82, w * 0.18)


def _window(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, width: float, height: float
) -> None:
    frame = (236, 234, 228)
    canvas.fill(rectangle(x - 6, y - 6, x + width + 6, y + height + 6), frame)
    sky = pick(rng, ((150, 196, 232), (206, 220, 230), (60, 74, 110), (240, 190, 140)))

    def glass(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        amount = np.clip((ys - y) / height, 0, 1)[..., None]
        return np.asarray(sky, np.float32) * (1 - 0.3 * amount) + 60.0 * amount + 0 * xs[..., None]

    canvas.fill(rectangle(x, y, x + width, y + height), glass)
    for part in (1 / 3, 2 / 3):
        canvas.fill(rectangle(x + part * width - 2, y, x + part * width + 2, y + height), frame)
    canvas.fill(rectangle(x, y + height / 2 - 2, x + width, y + height / 2 + 2), frame)


def _shelf(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, width: float, height: float
) -> None:
    wood = pick(rng, ((110, 78, 50), (150, 116, 80), (80, 60, 48), (220, 216, 208)))
    canvas.fill(rectangle(x, y, x + width, y + height), shade(wood, 0.6))
    rows = int(rng.integers(2, 5))
    for row in range(rows):
        base = y + (row + 1) * height / rows
        at = x + 3
        while at < x + width - 6:
            thick = float(rng.uniform(0.03, 0.09)) * width
            tall = float(rng.uniform(0.5, 0.85)) * height / rows
            colour = tuple(rng.uniform(40, 220, 3))
            canvas.fill(rectangle(at, base - tall, min(at + thick, x + width - 3), base), colour)
            at += thick + 1
        canvas.fill(rectangle(x, base - 2, x + width, base + 3), wood)


def _curtain(rng: np.random.Generator, canvas: Canvas, x: float, width: float) -> None:
    colour = np.asarray(rng.uniform(60, 220, 3), np.float32)
    pace = float(rng.uniform(0.15, 0.3))

    def cloth(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        fold = 0.8 + 0.2 * np.sin(pace * xs + 0.004 * ys)
        return fold[..., None] * colour

    canvas.fill(rectangle(x, 0, x + width, canvas.height), cloth)


def _street(rng: np.random.Generator, canvas: Canvas) -> None:
    w, h = canvas.width, canvas.height
    sky = pick(rng, ((140, 186, 226), (196, 204, 210), (236, 206, 170), (90, 110, 150)))
    horizon = h * rng.uniform(0.55, 0.75)
    _gradient(canvas, sky, mix(sky, (240, 240, 236), 0.5), 0, horizon)
    x = -0.05 * w
    while x < w:
        wide = w * rng.uniform(0.12, 0.3)
        tall = h * rng.uniform(0.25, 0.65)
        _building(rng, canvas, x, horizon - tall, wide, tall + 4)
        x += wide * rng.uniform(0.85, 1.15)
    _gradient(canvas, (128, 126, 122), (86, 86, 88), horizon, h)
    _grain(rng, canvas, 0.06, 60, horizon, h)
    for part in np.linspace(0.1, 0.9, 5):
        y = horizon + (h - horizon) * part
        wide = 0.02 + 0.05 * part
        canvas.fill(
            rectangle(w * (0.5 - wide), y, w * (0.5 + wide), y + 2 + 6 * part), (214, 210, 190)
        )
    for _ in range(int(rng.integers(0, 3))):
        _car(rng, canvas, w * rng.uniform(0, 0.85), horizon + 0.02 * h, h * rng.uniform(0.08, 0.16))
    for _ in range(int(rng.integers(1, 4))):
        draw_sign(rng, canvas, w * rng.uniform(0.03, 0.97), h * rng.uniform(0.12, 0.4), h * 0.07)
    if rng.random() < 0.5:
        _tree(rng, canvas, w * rng.uniform(0, 1), horizon, h * rng.uniform(0.3, 0.5))


def _building(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, width: float, height: float
) -> None:
    wall = tuple(rng.uniform(90, 200) + rng.uniform(-25, 25, 3))
    canvas.fill(rectangle(x, y, x + width, y + height), wall)
    columns, rows = int(rng.integers(3, 7)), max(2, int(height / width * 4))
    pane = pick(rng, ((60, 74, 92), (240, 220, 150), (150, 180, 200), (40, 44, 52)))
    for column in range(columns):
        for row in range(rows):
            left = x + (column + 0.25) * width / columns
            top = y + (row + 0.25) * height / rows
            right, bottom = left + 0.5 * width / columns, top + 0.55 * height / rows
            canvas.pixels[
                max(0, round(top)) : max(0, round(bottom)),
                max(0, round(left)) : max(0, round(right)),
            ] = shade(pane, 0.75 + 0.35 * rng.random())


def _car(rng: np.random.Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    colour = tuple(rng.uniform(30, 220, 3))
    body = np.array(
        [
            [0, 0.5],
            [0.3, 0.42],
            [0.7, 0.0],
            [1.6, 0.0],
            [2.1, 0.42],
            [2.6, 0.52],
            [2.6, 0.9],
            [0, 0.9],
        ]
    )
    canvas.fill(body * size + (x, y), colour)
    glass = np.array([[0.5, 0.40], [0.78, 0.08], [1.5, 0.08], [1.9, 0.40]])
    canvas.fill(glass * size + (x, y), (70, 90, 108))
    for wheel in (0.55, 2.05):
        canvas.fill(ellipse((x + wheel * size, y + 0.9 * size), (0.25 * size,) * 2), (22, 22, 24))


def _tree(rng: np.random.Generator, canvas: Canvas, x: float, base: float, size: float) -> None:
    canvas.fill(rectangle(x - 0.05 * size, base - 0.5 * size, x + 0.05 * size, base), (86, 62, 44))
    green = (rng.uniform(40, 100), rng.uniform(100, 150), rng.uniform(40, 80))
    for _ in range(14):
        at = (x + size * rng.normal(0, 0.17), base - size * rng.uniform(0.45, 1.0))
        radius = size * rng.uniform(0.10, 0.2)
        canvas.fill(
            ellipse(at, (radius, radius * 0.8), count=14), shade(green, rng.uniform(0.7, 1.2))
        )


def _park(rng: np.random.Generator, canvas: Canvas) -> None:
    w, h = canvas.width, canvas.height
    horizon = h * rng.uniform(0.4, 0.6)
    sky = pick(rng, ((120, 180, 230), (190, 210, 220), (250, 210, 170)))
    _gradient(canvas, sky, (240, 240, 230), 0, horizon)
    for _ in range(int(rng.integers(1, 5))):
        at = (w * rng.random(), horizon * rng.uniform(0.1, 0.6))
        canvas.fill(ellipse(at, (0.13 * w, 0.04 * h)), (250, 250, 250), alpha=0.8, soft=0.02 * h)
    hill = np.stack(
        [np.linspace(-0.1 * w, 1.1 * w, 7), horizon - h * rng.uniform(0.0, 0.16, 7)], axis=1
    )
    hill = np.concatenate([smooth(hill, closed=False), [[1.1 * w, h], [-0.1 * w, h]]])
    canvas.fill(hill, (104, 140, 110))
    _gradient(canvas, (112, 160, 84), (66, 112, 50), horizon, h)
    _grain(rng, canvas, 0.13, 90, horizon, h)
    _grain(rng, canvas, 0.10, 10, horizon, h)
    for _ in range(int(rng.integers(1, 5))):
        _tree(rng, canvas, w * rng.random(), horizon + 0.05 * h, h * rng.uniform(0.25, 0.5))
    path = np.array([[0.44, 0.0], [0.52, 0.0], [0.9, 1.0], [0.2, 1.0]])
    if rng.random() < 0.5:
        canvas.fill(path * (w, h - horizon) + (0, horizon), (206, 190, 160))


def _hall(rng: np.random.Generator, canvas: Canvas) -> None:
    # A corridor in one-point perspective: hospital, station, office.
    w, h = canvas.width, canvas.height
    wall = pick(rng, WALLS)
    x, y = w * rng.uniform(0.35, 0.65), h * rng.uniform(0.35, 0.5)
    far = 0.16
    left, right = x - far * w, x + far * w
    top, bottom = y - far * h, y + far * h
    canvas.fill(np.array([[0, 0], [w, 0], [right, top], [left, top]]), shade(wall, 1.35))
    canvas.fill(np.array([[0, h], [w, h], [right, bottom], [left, bottom]]), (126, 124, 122))
    canvas.fill(np.array([[0, 0], [left, top], [left, bottom], [0, h]]), shade(wall, 0.9))
    canvas.fill(np.array([[w, 0], [right, top], [right, bottom], [w, h]]), shade(wall, 0.78))
    canvas.fill(rectangle(left, top, right, bottom), shade(wall, 1.15))
    vanish = np.array([x, y])
    for depth in (0.35, 0.55, 0.8):
        for side in (0.0, float(w)):
            door = np.array([[side, 0.1 * h], [side, h]])
            near = vanish + (door - vanish) * depth
            further = vanish + (door - vanish) * depth * 0.78
            panel = np.stack([near[0], further[0], further[1], near[1]])
            canvas.fill(panel, pick(rng, WALLS), alpha=0.85)
        lamp = np.array([[0.4 * w, 0], [0.6 * w, 0]])
        near, further = vanish + (lamp - vanish) * depth, vanish + (lamp - vanish) * depth * 0.8
        canvas.fill(np.stack([near[0], near[1], further[1], further[0]]), (255, 255, 250))
    if rng.random() < 0.6:
        draw_sign(rng, canvas, w * rng.uniform(0.1, 0.9), h * rng.uniform(0.08, 0.3), h * 0.06)


def _studio(rng: np.random.Generator, canvas: Canvas) -> None:
    w, h = canvas.width, canvas.height
    colour = np.asarray(rng.uniform(70, 235, 3), np.float32)
    xs = np.linspace(-1, 1, w, dtype=np.float32)[None, :] - float(rng.uniform(-0.5, 0.5))
    ys = np.linspace(-1, 1, h, dtype=np.float32)[:, None] - float(rng.uniform(-0.5, 0.3))
    fall = np.exp(-(xs * xs + ys * ys) / float(rng.uniform(0.8, 3.0)))
    canvas.pixels = (0.55 + 0.5 * fall)[..., None] * colour
    _grain(rng, canvas, 0.10, float(rng.uniform(3, 40)), 0, h)


def _night(rng: np.random.Generator, canvas: Canvas) -> None:
    w, h = canvas.width, canvas.height
    top = tuple(rng.uniform(10, 60, 3))
    _gradient(canvas, top, tuple(c + 40 for c in top), 0, h)
    for _ in range(int(rng.integers(15, 45))):
        radius = h * rng.uniform(0.015, 0.07)
        at = (w * rng.random(), h * rng.random())
        colour = tuple(rng.uniform(120, 255, 3))
        canvas.fill(
            ellipse(at, (radius, radius), count=20), colour, alpha=rng.uniform(0.2, 0.7), soft=1.2
        )
