"""Conversion to the network's size: images a second against a plain Pillow loop, and likeness.

Both sides convert the same photographs, in turn, in one run: the loop is one process that opens,
converts to RGB, resizes (Pillow's default, bicubic) and saves a JPEG; ours is the conversion of the
rule `kitti` with everything it does (labels, digests, journal).
"""

import argparse
import os
import platform
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from datasets.conversion import Settings, Task, convert  # noqa: E402
from datasets.fingerprint import walk  # noqa: E402
from datasets.headers import image_size  # noqa: E402
from datasets.program import Log  # noqa: E402
from datasets.voc import IMAGE_SUFFIXES  # noqa: E402


def photographs(raw: Path, number: int) -> list[str]:
    """A fixed sample of the photographs below `raw`."""
    paths = sorted(
        entry.path for entry in walk(raw) if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
    )
    random.Random(0).shuffle(paths)
    return paths[:number]


def clocks() -> np.ndarray:
    """Wall clock, and CPU time of this process and of its ended children, seconds."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return np.array([time.perf_counter(), cpu])


def pillow_loop(tasks: list[Task], folder: Path, settings: Settings) -> np.ndarray:
    """Wall and CPU seconds of the plain loop."""
    folder.mkdir(parents=True)
    start = clocks()
    for task in tasks:
        with Image.open(task.source) as image:
            small = image.convert("RGB").resize((settings.width, settings.height))
        small.save(folder / f"{task.name}.jpg", "JPEG", quality=settings.quality)
    return clocks() - start


def our_conversion(
    tasks: list[Task], folder: Path, settings: Settings, processes: int
) -> np.ndarray:
    """Wall and CPU seconds of the rule's conversion."""
    start = clocks()
    convert("bench", tasks, folder, settings, 0.0, Log(os.devnull, echo=False), processes)
    return clocks() - start


def psnr(first: Path, second: Path) -> float:
    """Peak signal-to-noise ratio of two JPEGs, dB."""
    with Image.open(first) as one, Image.open(second) as other:
        difference = np.asarray(one, np.float32) - np.asarray(other, np.float32)
    return float(10 * np.log10(255**2 / max(float(np.mean(difference**2)), 1e-9)))


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = REPOSITORY.parent / "shared" / "data" / "raw"
    parser.add_argument("--raw", type=Path, default=default, help="folder with photographs")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--width", type=int, default=960)
    parser.add_argument("--height", type=int, default=544)
    parser.add_argument("--quality", type=int, default=90)
    args = parser.parse_args()
    if not args.raw.is_dir():
        sys.exit(f"{args.raw} is no folder; give one with --raw")
    settings = Settings(args.width, args.height, args.quality)
    tasks = [
        Task(f"{number:08x}-bench-image", path, *image_size(path), "")
        for number, path in enumerate(photographs(args.raw, args.images))
    ]
    plain_times, our_times = [], []
    with tempfile.TemporaryDirectory() as temporary:
        plain, ours = Path(temporary, "plain"), Path(temporary, "ours")
        for _ in range(args.rounds):
            for folder in (plain, ours):
                shutil.rmtree(folder, ignore_errors=True)
            plain_times.append(pillow_loop(tasks, plain, settings))
            our_times.append(our_conversion(tasks, ours, settings, args.processes))
        likeness = [
            psnr(plain / f"{task.name}.jpg", ours / "images" / f"{task.name}.jpg") for task in tasks
        ]
    plain_median, our_median = np.median(plain_times, axis=0), np.median(our_times, axis=0)
    ratios = sorted((np.array(plain_times) / np.array(our_times))[:, 0])
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f}")
    print(f"command: {' '.join(sys.argv)}")
    print(f"{len(tasks)} photographs to {args.width} x {args.height}, quality {args.quality}")
    for name, (wall, cpu) in (
        ("pillow loop, 1 process", plain_median),
        (f"kitti, {args.processes} processes", our_median),
    ):
        print(
            f"{name:24}{len(tasks) / wall:8.1f} images/s"
            f"{1000 * cpu / len(tasks):8.2f} ms of CPU an image   (median of {args.rounds})"
        )
    print(
        f"{'ratio':24}{statistics.median(ratios):8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        f"{plain_median[1] / our_median[1]:11.2f} in CPU time"
    )
    print(
        f"PSNR against the loop   {statistics.median(likeness):8.2f} dB median,"
        f" 5 % below {np.percentile(likeness, 5):.2f} dB"
    )


if __name__ == "__main__":
    main()
