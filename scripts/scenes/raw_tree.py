"""Writes a tree of raw face data sets with drawn pictures in the published layouts."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from detectnet_v2.progress import draws_bars
from tqdm import tqdm

from scenes.errors import ScenesError
from scenes.figure import Face
from scenes.layouts import Annotated, write_annotations
from scenes.plan import CASTINGS, DATASETS, Picture, plan_dataset
from scenes.scene import draw_scene

DEFAULT_IMAGES = {
    "medical-masks": 280,
    "mafa-train": 180,
    "mafa-test": 50,
    "fddb": 140,
    "widerface-train": 140,
    "widerface-val": 50,
}
DEFAULT_SIZE = (640, 480)
# Below the 2 % at which the workflow stops by default.
DEFAULT_DEFECTS = 0.012

_SMALLEST_SIZE = (120, 90)
_SHOWN = 0.45  # a face of which less is seen is not marked


@dataclass(frozen=True)
class Count:
    """What was written for one data set: pictures, marked faces by state, broken pictures."""

    images: int
    faces: dict[str, int]
    broken: int


def write_raw_tree(
    folder: str | os.PathLike[str],
    *,
    images: Mapping[str, int] | None = None,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    defects: float = DEFAULT_DEFECTS,
    processes: int = 1,
) -> dict[str, Count]:
    """Draw data sets and write them to `folder`, which appears whole or not at all.

    `images`: pictures by data set (keys of DEFAULT_IMAGES; one that is left out is not written);
    `size`: width and height that no picture exceeds; `defects`: the part of the pictures, rounded
    down for each data set, that is broken on purpose. The same arguments give the same bytes,
    whatever `processes` is. Raises ScenesError when `folder` has content or an argument is wrong.
    """
    target = Path(folder)
    images = dict(DEFAULT_IMAGES if images is None else images)
    _check(target, images, size, defects, processes)
    plans = {
        dataset: plan_dataset(dataset, images[dataset], seed=seed, size=size, defects=defects)
        for dataset in DATASETS
        if images.get(dataset)
    }
    part = target.with_name(target.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    pictures = [picture for plan in plans.values() for picture in plan]
    for parent in {(part / picture.path).parent for picture in pictures}:
        parent.mkdir(parents=True, exist_ok=True)
    marked = iter(list(_report(_draw_all(pictures, part, processes), len(pictures))))
    counts = {}
    for dataset, plan in plans.items():
        items = [Annotated(picture, next(marked)) for picture in plan]
        write_annotations(dataset, part, items)
        counts[dataset] = _count(items)
    if target.exists():
        target.rmdir()
    part.replace(target)
    return counts


def _check(
    target: Path, images: dict[str, int], size: tuple[int, int], defects: float, processes: int
) -> None:
    for dataset, count in images.items():
        if dataset not in DATASETS:
            raise ScenesError(f"no data set {dataset!r} to draw; there are {', '.join(DATASETS)}")
        if count < 0:
            raise ScenesError(f"{dataset}: {count} pictures; give 0 or more")
    if size[0] < _SMALLEST_SIZE[0] or size[1] < _SMALLEST_SIZE[1]:
        raise ScenesError(
            f"size {size[0]}x{size[1]} is too small to draw faces;"
            f" give at least {_SMALLEST_SIZE[0]}x{_SMALLEST_SIZE[1]}"
        )
    if not 0 <= defects <= 1:
        raise ScenesError(f"defects {defects} is no part of the pictures; give 0 to 1")
    if processes < 1:
        raise ScenesError(f"{processes} processes; give 1 or more")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ScenesError(f"{target} has content already; remove it or name another folder")


def _draw_all(pictures: list[Picture], root: Path, processes: int) -> Iterator[tuple[Face, ...]]:
    work = partial(_write_picture, root)
    if processes == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield from map(work, pictures)
        finally:
            cv2.setNumThreads(threads)
        return
    with ProcessPoolExecutor(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(work, pictures, chunksize=8)


def _report(results: Iterable, total: int) -> Iterator:
    if draws_bars():
        yield from tqdm(results, total=total, unit="picture", desc="drawing")
        return
    told = time.monotonic()
    for done, result in enumerate(results, 1):
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"drawing: {done} of {total} pictures", file=sys.stderr, flush=True)
        yield result


def _count(items: list[Annotated]) -> Count:
    faces = {"mask": 0, "bare": 0, "poor": 0}
    for item in items:
        for face in item.faces:
            faces[face.state] += 1
    return Count(len(items), faces, sum(item.picture.defect is not None for item in items))


def _write_picture(root: Path, picture: Picture) -> tuple[Face, ...]:
    """Draw and write one picture; returns the faces that an annotator marks."""
    scene = draw_scene(
        np.random.default_rng(picture.copy_of_key or picture.key),
        picture.width,
        picture.height,
        CASTINGS[picture.dataset],
    )
    pixels, faces = scene.pixels, scene.faces
    if picture.copy_of_key is not None:
        pixels, faces = _near_copy(np.random.default_rng(picture.key), pixels, faces)
    content = _encode(pixels, picture)
    path = root / picture.path
    if picture.defect == "truncated":
        content = content[: len(content) // 3]
    elif picture.defect == "garbage":
        content = b"<html><body>404 Not Found</body></html>\n"
    if picture.defect != "missing":
        path.write_bytes(content)
    return tuple(face for face in faces if _is_marked(face, picture))


def _near_copy(
    rng: np.random.Generator, pixels: np.ndarray, faces: tuple[Face, ...]
) -> tuple[np.ndarray, tuple[Face, ...]]:
    """The picture once more, moved by some pixels and a little lighter or darker."""
    dx, dy = (int(value) for value in rng.integers(-3, 4, 2))
    moved = np.roll(pixels, (dy, dx), (0, 1)).astype(np.float32) * float(rng.uniform(0.94, 1.06))
    return np.clip(moved, 0, 255).astype(np.uint8), tuple(_moved(face, dx, dy) for face in faces)


def _moved(face: Face, dx: float, dy: float) -> Face:
    x1, y1, x2, y2 = face.box
    major, minor, angle, x, y = face.ellipse
    return replace(
        face,
        box=(x1 + dx, y1 + dy, x2 + dx, y2 + dy),
        ellipse=(major, minor, angle, x + dx, y + dy),
        eyes=tuple((x + dx, y + dy) for x, y in face.eyes),
    )


def _encode(pixels: np.ndarray, picture: Picture) -> bytes:
    if picture.path.endswith(".png"):
        order = cv2.COLOR_RGB2BGRA if picture.mode == "RGBA" else cv2.COLOR_RGB2BGR
        _, content = cv2.imencode(
            ".png", cv2.cvtColor(pixels, order), [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        return content.tobytes()
    if picture.mode == "L":
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
        return simplejpeg.encode_jpeg(grey, picture.quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), picture.quality, "RGB", "420", fastdct=False
    )


def _is_marked(face: Face, picture: Picture) -> bool:
    x1, y1, x2, y2 = face.box
    wide = min(x2, picture.width) - max(x1, 0)
    tall = min(y2, picture.height) - max(y1, 0)
    if wide <= 2 or tall <= 2:
        return False
    inside = wide * tall / ((x2 - x1) * (y2 - y1))
    return inside * (1 - face.hidden) >= _SHOWN
