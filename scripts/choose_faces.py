"""Choose the images of a split under `category_limit`, and name their KITTI files."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import tables
from datasets.boxes import is_geometry
from datasets.duplicates import key_of
from datasets.errors import DatasetError
from datasets.names import Grouped, check_dataset_name, fold_groups, unique_stems
from datasets.program import Log, reported

COUNTS = ("dataset", "class", "labelled", "taken", "total", "images")


@dataclass
class Candidate:
    """An image that can be taken: its size and its faces as rows of class and corners."""

    dataset: str
    image: str
    width: str
    height: str
    faces: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def order(self) -> str:
        """Where the image comes in its dataset: a hash, so that a cut keeps a fair sample."""
        return hashlib.sha256(key_of(self.dataset, self.image).encode()).hexdigest()


def candidates(dataset: str, index: str | Path) -> tuple[list[Candidate], Counter[str]]:
    """The images of an index that can be taken, and the faces per class that its rules accept.

    The count has the faces of portrait images and of boxes without area too, as the recipe's.
    """
    images: dict[str, Candidate] = {}
    labelled: Counter[str] = Counter()
    for row in tables.read(index, tables.INDEX):
        target = row["class"]
        if target and (not row["dropped"] or is_geometry(row["dropped"])):
            labelled[target] += 1
        if row["dropped"]:
            continue
        image = images.setdefault(
            row["image"], Candidate(dataset, row["image"], row["width"], row["height"])
        )
        if target:
            image.faces.append((target, row["x1"], row["y1"], row["x2"], row["y2"]))
    return list(images.values()), labelled


def choose(
    indexes: Mapping[str, str | Path], classes: Sequence[str], category_limit: int
) -> tuple[list[Candidate], list[tuple[str, str, int, int, int, int]]]:
    """Take images, dataset by dataset in the order of `indexes`, until the classes are full.

    An image is taken whole, and only while every class it holds is below `category_limit`: no
    class gets more than the limit and the faces of one image less one. Returns the images and
    the rows of the counts table: faces labelled and taken, the running total, images taken.
    """
    taken: list[Candidate] = []
    totals = dict.fromkeys(classes, 0)
    counts: list[tuple[str, str, int, int, int, int]] = []
    for dataset, index in indexes.items():
        check_dataset_name(dataset)
        images, labelled = candidates(dataset, index)
        before = dict(totals)
        number = len(taken)
        for image in sorted(images, key=lambda image: (image.order, image.image)):
            faces = Counter(face[0] for face in image.faces)
            if all(totals[target] < category_limit for target in faces or classes):
                taken.append(image)
                for target, count in faces.items():
                    totals[target] += count
        counts += [
            (
                dataset,
                target,
                labelled[target],
                totals[target] - before[target],
                totals[target],
                len(taken) - number,
            )
            for target in classes
        ]
    if not taken:
        raise DatasetError(f"no image is chosen; category_limit is {category_limit}")
    return taken, counts


def selection(
    taken: Sequence[Candidate],
    groups: Mapping[tuple[str, str], str],
    image_folders: Mapping[str, str],
    val_percent: float,
    max_bad_fraction: float,
    log: Log,
) -> list[tuple[str, ...]]:
    """The rows of the selection, sorted by name; `groups` is by dataset and image.

    Raises DatasetError when `val_percent` of the images is less than one.
    """
    if val_percent and int(val_percent / 100 * len(taken)) == 0:
        # The converter leaves an empty fold out, and the training images become fold 0.
        raise DatasetError(
            f"{len(taken)} images are too few for a validation fold of {val_percent:g} %: add "
            "images, or raise category_limit or tfrecords.val_split"
        )
    by_group: defaultdict[str, list[Candidate]] = defaultdict(list)
    by_dataset: defaultdict[str, list[Candidate]] = defaultdict(list)
    for image in taken:
        by_group[groups[image.dataset, image.image]].append(image)
        by_dataset[image.dataset].append(image)
    ids, warning = fold_groups(
        [
            Grouped(group, len(images), frozenset(f[0] for i in images for f in i.faces))
            for group, images in by_group.items()
        ],
        val_percent,
        max_bad_fraction,
    )
    if warning:
        log(f"warning: {warning}")
    rows = []
    for dataset, images in by_dataset.items():
        stems = unique_stems([image.image for image in images], image_folders[dataset])
        for image, stem in zip(images, stems, strict=True):
            name = f"{ids[groups[dataset, image.image]]}-{dataset}-{stem}"
            for face in image.faces or [("", "", "", "", "")]:
                rows.append((dataset, image.image, name, image.width, image.height, *face))
    return sorted(rows, key=lambda row: row[2])


def warnings(
    split: str, counts: Sequence[tuple[str, str, int, int, int, int]], classes: Sequence[str]
) -> list[str]:
    """A line for each class of which the split has no face, and what follows from that."""
    what = {
        "train": "the network cannot learn it; add a dataset that has it, or correct its class_map",
        "val": "as in NVIDIA's toolkit, it counts as 0 in the mAP there; go by that of fold 0",
    }
    taken: Counter[str] = Counter()
    for row in counts:
        taken[row[1]] += row[3]
    return [
        f"warning: the {split} split has no face of the class {target}: {what[split]}"
        for target in classes
        if not taken[target]
    ]


def table(counts: Sequence[tuple[str, str, int, int, int, int]], classes: Sequence[str]) -> str:
    """The counts as the recipe prints them: a line a source, running totals, the final line.

    A cell is the faces taken, and in brackets those that the class rules accept when there are
    more.
    """
    head = ["source", "images", *classes, *(f"total {target}" for target in classes)]
    lines = [head]
    for dataset in dict.fromkeys(row[0] for row in counts):
        rows = {row[1]: row for row in counts if row[0] == dataset}
        cells = [
            str(rows[c][3]) + (f" (of {rows[c][2]})" if rows[c][2] > rows[c][3] else "")
            for c in classes
        ]
        images = str(next(iter(rows.values()))[5])
        lines.append([dataset, images, *cells, *(str(rows[c][4]) for c in classes)])
    sums = {c: sum(row[3] for row in counts if row[1] == c) for c in classes}
    images = sum({row[0]: row[5] for row in counts}.values())
    lines.append(["final", str(images), *(str(sums[c]) for c in classes), *[""] * len(classes)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        chosen, face_counts = choose(
            {Path(path).stem: path for path in snakemake.input.indexes},
            snakemake.params.classes,
            snakemake.params.category_limit,
        )
        job_log(table(face_counts, snakemake.params.classes))
        for line in warnings(snakemake.wildcards.split, face_counts, snakemake.params.classes):
            job_log(line)
        grouping = {
            (row["dataset"], row["image"]): row["group"]
            for row in tables.read(snakemake.input.groups, tables.GROUPS)
        }
        tables.write(snakemake.output.counts, COUNTS, face_counts)
        tables.write(
            snakemake.output.selection,
            tables.SELECTION,
            selection(
                chosen,
                grouping,
                snakemake.params.image_folders,
                snakemake.params.val_percent,
                snakemake.params.max_bad_fraction,
                job_log,
            ),
        )
