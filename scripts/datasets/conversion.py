"""One dataset's part of a KITTI folder, brought up to date image by image.

A journal beside the folder, `{dataset}.journal.csv`, names for every finished image what it was
made from and what came out, so that a run after a kill or a change does only what is missing.
"""

import csv
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import pixels, tables
from datasets.errors import DatasetError
from datasets.kitti_folder import remove_owned, remove_parts
from datasets.names import check_dataset_name
from datasets.pixels import CorruptImageError
from datasets.program import Log
from datasets.workers import mapped

# What the pictures depend on besides the settings.
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Settings:
    """What all pictures of a run have in common; pixels, and JPEG quality 1 to 100."""

    width: int
    height: int
    quality: int

    def digest(self) -> str:
        """Changes when the pictures would: with a setting, this code or a library."""
        versions = [importlib.metadata.version(library) for library in LIBRARIES]
        text = repr((astuple(self), versions)).encode()
        return hashlib.sha256(text + Path(pixels.__file__).read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """An image to bring up to date: where it is, its size as indexed, and its label's text."""

    name: str
    source: str
    width: int
    height: int
    label: str
    # The journal's digest of the picture, when only the label has to be written.
    image_sha256: str = ""


class Entry(NamedTuple):
    """A line of the journal; `*_state` is a file's size and time of last change."""

    name: str
    source_state: str
    image_sha256: str
    image_state: str
    label_sha256: str
    label_state: str
    error: str


def label_line(target: str, box: Sequence[float]) -> str:
    """A line of a KITTI label file: 15 columns, of which detectors read the class and the box.

    Columns: type, truncated, occluded, alpha, left, top, right, bottom (pixels), height, width,
    length, x, y, z, rotation_y. Unknown ones are 0.
    """
    corners = " ".join(f"{value:.2f}" for value in box)
    return f"{target} 0.00 0 0.00 {corners} 0.00 0.00 0.00 0.00 0.00 0.00 0.00\n"


def tasks_of(
    dataset: str, selection: str | Path, root: str | Path, settings: Settings
) -> list[Task]:
    """The images of `dataset` in the selection, boxes scaled to the network's size."""
    root = Path(root).expanduser()
    tasks: dict[str, Task] = {}
    labels: dict[str, list[str]] = {}
    for row in tables.read(selection, tables.SELECTION):
        if row["dataset"] != dataset:
            continue
        name, width, height = row["name"], int(row["width"]), int(row["height"])
        lines = labels.setdefault(name, [])
        if row["class"]:
            scale = (settings.width / width, settings.height / height) * 2
            corners = (float(row[corner]) for corner in ("x1", "y1", "x2", "y2"))
            box = [corner * by for corner, by in zip(corners, scale, strict=True)]
            lines.append(label_line(row["class"], box))
        if name not in tasks:
            source = str(root / tables.unescape(row["image"]))
            tasks[name] = Task(name, source, width, height, "")
    return [replace(task, label="".join(labels[name])) for name, task in sorted(tasks.items())]


def convert(
    dataset: str,
    tasks: Sequence[Task],
    folder: Path,
    settings: Settings,
    max_bad_fraction: float,
    log: Log,
    threads: int = 1,
) -> list[tuple[str, str, str, str]]:
    """Bring a dataset's files in `folder`/images and `folder`/labels up to date.

    Returns the rows of the manifest (`tables.MANIFEST`), sorted by name. Raises DatasetError when
    more than `max_bad_fraction` of the images turn out corrupt, OSError when the disk refuses.
    """
    check_dataset_name(dataset)
    images, labels = folder / "images", folder / "labels"
    for place in (images, labels):
        place.mkdir(parents=True, exist_ok=True)
    journal = folder / f"{dataset}.journal.csv"
    digest = settings.digest()
    known = _read_journal(journal, digest)
    wanted = {task.name for task in tasks}
    removed = remove_owned(folder, dataset, wanted & known.keys())
    done = {
        task.name: known[task.name]
        for task in tasks
        if task.name in known and _is_current(task, known[task.name], images, labels)
    }
    _write_journal(journal, digest, [known[name] for name in sorted(wanted & known.keys())])
    pending = [_with_known_image(task, known, images) for task in tasks if task.name not in done]
    log(
        f"{dataset}: {len(tasks)} images, {len(done)} up to date, {len(pending)} to convert,"
        f" {removed} files removed"
    )
    work = partial(bring_up_to_date, images=images, labels=labels, settings=settings)
    try:
        with (
            mapped(work, pending, threads) as results,
            journal.open("a", encoding="utf-8", newline="", buffering=1) as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            for entry in log.progress(results, len(pending), f"{dataset}: images"):
                done[entry.name] = entry
                writer.writerow(entry)
                if entry.error:
                    log.to_file(f"bad: {dataset}: {entry.name}: {entry.error}")
    except BaseException:
        remove_parts(folder, dataset)
        raise
    return _manifest(dataset, done, max_bad_fraction, log)


def bring_up_to_date(task: Task, images: Path, labels: Path, settings: Settings) -> Entry:
    """Write an image's picture and label; a corrupt image gets neither, and an error."""
    image, label = images / f"{task.name}.jpg", labels / f"{task.name}.txt"
    source_state = _state(task.source)
    image_sha256 = task.image_sha256
    if not image_sha256:
        try:
            data = _picture(task, settings)
        except CorruptImageError as error:
            image.unlink(missing_ok=True)
            label.unlink(missing_ok=True)
            return Entry(task.name, source_state, "", "", "", "", str(error))
        image_sha256 = _put(image, data)
    label_sha256 = _put(label, task.label.encode())
    states = (_state(image), _state(label))
    return Entry(
        task.name, source_state, image_sha256, states[0], label_sha256, states[1], error=""
    )


def _picture(task: Task, settings: Settings) -> bytes:
    try:
        data = Path(task.source).read_bytes()
    except OSError as error:
        raise CorruptImageError(f"image cannot be read: {error.strerror}") from error
    decoded, size = pixels.decode(data, settings.width, settings.height)
    if size != (task.width, task.height):
        raise CorruptImageError(
            f"image is {size[0]} x {size[1]} pixels, {task.width} x {task.height} by its header"
        )
    return pixels.encode(pixels.resize(decoded, settings.width, settings.height), settings.quality)


def _put(path: Path, data: bytes) -> str:
    """Write a file whole or not at all; its sha256."""
    part = f"{path}.part"
    try:
        with open(part, "wb") as file:  # noqa: PTH123 - half the time of a Path's
            file.write(data)
        os.replace(part, path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = error.filename or part  # write() does not name its file
        Path(part).unlink(missing_ok=True)
        raise
    return hashlib.sha256(data).hexdigest()


def _state(path: str | Path) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - called for every file on every run
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def _is_current(task: Task, entry: Entry, images: Path, labels: Path) -> bool:
    if entry.source_state != _state(task.source) or not entry.source_state:
        return False
    if entry.error:
        return True
    return (
        entry.label_sha256 == hashlib.sha256(task.label.encode()).hexdigest()
        and entry.image_state == _state(images / f"{task.name}.jpg")
        and entry.label_state == _state(labels / f"{task.name}.txt")
    )


def _with_known_image(task: Task, known: Mapping[str, Entry], images: Path) -> Task:
    """The task, with the digest of its picture where that is still good."""
    entry = known.get(task.name)
    if (
        entry is None
        or entry.error
        or not entry.source_state
        or entry.source_state != _state(task.source)
        or entry.image_state != _state(images / f"{task.name}.jpg")
    ):
        return task
    return replace(task, image_sha256=entry.image_sha256)


def _read_journal(path: Path, digest: str) -> dict[str, Entry]:
    """The entries of a journal, the last for each name; none when its digest is another."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        return {}
    if not rows or rows[0] != [digest]:
        return {}
    # A kill can leave half a line at the end.
    whole = (row for row in rows[1:] if len(row) == len(Entry._fields))
    return {row[0]: Entry(*row) for row in whole}


def _write_journal(path: Path, digest: str, entries: Sequence[Entry]) -> None:
    with tables.replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([digest])
        writer.writerows(entries)


def _manifest(
    dataset: str, entries: Mapping[str, Entry], max_bad_fraction: float, log: Log
) -> list[tuple[str, str, str, str]]:
    bad = [entry for _, entry in sorted(entries.items()) if entry.error]
    log(f"{dataset}: {len(entries) - len(bad)} images converted, {len(bad)} corrupt")
    if len(bad) > max_bad_fraction * len(entries):
        raise DatasetError(
            f"dataset {dataset}: {len(bad)} of {len(entries)} images cannot be converted, more"
            f" than max_bad_fraction {max_bad_fraction:g}; first: {bad[0].name}: {bad[0].error}"
        )
    return [
        (entry.name, entry.image_sha256, entry.label_sha256, entry.error)
        for _, entry in sorted(entries.items())
    ]
