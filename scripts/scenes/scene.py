"""Composes one picture: background, things, people, and the camera that takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from scenes.backgrounds import draw_background
from scenes.canvas import Canvas
from scenes.distractors import draw_distractors
from scenes.figure import Face, Light, describe, draw_person
from scenes.head import Head
from scenes.person import Look, draw_look

# A face's height in the picture, against the picture's height, by the number of people.
_SMALLEST = 0.15
_LARGEST = (0.62, 0.45, 0.36, 0.30, 0.26, 0.22)


@dataclass(frozen=True)
class Casting:
    """Who may be in a picture.

    `people`: chances of one, two, three ... people; `masked`: chance of a mask; `poor`: chance that
    a mask is worn wrong; `hand_mouth` and `hand_half`: chances of a hand before a bare face.
    """

    people: tuple[float, ...]
    masked: float
    poor: float = 0.0
    hand_mouth: float = 0.0
    hand_half: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A picture (height, width, 3) uint8 RGB and its faces, from the furthest to the nearest."""

    pixels: np.ndarray
    faces: tuple[Face, ...]


def draw_scene(rng: np.random.Generator, width: int, height: int, casting: Casting) -> Scene:
    """One picture of `width` x `height` pixels; equal generators give equal pictures."""
    canvas = draw_background(rng, width, height)
    light = draw_light(rng)
    chances = np.asarray(casting.people, float)
    count = 1 + int(rng.choice(len(chances), p=chances / chances.sum()))
    heads = place_heads(rng, width, height, count)
    draw_distractors(rng, canvas, 2.0 * float(np.mean([head.unit for head in heads])))
    faces = []
    for place in heads:
        look = cast(rng, casting)
        head = replace(place, jaw=look.jaw, breadth=look.breadth)
        draw_person(canvas, head, look, light, gaze=float(rng.uniform(-1, 1)))
        faces.append(describe(head, look))
    pixels = photograph(rng, canvas)
    return Scene(pixels, tuple(mark_hidden(faces)))


def draw_light(rng: np.random.Generator) -> Light:
    """A light from above and one side."""
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.7, -0.1), 0.85])
    direction /= np.linalg.norm(direction)
    return Light(
        tuple(direction.tolist()), float(rng.uniform(0.42, 0.75)), float(rng.uniform(0.0, 0.2))
    )


def cast(rng: np.random.Generator, casting: Casting) -> Look:
    """A person by the casting's chances."""
    masked = rng.random() < casting.masked
    if masked:
        worn = "full"
        if rng.random() < casting.poor:
            worn = "nose" if rng.random() < 0.6 else "chin"
        return draw_look(rng, masked=True, worn=worn)
    lot = rng.random()
    hand = None
    if lot < casting.hand_mouth:
        hand = "mouth"
    elif lot < casting.hand_mouth + casting.hand_half:
        hand = "half"
    return draw_look(rng, masked=False, hand=hand)


def place_heads(rng: np.random.Generator, width: int, height: int, count: int) -> list[Head]:
    """Up to `count` heads whose faces do not cover one another much, the furthest first."""
    largest = _LARGEST[min(count, len(_LARGEST)) - 1]
    heads: list[Head] = []
    for _ in range(40 * count):
        if len(heads) == count:
            break
        share = float(np.exp(rng.uniform(np.log(_SMALLEST), np.log(largest))))
        unit = share * height / 1.7  # hairline to chin is 1.7 units
        head = Head(
            x=float(rng.uniform(0.06, 0.94)) * width,
            y=float(rng.uniform(0.16, 0.62)) * height,
            unit=unit,
            yaw=float(np.clip(rng.normal(0, 0.38), -0.85, 0.85)),
            pitch=float(np.clip(rng.normal(0.06, 0.14), -0.35, 0.4)),
            roll=float(np.clip(rng.normal(0, 0.13), -0.45, 0.45)),
        )
        clear = all(
            abs(head.x - other.x) > 1.05 * (head.unit + other.unit)
            or abs(head.y - other.y) > 3.0 * max(head.unit, other.unit)
            for other in heads
        )
        if clear:
            heads.append(head)
    return sorted(heads, key=lambda head: head.unit)


def mark_hidden(faces: list[Face]) -> list[Face]:
    """The faces, each with the part of its box that later (nearer) faces' bodies cover."""
    marked = []
    for index, face in enumerate(faces):
        x1, y1, x2, y2 = face.box
        hidden = 0.0
        for other in faces[index + 1 :]:
            left, top, right, bottom = other.box
            wide, tall = right - left, bottom - top
            # The shoulders are about 2.6 faces wide and begin a quarter below the chin.
            for body in (
                (left - 0.1 * wide, top - 0.2 * tall, right + 0.1 * wide, bottom + 0.2 * tall),
                (left - 0.8 * wide, bottom + 0.3 * tall, right + 0.8 * wide, 1e9),
            ):
                across = min(x2, body[2]) - max(x1, body[0])
                down = min(y2, body[3]) - max(y1, body[1])
                if across > 0 and down > 0:
                    hidden += across * down / ((x2 - x1) * (y2 - y1))
        marked.append(replace(face, hidden=min(hidden, 1.0)))
    return marked


def photograph(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """The picture as a camera gives it: exposure, colour cast, vignette, blur, noise; uint8."""
    pixels = canvas.pixels
    height, width = pixels.shape[:2]
    gain = float(rng.uniform(0.72, 1.15)) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    fall = 1.0 - float(rng.uniform(0.0, 0.28)) * (xs * xs + ys * ys) / 2
    pixels = pixels * (fall[..., None] * gain) + float(rng.uniform(-8, 14))
    blur = float(rng.choice([0.0, 0.0, 0.5, 0.9, 1.4])) * height / 400
    if blur > 0.2:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    if rng.random() < 0.08:
        reach = int(rng.integers(3, 8))
        pixels = cv2.blur(pixels, (reach, 1))
    grain = float(rng.uniform(0.5, 6.0))
    pixels = pixels + grain * _noise_tile(rng, height, width)
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _noise_tile(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    # One normal plane, shifted for each colour: three planes cost a third of the drawing time.
    plane = rng.standard_normal((height, width), dtype=np.float32)
    return np.stack([plane, np.roll(plane, 7, 1), np.roll(plane, 5, 0)], axis=2)
