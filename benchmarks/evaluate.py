"""Time of the figures of an evaluation, beside the plain loop that NVIDIA's evaluation is.

Random faces and detections on many images; both ways must give the same average precision. The
loop compares one detection after the other with the ground truth of its image, as NVIDIA's does.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2 import metrics, spec
from detectnet_v2.dataset import target_classes

SPEC = Path(__file__).resolve().parents[1] / "tests/detectnet_v2/specs/tlt2_train.txt"


def scene(
    rng: np.random.Generator, images: int, per_image: int, classes: int
) -> tuple[list[metrics.GroundTruth], list[list[metrics.Detections]]]:
    """Return ground truth and detections; about half of them fit."""
    truths, found = [], []
    for _ in range(images):
        corner = rng.uniform(0, 400, (per_image, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(15, 120, (per_image, 2))], axis=1)
        labels = rng.integers(0, classes, per_image)
        truths.append((boxes.astype(np.float32), labels.astype(np.int32)))
        guesses = boxes + rng.normal(0, 8, boxes.shape)
        found.append(
            [
                (guesses[labels == index].astype(np.float32), scores(rng, labels, index))
                for index in range(classes)
            ]
        )
    return truths, found


def scores(rng: np.random.Generator, labels: np.ndarray, index: int) -> np.ndarray:
    """Return confidences of the detections of a class."""
    return rng.uniform(0, 30, int((labels == index).sum())).astype(np.float32)


def by_loop(truths, found, experiment) -> dict[str, float]:
    """Return the average precisions, in percent, of a loop over all detections."""
    result = {}
    for index, name in enumerate(target_classes(experiment)):
        limits = experiment.evaluation_config.evaluation_box_config[name]
        threshold = experiment.evaluation_config.minimum_detection_ground_truth_overlap[name]
        truth = [boxes[labels == index] for boxes, labels in truths]
        truth = [np.rint(boxes[metrics.inside_limits(boxes, limits)]) for boxes in truth]
        ranked = [
            (float(score), image, box)
            for image, item in enumerate(found)
            for box, score in zip(*item[index], strict=True)
            if metrics.inside_limits(box[None], limits)[0]
        ]
        ranked.sort(key=lambda item: -item[0])
        taken, hits = set(), []
        for _, image, box in ranked:
            rivals = truth[image]
            hits.append(False)
            if not len(rivals):
                continue
            low = np.maximum(np.rint(box)[:2], rivals[:, :2])
            high = np.minimum(np.rint(box)[2:], rivals[:, 2:])
            both = np.maximum(high - low + 1, 0).prod(axis=1)
            own = (np.rint(box)[2:] - np.rint(box)[:2] + 1).prod()
            overlap = both / (own + (rivals[:, 2:] - rivals[:, :2] + 1).prod(axis=1) - both)
            best = int(np.argmax(overlap))
            if overlap[best] >= threshold and (image, best) not in taken:
                taken.add((image, best))
                hits[-1] = True
        precision, recall = metrics.precision_recall(np.array(hits, bool), sum(map(len, truth)))
        mode = experiment.evaluation_config.average_precision_mode
        result[name] = 100 * metrics.average_precision_of(precision, recall, mode)
    return result


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--per-image", type=int, default=4)
    args = parser.parse_args()
    experiment = spec.load_experiment(SPEC)
    truths, found = scene(np.random.default_rng(0), args.images, args.per_image, 2)
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}")
    print(f"{args.images} images with {args.per_image} faces and as many detections each")
    started = time.perf_counter()
    figures = metrics.evaluate_detections(truths, found, experiment, coco=False)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    expected = by_loop(truths, found, experiment)
    loop = time.perf_counter() - started
    for name, value in expected.items():
        if abs(figures.average_precision[name] - value) > 1e-6:
            sys.exit(f"{name}: {figures.average_precision[name]} is not {value}")
    started = time.perf_counter()
    metrics.coco_figures(truths, found, experiment)
    coco = time.perf_counter() - started
    print(f"{'figures':24} {'seconds':>8} {'ratio':>6}")
    print(f"{'a loop, as NVIDIA':24} {loop:8.2f} {1:6.1f}")
    print(f"{'this':24} {ours:8.2f} {loop / ours:6.1f}")
    print(f"{'COCO, by pycocotools':24} {coco:8.2f}")


if __name__ == "__main__":
    main()
