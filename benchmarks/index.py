"""Index of a big dataset: seconds of the rule `index`, of grouping and of the fingerprint.

The dataset is made for the run: photographs of a raw folder (or drawn ones), hard-linked under
many names, with a Pascal VOC annotation each. The baseline opens each image with Pillow, in one
process, to ask for its size, and parses no annotation.
"""

import argparse
import itertools
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from datasets import tables  # noqa: E402
from datasets.fingerprint import fingerprint, walk  # noqa: E402
from datasets.program import Log  # noqa: E402
from datasets.voc import IMAGE_SUFFIXES  # noqa: E402
from group_duplicates import group_duplicates  # noqa: E402
from index import index  # noqa: E402

ANNOTATION = (
    "<annotation><size><width>0</width><height>0</height><depth>3</depth></size>"
    + "<object><name>mask</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax>"
    "<ymax>40</ymax></bndbox></object>" * 4 + "</annotation>"
)


def drawn(folder: Path, number: int) -> list[Path]:
    """Photograph-sized pictures, where no raw folder is at hand."""
    rng = np.random.default_rng(0)
    paths = []
    for index_ in range(number):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
        paths.append(folder / f"source{index_}.jpg")
        coarse.resize((1024, 768), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def build(root: Path, sources: list[Path], number: int) -> dict:
    """A VOC dataset of `number` images below `root`."""
    for place in ("images", "labels", "sources"):
        (root / place).mkdir()
    # Hard links cannot leave a file system: one copy of each source, then links.
    copies = []
    for number_, source in enumerate(sources):
        copies.append(root / "sources" / f"{number_}{source.suffix}")
        copies[-1].write_bytes(source.read_bytes())
    for number_, source in zip(range(number), itertools.cycle(copies), strict=False):
        os.link(source, root / "images" / f"{number_:06d}{source.suffix}")
        (root / "labels" / f"{number_:06d}.xml").write_text(ANNOTATION, encoding="utf-8")
    return {
        "root": str(root),
        "layout": "voc",
        "class_map": {"mask": "mask"},
        "splits": {"train": {"images": "images", "annotations": "labels"}},
    }


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a step, ended child processes included."""

    def cpu() -> float:
        usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    start, start_cpu = time.perf_counter(), cpu()
    step()
    return time.perf_counter() - start, cpu() - start_cpu


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = REPOSITORY.parent / "shared" / "data" / "raw"
    parser.add_argument("--raw", type=Path, default=default, help="folder with photographs")
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    log = Log(os.devnull, echo=False)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "voc")
        root.mkdir()
        sources = (
            sorted(
                Path(entry.path)
                for entry in walk(args.raw)
                if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
            )
            if args.raw.is_dir()
            else drawn(Path(temporary), 50)
        )
        dataset = build(root, sources[:2000], args.images)
        paths = [entry.path for entry in walk(root / "images")]

        def pillow() -> None:
            for path in paths:
                with Image.open(path) as image:
                    _ = image.size

        def index_() -> None:
            rows = index("bench", dataset, "train", ["mask"], 1.0, log, args.processes)
            tables.write(root / "bench.csv", tables.INDEX, rows)

        def group() -> None:
            indexes, roots = {"bench": root / "bench.csv"}, {"bench": root}
            group_duplicates(indexes, roots, 12, 0.87, log, args.processes)

        steps = {
            "pillow opens each image": pillow,
            "index": index_,
            "group_duplicates": group,
            "fingerprint": lambda: fingerprint(dataset, "train"),
        }
        seconds = {name: timed(step) for name, step in steps.items()}
    cores = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{platform.processor() or platform.machine()}, {cores}")
    print(f"command: {' '.join(sys.argv)}")
    print(f"{args.images} images with 4 faces each, {args.processes} processes")
    baseline = seconds["pillow opens each image"]
    for name, (wall, cpu) in seconds.items():
        ratio = wall / baseline[0]
        print(f"{name:26}{wall:8.2f} s {cpu:8.2f} s of CPU {ratio:8.2f} x the baseline")


if __name__ == "__main__":
    main()
