"""Group near-duplicate photographs over all datasets of a split."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import tables
from datasets.duplicates import group_thumbnails, key_of, label_groups, thumbnail
from datasets.program import Log, reported
from datasets.workers import mapped


def usable_images(index: str | Path) -> list[str]:
    """The images of an index that keep a face, in its order, as the table writes them."""
    rows = tables.read(index, tables.INDEX)
    return list(dict.fromkeys(row["image"] for row in rows if not row["dropped"]))


def group_duplicates(
    indexes: Mapping[str, str | Path],
    roots: Mapping[str, str | Path],
    max_distance: int,
    min_correlation: float,
    log: Log,
    threads: int = 1,
    *,
    enabled: bool = True,
) -> list[tuple[str, str, str]]:
    """The rows of the groups table for all images that keep a face; dataset names are the keys.

    An image that cannot be decoded is a group of its own: the conversion reports it. Without
    `enabled` every image is, and none is read.
    """
    images = [(name, image) for name, index in indexes.items() for image in usable_images(index)]
    if not enabled:
        log(f"{len(images)} images, each on its own: duplicates.enabled is false")
        ids = label_groups([key_of(*image) for image in images], range(len(images)))
        return [(*image, group) for image, group in zip(images, ids, strict=True)]
    tasks = [
        (number, str(Path(roots[name]).expanduser() / tables.unescape(image)))
        for number, (name, image) in enumerate(images)
    ]
    found: list[np.ndarray | None] = [None] * len(tasks)
    with mapped(_numbered_thumbnail, tasks, threads, chunk=32) as results:
        for number, small in log.progress(results, len(tasks), "thumbnails"):
            found[number] = small
    decoded = [number for number, small in enumerate(found) if small is not None]
    labels = list(range(len(tasks)))
    if decoded:
        grouped = group_thumbnails(
            np.stack([found[number] for number in decoded]), max_distance, min_correlation
        )
        for number, label in zip(decoded, grouped, strict=True):
            labels[number] = decoded[label]
    sizes = Counter(labels)
    shared = [size for size in sizes.values() if size > 1]
    log(
        f"{len(tasks)} images, {len(shared)} groups of near-duplicates with {sum(shared)} images,"
        f" the largest has {max(shared, default=1)}; {len(tasks) - len(decoded)} undecodable"
    )
    for number, (name, image) in enumerate(images):
        if sizes[labels[number]] > 1:
            log.to_file(f"group {labels[number]}: {name}: {image}")
    ids = label_groups([key_of(*image) for image in images], labels)
    return [(*image, group) for image, group in zip(images, ids, strict=True)]


def _numbered_thumbnail(task: tuple[int, str]) -> tuple[int, np.ndarray | None]:
    number, path = task
    return number, thumbnail(path)


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        tables.write(
            snakemake.output[0],
            tables.GROUPS,
            group_duplicates(
                {Path(path).stem: path for path in snakemake.input.indexes},
                snakemake.params.roots,
                snakemake.params.max_distance,
                snakemake.params.min_correlation,
                job_log,
                snakemake.threads,
                enabled=snakemake.params.enabled,
            ),
        )
