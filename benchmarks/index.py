"""Index of a big dataset: seconds of the rule `index`, of grouping and of the fingerprint.

The dataset is made for the run: photographs of a raw folder (or drawn ones), hard-linked under
many names, with a Pascal VOC annotation each. The baseline opens each image with Pillow, in one
process, to ask for its size, and parses no annotation.
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from big_tree import build, drawn  # noqa: E402
from datasets import tables  # noqa: E402
from datasets.fingerprint import fingerprint, walk  # noqa: E402
from datasets.program import Log  # noqa: E402
from datasets.voc import IMAGE_SUFFIXES  # noqa: E402
from group_duplicates import group_duplicates  # noqa: E402
from index import index  # noqa: E402


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
