"""How time and memory of each stage grow from a thousand images to 30,000.

The images are synthetic: a few drawn pictures, hard-linked under many names, with a Pascal VOC
annotation each; then the JPEGs and labels that their conversion makes; then random network outputs,
faces and detections. Each stage runs in a process of its own, which gives its peak memory. The last
column is the cost of an image against that of the smallest run: 1 is linear growth, less is better.
Processor time is compared, which other load hardly changes.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from big_tree import build, drawn  # noqa: E402
from datasets import tables  # noqa: E402
from datasets.conversion import Settings, Task, convert, label_line  # noqa: E402
from datasets.program import Log  # noqa: E402
from detectnet_v2 import dataset_convert, metrics, postprocess, spec, spec_pb2  # noqa: E402
from evaluate import SPEC, scene  # noqa: E402
from group_duplicates import group_duplicates  # noqa: E402
from index import index  # noqa: E402

SOURCES = 200
SOURCE_SIZE = (320, 240)
NETWORK_SIZE = (480, 272)
FACES = 4
BATCH = 16
# Seconds by the clock that BAR_IMAGES may take.
BAR_IMAGES = 30_000
BARS = {"index": 20.0, "evaluation, NVIDIA's figures": 10.0}


def silent() -> Log:
    """A log that goes nowhere."""
    return Log(os.devnull, echo=False)


def make_dataset(folder: Path, images: int) -> dict:
    """The raw dataset of so many images."""
    (folder / "drawn").mkdir(parents=True)
    (folder / "voc").mkdir()
    return build(folder / "voc", drawn(folder / "drawn", SOURCES, SOURCE_SIZE), images)


def run_index(folder: Path, dataset: dict, processes: int) -> None:
    """The rule `index`."""
    rows = index("bench", dataset, "train", ["mask"], 1.0, silent(), processes)
    tables.write(folder / "index.csv", tables.INDEX, rows)


def run_grouping(folder: Path, dataset: dict, processes: int) -> None:
    """The rule `group_duplicates`."""
    roots = {"bench": Path(dataset["root"])}
    group_duplicates({"bench": folder / "index.csv"}, roots, 12, 0.87, silent(), processes)


def run_conversion(folder: Path, dataset: dict, processes: int) -> None:
    """The rule `kitti`."""
    lines = label_line("mask", [10, 20, 60, 90]) * FACES
    sources = sorted(Path(dataset["root"], "images").iterdir())
    tasks = [
        Task(f"{number:08x}-bench-image", str(source), *SOURCE_SIZE, lines)
        for number, source in enumerate(sources)
    ]
    convert("bench", tasks, folder / "kitti", Settings(*NETWORK_SIZE, 90), 0, silent(), processes)


def run_tfrecords(folder: Path, dataset: dict, processes: int) -> None:
    """The rule `tfrecords`."""
    config = spec_pb2.DatasetExportConfig()
    kitti = config.kitti_config
    kitti.root_directory_path = config.image_directory_path = str(folder / "kitti")
    kitti.image_dir_name, kitti.label_dir_name = "images", "labels"
    kitti.image_extension, kitti.partition_mode = ".jpg", "random"
    kitti.num_partitions, kitti.val_split, kitti.num_shards = 2, 20, 10
    dataset_convert.convert(config, folder / "tfrecords" / "bench")


def run_postprocessing(folder: Path, images: int) -> None:
    """Decoding and clustering of the network's outputs, a batch at a time."""
    experiment = spec.load_experiment(SPEC)
    clusterings = postprocess.evaluation_clustering(experiment)
    width, height = NETWORK_SIZE
    rng = np.random.default_rng(0)
    shape = (BATCH, 2, height // 16, width // 16)
    cov = rng.uniform(0, 0.004, shape).astype(np.float32)
    bbox = rng.normal(0, 0.02, (BATCH, 8, *shape[2:])).astype(np.float32)
    for image in range(BATCH):
        for face in range(FACES):
            row, column = rng.integers(0, shape[2] - 4), rng.integers(0, shape[3] - 4)
            cov[image, face % 2, row : row + 4, column : column + 4] = rng.uniform(0.3, 1, (4, 4))
    for _ in range(-(-images // BATCH)):
        postprocess.detections(bbox, cov, clusterings, width=width, height=height)


def run_evaluation(folder: Path, images: int) -> tuple[float, float]:
    """Matching and NVIDIA's figures; returns when they began, since the scene comes first."""
    truths, found = scene(np.random.default_rng(0), images, FACES, 2)
    experiment = spec.load_experiment(SPEC)
    started = clocks()
    metrics.evaluate_detections(truths, found, experiment, coco=False)
    return started


def run_coco(folder: Path, images: int) -> tuple[float, float]:
    """The same of COCO's figures."""
    truths, found = scene(np.random.default_rng(0), images, FACES, 2)
    experiment = spec.load_experiment(SPEC)
    started = clocks()
    metrics.coco_figures(truths, found, experiment)
    return started


STAGES: dict[str, Callable] = {
    "index": run_index,
    "near-duplicate groups": run_grouping,
    "conversion to 480x272": run_conversion,
    "tfrecords": run_tfrecords,
    "decoding and clustering": run_postprocessing,
    "evaluation, NVIDIA's figures": run_evaluation,
    "evaluation, COCO's figures": run_coco,
}
ON_FILES = list(STAGES)[:4]


def clocks() -> tuple[float, float]:
    """Wall clock, and processor seconds of this process and its ended children."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)


def serve(stage: str, folder: Path, images: int, dataset: dict, processes: int, answer) -> None:
    """Run a stage and send wall and processor seconds, and the peak memory in MB."""
    started = clocks()
    if stage in ON_FILES:
        STAGES[stage](folder, dataset, processes)
    else:
        started = STAGES[stage](folder, images) or started
    wall, cpu = (after - before for after, before in zip(clocks(), started, strict=True))
    peaks = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    answer.send((wall, cpu, max(peaks) / 1024))


def measure(stage: str, *arguments: object) -> tuple[float, float, float]:
    """What a stage costs in a fresh process."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(stage, *arguments, other))
    process.start()
    other.close()
    try:
        return mine.recv()
    except EOFError:
        sys.exit(f"{stage} failed")
    finally:
        process.join()


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--images", nargs="+", type=int, default=[1000, 5000, 30_000], help="%(default)s"
    )
    parser.add_argument("--processes", type=int, default=2, help="%(default)s")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--json", type=Path, help="file for the figures too")
    args = parser.parse_args()
    figures: dict[str, dict[int, tuple[float, float, float]]] = {name: {} for name in args.stages}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f}; {' '.join(sys.argv)}")
    print(
        f"{'':30}{'images':>7}{'wall s':>8}{'CPU s':>8}{'images/s':>10}{'images/CPU s':>13}"
        f"{'MB':>6}{'growth':>8}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for images in sorted(args.images):
            folder = Path(temporary, str(images))
            dataset = make_dataset(folder, images)
            for stage in args.stages:
                cost = measure(stage, folder, images, dataset, args.processes)
                figures[stage][images] = cost
                row(stage, images, cost, figures[stage])
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def row(
    stage: str,
    images: int,
    cost: tuple[float, float, float],
    by_size: dict[int, tuple[float, float, float]],
) -> None:
    """Print a line of the table."""
    wall, cpu, memory = cost
    smallest = min(by_size)
    growth = cpu / images / (by_size[smallest][1] / smallest)
    bar = f"  of {BARS[stage]:.0f} s" if stage in BARS and images == BAR_IMAGES else ""
    print(
        f"{stage:30}{images:>7}{wall:>8.2f}{cpu:>8.2f}{images / wall:>10.0f}"
        f"{images / cpu:>13.0f}{memory:>6.0f}{growth:>8.2f}{bar}",
        flush=True,
    )


if __name__ == "__main__":
    main()
