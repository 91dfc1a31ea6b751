"""Index a split of a raw dataset: one row a face, with the reason where a face is dropped."""

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from datasets import tables
from datasets.annotation import AnnotatedImage
from datasets.boxes import EMPTY, OUTSIDE, PORTRAIT, corrected
from datasets.errors import DatasetError, folder_with
from datasets.fingerprint import split_paths
from datasets.headers import ImageHeaderError, image_size
from datasets.layouts import options_of, read_split
from datasets.program import Log, reported

# Reading headers waits for the disk, not for a core.
READERS_PER_CORE = 4
CHUNK = 256
WITHOUT_AREA = (EMPTY, OUTSIDE)
NOT_MAPPED = "is not in class_map"


def index(
    name: str,
    dataset: Mapping[str, Any],
    split: str,
    classes: Sequence[str],
    max_bad_fraction: float,
    log: Log,
    threads: int = 1,
) -> list[tuple[object, ...]]:
    """The rows of the index (`tables.INDEX`) of a split, in the order of its annotations.

    Raises DatasetError when the dataset is missing, empty or not of its layout, when more than
    `max_bad_fraction` of the images that a face needs are corrupt, missing or malformed, and when
    no face is left.
    """
    check_class_map(name, dataset["class_map"], classes)
    annotated = read_split(name, dataset, split)
    images, _ = split_paths(dataset, split)
    sizes = _sizes(images, annotated, log, threads)
    min_aspect = options_of(dataset, split)["min_aspect"]
    prefix = dataset["splits"][split]["images"]
    rows: list[tuple[object, ...]] = []
    bad: list[tuple[AnnotatedImage, str]] = []
    # An image that no face needs is not opened, and may be absent.
    looked_at = 0
    for image, size in zip(annotated, sizes, strict=True):
        path = tables.escape(posixpath.normpath(posixpath.join(prefix, image.path)))
        new, faults = _rows(path, image, size, dataset["class_map"], min_aspect)
        rows += new
        looked_at += size is not None or bool(faults)
        bad += [(image, f"{path}: {fault}") for fault in faults[:1]]
        for fault in faults:
            log.to_file(f"bad: {name}: {path}: {fault}")
    _summarise(name, split, rows, len(annotated), len(bad), log)
    _warn_of_sizes(name, annotated, sizes, log)
    if len(bad) > max_bad_fraction * looked_at:
        raise DatasetError(
            f"dataset {name}, {split}: {len(bad)} of {looked_at} images are corrupt, missing"
            f" or malformed, more than max_bad_fraction {max_bad_fraction:g}; first: {bad[0][1]}"
            f"{_hint(name, dataset, split, bad[0][0]) if len(bad) == looked_at else ''}"
        )
    if not any(row[3] and not row[-1] for row in rows):
        reason, count = Counter(str(row[-1]) for row in rows).most_common(1)[0]
        raise DatasetError(
            f"dataset {name}, {split}: all {len(rows)} faces are dropped; most often ({count})"
            f" because: {reason}"
        )
    return rows


def check_class_map(name: str, class_map: Mapping[str, str | None], classes: Sequence[str]) -> None:
    """Raise DatasetError for a target class that is not in `classes`."""
    for raw_class, target in class_map.items():
        if target is not None and target not in classes:
            raise DatasetError(
                f"datasets.{name}.class_map maps {raw_class} to {target!r};"
                f" classes are {', '.join(classes)}, or null to drop it"
            )


def _hint(name: str, dataset: Mapping[str, Any], split: str, image: AnnotatedImage) -> str:
    """For the message, when no image is right: in which folder below `image` is."""
    images, _ = split_paths(dataset, split)
    found = folder_with(images, image.path)
    if found is None:
        return ""
    folder = posixpath.normpath(f"{dataset['splits'][split]['images']}/{found.relative_to(images)}")
    return f"; it is in {found}: say datasets.{name}.splits.{split}.images: {folder}"


