"""Time of DBSCAN on dense frames, beside scikit-learn's on a matrix of distances.

Each frame is a 960 x 544 image with some faces; every cell under a face is a candidate whose box is
the face's, with noise. Both get the same candidates and must find the same clusters. The baseline
is what NVIDIA's code does: the matrix of 1 - IoU in NumPy, then sklearn.cluster.DBSCAN.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2 import objectives
from detectnet_v2.clustering import dbscan

WIDTH, HEIGHT = 960, 544
NOISE = 0.03
"""Standard deviation of a box's sides, as a part of its width."""


def frame(rng: np.random.Generator, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Return candidates (n, 4) and their coverage (n,)."""
    x, y = objectives.grid_references(WIDTH // 16, HEIGHT // 16)
    boxes, coverage = [], []
    for _ in range(faces):
        width = rng.uniform(40, 200)
        height = min(width * rng.uniform(1, 1.4), HEIGHT)
        left, top = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
        inside = (x > left) & (x < left + width)
        count = int(inside.sum() * ((y > top) & (y < top + height)).sum())
        box = np.array([left, top, left + width, top + height])
        boxes.append(box + rng.normal(0, NOISE * width, (count, 4)))
        coverage.append(rng.uniform(0.005, 1, count))
    clipped = np.clip(np.concatenate(boxes), 0, [WIDTH, HEIGHT] * 2)
    return clipped.astype(np.float32), np.concatenate(coverage).astype(np.float32)


def with_matrix(boxes: np.ndarray, coverage: np.ndarray, eps: float) -> np.ndarray:
    """Return the clusters as NVIDIA's code finds them."""
    from sklearn.cluster import DBSCAN  # noqa: PLC0415 - only the baseline needs it

    x1, y1, x2, y2 = boxes.T
    width = np.maximum(0, np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1))
    height = np.maximum(0, np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1))
    both = width * height
    area = (x2 - x1) * (y2 - y1)
    distances = 1.0 - both / (area[:, None] + area - both + np.float32(1e-5))
    model = DBSCAN(eps=eps, min_samples=1, metric="precomputed")
    return model.fit_predict(distances, sample_weight=coverage)


def best_time(work: Callable[[], object], repeats: int) -> float:
    """Return the shortest of some times in seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 3, 5, 8, 12, 20, 30, 60])
    parser.add_argument("--eps", type=float, nargs="+", default=[0.2])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}")
    print(
        f"{'boxes':>6} {'eps':>5} {'clusters':>8} {'this, ms':>9} {'sklearn, ms':>11} {'ratio':>6}"
    )
    rng = np.random.default_rng(0)
    for faces in args.faces:
        boxes, coverage = frame(rng, faces)
        for eps in args.eps:
            settings = {"eps": eps, "min_weight": 1, "iou_epsilon": 1e-5}
            labels = dbscan(boxes, coverage, **settings)
            if not np.array_equal(labels, with_matrix(boxes, coverage, eps)):
                sys.exit(f"{faces} faces, eps {eps}: the clusters differ")
            ours = best_time(lambda: dbscan(boxes, coverage, **settings), args.repeats)  # noqa: B023
            theirs = best_time(lambda: with_matrix(boxes, coverage, eps), args.repeats)  # noqa: B023
            print(
                f"{len(boxes):6} {eps:5.2f} {labels.max() + 1:8} {1e3 * ours:9.2f} "
                f"{1e3 * theirs:11.2f} {theirs / ours:6.1f}"
            )


if __name__ == "__main__":
    main()
