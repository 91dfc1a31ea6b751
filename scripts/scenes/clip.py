"""Writes a video of a drawn scene in which people walk past, for a desk run of the detector."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np

from scenes.backgrounds import draw_background
from scenes.canvas import Canvas
from scenes.errors import ScenesError
from scenes.figure import Light, draw_person
from scenes.head import Head
from scenes.person import Look, draw_look
from scenes.scene import draw_light

CODECS = ("libx264", "mpeg4")


@dataclass(frozen=True)
class _Walker:
    """A person on the way through the picture; lengths in parts of the picture's size."""

    look: Look
    unit: float
    y: float
    start: float
    speed: float  # widths a second, positive to the right
    pace: float  # steps a second
    sway: float
    phase: float


def write_clip(
    path: str | os.PathLike[str],
    *,
    seconds: float = 10.0,
    size: tuple[int, int] = (1280, 720),
    rate: int = 30,
    people: int = 6,
    seed: int = 0,
    codec: str = "libx264",
    processes: int = 1,
) -> int:
    """Write `seconds` of video, `size` (width, height) even pixels, and return its frames.

    `processes` draw at the same time; their number changes nothing in the file.

    The file appears whole or not at all. The same arguments give the same bytes on one machine.
    Raises ScenesError for a wrong argument or a codec that this PyAV does not have.
    """
    width, height = size
    frames = round(seconds * rate)
    if frames < 1:
        raise ScenesError(f"{seconds} seconds at {rate} frames a second have no frame; give more")
    if width < 160 or height < 90 or width % 2 or height % 2:
        raise ScenesError(f"clip of {width}x{height} pixels; give even numbers from 160x90 on")
    if codec not in av.codecs_available:
        have = [name for name in CODECS if name in av.codecs_available]
        raise ScenesError(f"this PyAV has no encoder {codec}; it has {', '.join(have) or 'none'}")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # One thread: how frames are split among several would change the bytes.
        stream.thread_count = 1
        if codec == "libx264":
            # x264 takes what suits the processor; with AVX-512 one clip gave different files.
            stream.options = {
                "crf": "23",
                "preset": "veryfast",
                "x264-params": "cpu-independent=1",
            }
        else:
            stream.bit_rate = 4_000_000
        scene = _draw_scene(frames, size=size, rate=rate, people=people, seed=seed)
        for pixels in _frames(scene, min(processes, frames)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.replace(target)
    return frames


@dataclass(frozen=True)
class _Scene:
    """All that the frames are drawn from."""

    background: np.ndarray  # float32 (height, width, 3)
    light: Light
    walkers: list[_Walker]  # the farthest first
    grain: np.ndarray  # float32 (height + 32, width + 32, 1)
    grain_corners: np.ndarray  # (frames, 2) y, x: where in the grain each frame begins
    rate: int

    def frame(self, index: int) -> np.ndarray:
        """The picture (height, width, 3) uint8 RGB, `index` / `rate` seconds after the start."""
        height, width = self.background.shape[:2]
        canvas = Canvas(self.background.copy())
        for walker in self.walkers:
            _draw_at(canvas, walker, index / self.rate, self.light)
        y, x = self.grain_corners[index]
        pixels = canvas.pixels + self.grain[y : y + height, x : x + width]
        return np.clip(pixels, 0, 255).astype(np.uint8)


def _draw_scene(frames: int, *, size: tuple[int, int], rate: int, people: int, seed: int) -> _Scene:
    width, height = size
    rng = np.random.default_rng([seed, 1000])
    background = draw_background(rng, width, height).pixels
    light = draw_light(rng)
    walkers = [_draw_walker(rng, number, people) for number in range(people)]
    walkers.sort(key=lambda walker: walker.unit)
    grain = rng.standard_normal((height + 32, width + 32, 1), dtype=np.float32) * 2.0
    corners = rng.integers(0, 32, (frames, 2))
    return _Scene(background, light, walkers, grain, corners, rate)


def _frames(scene: _Scene, processes: int) -> Iterator[np.ndarray]:
    """Yield the frames of a scene in order, drawn by that many processes."""
    indices = range(len(scene.grain_corners))
    if processes < 2:
        yield from map(scene.frame, indices)
        return
    # Spawned: a fork beside the threads of an encoder that is open can hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_share, initargs=(scene,)) as pool:
        yield from pool.map(_draw_shared, indices, chunksize=4)


def _share(scene: _Scene) -> None:
    # A pool's initialiser can hand its work over only through a global name of the process.
    global _shared  # noqa: PLW0603
    _shared = scene
    cv2.setNumThreads(1)


def _draw_shared(index: int) -> np.ndarray:
    return _shared.frame(index)


def _draw_walker(rng: np.random.Generator, number: int, people: int) -> _Walker:
    look = draw_look(rng, masked=number % 2 == 0)
    unit = float(rng.uniform(0.08, 0.16))
    return _Walker(
        look=look,
        unit=unit,
        y=0.30 + 1.6 * (unit - 0.08) + float(rng.uniform(-0.05, 0.08)),
        start=1.4 * (number + float(rng.uniform(0.2, 0.8))) / people - 0.2,
        speed=float(rng.choice([-1, 1]) * rng.uniform(0.015, 0.05)),
        pace=float(rng.uniform(1.2, 1.9)),
        sway=float(rng.uniform(0.2, 0.5)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def _draw_at(canvas: Canvas, walker: _Walker, time: float, light: Light) -> None:
    # Who leaves on one side comes in on the other, out of sight for 0.2 widths on each side.
    across = (walker.start + walker.speed * time + 0.2) % 1.4 - 0.2
    step = 2 * np.pi * walker.pace * time + walker.phase
    unit = walker.unit * canvas.height
    turn = walker.sway * np.sin(0.55 * time + walker.phase) + 0.3 * np.sign(walker.speed)
    head = Head(
        x=across * canvas.width,
        y=walker.y * canvas.height + 0.06 * unit * np.sin(2 * step),
        unit=unit,
        yaw=float(np.clip(turn, -0.8, 0.8)),
        pitch=0.08 * np.sin(0.4 * time + walker.phase),
        roll=0.05 * np.sin(step),
        jaw=walker.look.jaw,
        breadth=walker.look.breadth,
    )
    look = walker.look
    if (time + walker.phase) % 3.1 < 0.13:
        look = replace(look, eye_open=0.08)
    draw_person(canvas, head, look, light, gaze=float(np.sin(0.3 * time)))
