"""What bounds the mAP of a model on fold 0: kinds of errors, sizes of faces, datasets.

After TIDE (Bolya et al., ECCV 2020): each false detection has one cause, and the first table tells
what the average precision were if those of one cause alone were put right. `--training-fold` also
evaluates on the images that the model was trained on, which tells errors of learning from errors
of generalising:

  snakemake export --configfile benchmarks/real.yaml --config data_root=/path/to/raw
  python benchmarks/bounds.py results_real --run unpruned --training-fold
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import accuracy
import bootstrap
import numpy as np
from deepstream.clustering import overlaps
from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import Sample, target_classes, validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.ground_truth import ground_truth
from detectnet_v2.metrics import average_precision_of, inside_limits, match, precision_recall
from detectnet_v2.postprocess import Detections
from detectnet_v2.spec import load_experiment

# A detection that overlaps a face less than this has nothing to do with it, as in TIDE.
BACKGROUND = 0.1
CAUSES = {
    "box": "boxes that are badly placed",
    "class": "faces of the wrong class",
    "again": "second boxes of a face",
    "background": "boxes where no face is",
    "both": "wrong class and badly placed",
}


@dataclass(frozen=True)
class Faces:
    """The faces that evaluation counts, image after image: boxes (n, 4) pixels of the input, class
    and image (n,).
    """

    boxes: np.ndarray
    label: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """The detections of one class by falling confidence, all (n,).

    Attributes:
        confidence: of each.
        hit: whether it is true by NVIDIA's rules.
        cause: index into CAUSES of a false one, -1 of a true one.
        target: the face that it is true for, or would be, were its one error put right; -1: none.
        faces: the class's own, indices into Faces.
    """

    confidence: np.ndarray
    hit: np.ndarray
    cause: np.ndarray
    target: np.ndarray
    faces: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1, with one line on stderr, for a run that is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results_dir of a finished run")
    parser.add_argument("--run", default="unpruned", help="or retrained/NAME (%(default)s)")
    parser.add_argument("--training-fold", action="store_true", help="evaluate there as well")
    args = parser.parse_args(arguments)
    os.environ.setdefault("DATA_BASE_PATH", str(Path.cwd()))
    try:
        spec = args.results / "evaluate/fold0_spec.txt"
        experiment = load_experiment(spec)
        samples = validation_samples(experiment)
        stored = args.results / args.run / "evaluation/fold0/detections.csv"
        found = bootstrap.read_detections(stored, samples, experiment)
        faces = counted_faces(samples, experiment)
        matched = outcomes(faces, found, experiment)
        tables = [
            causes_table(matched, experiment.evaluation_config.average_precision_mode),
            heights_table(faces, matched),
            datasets_table(samples, found, experiment),
        ]
        if args.training_fold:
            tables.append(training_fold_table(args.results, args.run, spec))
    except DetectNetError as error:
        print(f"bounds: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(tables))
    return 0


def counted_faces(samples: Sequence[Sample], experiment: spec_pb2.Experiment) -> Faces:
    """The faces of all classes within the sizes that evaluation_box_config names."""
    config = experiment.evaluation_config
    limits = [config.evaluation_box_config[name] for name in target_classes(experiment)]
    boxes, labels, images = [], [], []
    for image, (own, classes) in enumerate(ground_truth(samples, experiment)):
        inside = [inside_limits(own, limit) & (classes == n) for n, limit in enumerate(limits)]
        kept = np.any(inside, axis=0)
        boxes.append(own[kept])
        labels.append(classes[kept])
        images.append(np.full(kept.sum(), image))
    return Faces(np.concatenate(boxes), np.concatenate(labels), np.concatenate(images))


def outcomes(
    faces: Faces, detections: Sequence[Sequence[Detections]], experiment: spec_pb2.Experiment
) -> dict[str, Outcome]:
    """Match each class's detections by NVIDIA's rules, and find the cause of the false ones."""
    config = experiment.evaluation_config
    bounds = np.searchsorted(faces.image, np.arange(len(detections) + 1))
    result = {}
    for index, name in enumerate(target_classes(experiment)):
        threshold = config.minimum_detection_ground_truth_overlap[name]
        boxes = np.concatenate([found[index][0] for found in detections])
        confidence = np.concatenate([found[index][1] for found in detections])
        image = np.repeat(np.arange(len(detections)), [len(f[index][0]) for f in detections])
        kept = np.flatnonzero(inside_limits(boxes, config.evaluation_box_config[name]))
        order = kept[np.argsort(-confidence[kept], kind="stable")]
        boxes, image = boxes[order], image[order]
        own = faces.label == index
        hit = match(boxes, image, faces.boxes[own], faces.image[own], threshold)
        cause, target = np.full(len(order), -1), np.full(len(order), -1)
        for n, (box, first, last) in enumerate(
            zip(boxes, bounds[image], bounds[image + 1], strict=True)
        ):
            iou = _overlap(box, faces.boxes[first:last])
            same, other = np.where(own[first:last], (iou, 0 * iou), (0 * iou, iou))
            cause[n], nearest = _cause(same, other, threshold)
            target[n] = -1 if nearest is None else first + nearest
        cause[hit] = -1
        result[name] = Outcome(confidence[order], hit, cause, target, np.flatnonzero(own))
    return result


def _overlap(box: np.ndarray, truth: np.ndarray) -> np.ndarray:
    # Whole pixels, and a side counts its last one, as in detectnet_v2.metrics.match.
    corners = [np.rint(boxes) + np.array([0, 0, 1, 1]) for boxes in (box[None], truth)]
    return overlaps(*corners)[0]


def _cause(same: np.ndarray, other: np.ndarray, threshold: float) -> tuple[int, int | None]:
    """The cause of a false detection, by its overlap with faces, and the face it belongs to."""
    causes = list(CAUSES)
    best, best_other = same.max(initial=0), other.max(initial=0)
    if best >= threshold:
        return causes.index("again"), int(same.argmax())
    if best_other >= threshold:
        return causes.index("class"), int(other.argmax())
    if best >= BACKGROUND:
        return causes.index("box"), int(same.argmax())
    if best_other >= BACKGROUND:
        return causes.index("both"), None
    return causes.index("background"), None


def precision_without(
    found: Mapping[str, Outcome], cause: str | None, mode: int
) -> dict[str, float]:
    """Average precision of each class, in percent, once the errors of a cause are put right.

    A detection that was badly placed or of the wrong class is true where its face has no other
    one, and gone where it has; those of other causes are gone. "missed" takes the faces away that
    no detection of any class touches. None puts nothing right.
    """
    index = list(CAUSES).index(cause) if cause in CAUSES else None
    taken = {int(face) for o in found.values() for face in o.target[o.hit]}
    rows: dict[str, list[tuple[float, bool]]] = {name: [] for name in found}
    mended = []
    for name, outcome in found.items():
        for n in range(len(outcome.hit)):
            if outcome.cause[n] != index or index is None:
                rows[name].append((outcome.confidence[n], bool(outcome.hit[n])))
            elif cause in ("box", "class"):
                mended.append((outcome.confidence[n], int(outcome.target[n])))
    for confidence, face in sorted(mended, reverse=True):
        if face not in taken:
            taken.add(face)
            owner = next(name for name, o in found.items() if face in o.faces)
            rows[owner].append((confidence, True))
    touched = {int(face) for o in found.values() for face in o.target[o.target >= 0]}
    result = {}
    for name, outcome in found.items():
        faces = len(outcome.faces)
        if cause == "missed":
            faces = sum(int(face) in touched for face in outcome.faces)
        ordered = sorted(rows[name], key=lambda row: -row[0])
        precision, recall = precision_recall(np.array([hit for _, hit in ordered], bool), faces)
        result[name] = 100 * average_precision_of(precision, recall, mode)
    return result


def causes_table(found: Mapping[str, Outcome], mode: int) -> str:
    """What each cause of errors costs."""
    before = precision_without(found, None, mode)
    rows = [["as evaluated", *_figures(before), ""]]
    for cause, title in {**CAUSES, "missed": "faces that no box touches"}.items():
        after = precision_without(found, cause, mode)
        gain = np.mean(list(after.values())) - np.mean(list(before.values()))
        rows.append([f"without {title}", *_figures(after), f"{gain:+.2f}"])
    return accuracy.markdown(["fold 0", "mAP", *found, "gain"], rows)


def datasets_table(
    samples: Sequence[Sample],
    detections: Sequence[Sequence[Detections]],
    experiment: spec_pb2.Experiment,
) -> str:
    """Average precision on the images of each dataset."""
    mode = experiment.evaluation_config.average_precision_mode
    model = bootstrap.rank(samples, detections, experiment)
    # The workflow names an image HASH-DATASET-ORIGINAL.
    datasets = np.array([Path(sample.frame_id).name.split("-", 2)[1] for sample in samples])
    rows = []
    for dataset in sorted(set(datasets)):
        counts = (datasets == dataset).astype(int)
        rows.append([dataset, f"{counts.sum()}", *_precisions(model, counts, mode)])
    head = ["dataset", "images of fold 0", "mAP"]
    return accuracy.markdown([*head, *(f"{name} (faces)" for name in model)], rows)


def heights_table(faces: Faces, found: Mapping[str, Outcome]) -> str:
    """Share of the faces that are found, by their height in thirds of all that count.

    Found means by a true detection of at least the confidence at which the class has its best F1.
    """
    reached = np.zeros(len(faces.boxes), bool)
    for outcome in found.values():
        precision, recall = precision_recall(outcome.hit, len(outcome.faces))
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        best = int(f1.argmax()) + 1 if len(f1) else 0
        reached[outcome.target[:best][outcome.hit[:best]]] = True
    height = faces.boxes[:, 3] - faces.boxes[:, 1]
    edges = [0, *np.percentile(height, (100 / 3, 200 / 3)), np.inf]
    rows = []
    for low, high in pairwise(edges):
        row = [f"{low:.0f} to {high:.0f}" if high < np.inf else f"from {low:.0f} on"]
        for outcome in found.values():
            own = outcome.faces[(height[outcome.faces] >= low) & (height[outcome.faces] < high)]
            row.append(f"{100 * reached[own].mean():.1f} % of {len(own)}" if len(own) else "none")
        rows.append(row)
    return accuracy.markdown(["height, pixels", *(f"{name} found" for name in found)], rows)


def _precisions(model: Mapping[str, bootstrap.Ranked], counts: np.ndarray, mode: int) -> list[str]:
    cells, known = [], []
    for ranked in model.values():
        faces = int(ranked.faces @ counts)
        if faces:
            known.append(ranked.average_precision(counts, mode))
        cells.append(f"{known[-1]:.2f} ({faces})" if faces else "none")
    return [f"{np.mean(known):.2f}" if known else "", *cells]


def _figures(by_class: Mapping[str, float]) -> list[str]:
    values = list(by_class.values())
    return [f"{value:.2f}" for value in (np.mean(values), *values)]


def training_fold_table(results: Path, run: str, spec: Path) -> str:
    """The same model on the training fold and on fold 0."""
    folder = results / run / "evaluation/training_fold"
    text = re.sub(r"validation_fold: 0", "validation_fold: 1", spec.read_text(encoding="utf-8"))
    path, stored = folder / "spec.txt", folder / "metrics.json"
    model = results / run / "weights/model.hdf5"
    is_there = stored.is_file() and path.read_text(encoding="utf-8") == text
    if not is_there or stored.stat().st_mtime < model.stat().st_mtime:
        stored.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        accuracy.toolkit("evaluate", "-e", path, "-m", model, "-r", folder)
    rows = []
    for subset, title in (("training_fold", "training fold"), ("fold0", "fold 0")):
        figures = accuracy.metrics(results / run, subset)
        rows.append([title, *_figures({"mAP": figures["mAP"]})[:1]])
        rows[-1] += [f"{value:.2f}" for value in figures["average_precision"].values()]
        rows[-1] += [f"{figures['coco']['AP']:.2f}"]
    classes = accuracy.metrics(results / run, "fold0")["average_precision"]
    return accuracy.markdown(["images", "mAP", *classes, "COCO AP50:95"], rows)


if __name__ == "__main__":
    sys.exit(main())