def _sizes(
    images: Path, annotated: Sequence[AnnotatedImage], log: Log, threads: int
) -> list[tuple[int, int] | str | None]:
    """Width and height, or what is wrong, of each image that a face needs; None for the others."""
    paths = [
        f"{images}/{image.path}"
        if not image.error and (not image.faces or any(face.counts for face in image.faces))
        else None
        for image in annotated
    ]
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(max(1, threads) * READERS_PER_CORE) as pool:
        sizes = (size for chunk in pool.map(_chunk_sizes, chunks) for size in chunk)
        return list(log.progress(sizes, len(paths), "image headers"))


def _chunk_sizes(paths: Sequence[str | None]) -> list[tuple[int, int] | str | None]:
    return [_size(path) if path else None for path in paths]


def _size(path: str) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except ImageHeaderError as error:
        return str(error)


def _rows(
    path: str,
    image: AnnotatedImage,
    size: tuple[int, int] | str | None,
    class_map: Mapping[str, str | None],
    min_aspect: float,
) -> tuple[list[tuple[object, ...]], list[str]]:
    """The rows of an image, and what is wrong with it or its faces."""
    error = image.error or (size if isinstance(size, str) else "")
    if error:
        return [(path, "", "", "", "", "", "", "", error)], [error]
    width, height = size if isinstance(size, tuple) else ("", "")
    if not image.faces:
        return [(path, width, height, "", "", "", "", "", "no face is annotated")], []
    portrait = bool(width) and width < min_aspect * height
    rows: list[tuple[object, ...]] = []
    without_area = False
    for face in image.faces:
        target = class_map.get(face.raw_class)
        box, reason = face.box, face.malformed or face.dropped
        if not reason and face.raw_class not in class_map:
            reason = f"class {face.raw_class} {NOT_MAPPED}"
        elif not reason and target is None:
            reason = f"class {face.raw_class} is mapped to null"
        if not reason and portrait:
            reason = f"{PORTRAIT} {min_aspect:g}"
        if not reason and box and width:
            box, reason = corrected(box, width, height)
        corners = [tables.number(value) for value in box] if box else [""] * 4
        rows.append((path, width, height, target or face.raw_class, *corners, reason))
        without_area |= reason in WITHOUT_AREA
    if without_area and all(row[-1] for row in rows):
        # As the recipe does: the image stays, and teaches background.
        rows.append((path, width, height, "", "", "", "", "", ""))
    return rows, [face.malformed for face in image.faces if face.malformed]


def _summarise(
    name: str,
    split: str,
    rows: Sequence[tuple[object, ...]],
    images: int,
    bad: int,
    log: Log,
) -> None:
    kept = Counter(str(row[3]) for row in rows if row[3] and not row[-1])
    faces = ", ".join(f"{count} {target}" for target, count in sorted(kept.items())) or "no face"
    log(f"{name}, {split}: {images} images, {faces}; {bad} bad images")
    for reason, count in Counter(str(row[-1]) for row in rows if row[-1]).most_common(20):
        # Of a class that the map lacks, nobody has said that it is to be left out.
        tell = log if reason.endswith(NOT_MAPPED) else log.to_file
        tell(f"dropped: {name}: {count} x {reason}")


def _warn_of_sizes(
    name: str,
    annotated: Sequence[AnnotatedImage],
    sizes: Sequence[tuple[int, int] | str | None],
    log: Log,
) -> None:
    """Tell of images that are not of the size for which they were annotated."""
    others = [
        f"{image.path} is {size[0]} x {size[1]}, annotated as {image.size[0]} x {image.size[1]}"
        for image, size in zip(annotated, sizes, strict=True)
        if image.size and isinstance(size, tuple) and image.size != size
    ]
    for other in others:
        log.to_file(f"size: {name}: {other}")
    if others:
        log(
            f"warning: {name}: {len(others)} images have another size than their annotation says,"
            " scaled since or turned by EXIF, so that boxes may be in the wrong place: look at"
            f" check_labels; first: {others[0]}"
        )


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        tables.write(
            snakemake.output[0],
            tables.INDEX,
            index(
                snakemake.wildcards.dataset,
                snakemake.params.dataset,
                snakemake.wildcards.split,
                snakemake.params.classes,
                snakemake.params.max_bad_fraction,
                job_log,
                snakemake.threads,
            ),
        )
