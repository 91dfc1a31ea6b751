"""A YOLO nano of `ultralytics` beside this project's models: same images, same fold, same time.

Trains from scratch on exactly the training fold of a finished run of the workflow, for as many
minutes as its unpruned model took, at the same input size, and evaluates on fold 0 and the val
split by the toolkit's own rules; ONNX Runtime gives the frame rates, the models taking turns:

  snakemake export --configfile benchmarks/real.yaml --config data_root=/path/to/raw
  python benchmarks/yolo/compare.py results_real

The YOLO has an environment of its own, which the first call makes in DIR/yolo/environment. What has
been trained there is not trained again. The table is Markdown, for docs/results.md.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
# Behind everything else: benchmarks/ has names that scripts/ has too.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from accuracy import TITLES, markdown, read_json, subsets, training_seconds
from detectnet_v2.dataset import Sample, target_classes, training_samples, validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.ground_truth import ground_truth
from detectnet_v2.images import read_image
from detectnet_v2.metrics import Evaluation, evaluate_detections
from detectnet_v2.postprocess import Detections
from detectnet_v2.spec import load_experiment
from torchvision_operators import suppress

HERE = Path(__file__).resolve().parent
PADDING = 114
"""Grey of what a YOLO's letterbox adds."""
CONFIDENCE, IOU, MOST = 0.001, 0.7, 300
"""The package's own settings for validation: least confidence, NMS, detections of an image."""
WARM_UP, ROUNDS, IMAGES_A_ROUND = 5, 10, 10


@dataclass(frozen=True)
class Row:
    """A model in the table."""

    name: str
    onnx: Path
    figures: dict[str, tuple[float, dict[str, float], float | None]]
    parameters: int
    training: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, print the table; 1, with one line on stderr, when that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results_dir of a finished run")
    parser.add_argument("--models", nargs="+", default=["yolo26n", "yolo11n"], help="nano models")
    parser.add_argument("--minutes", type=float, help="of training (what the unpruned model took)")
    parser.add_argument("--threads", type=int, default=2, help="of training and inference (2)")
    parser.add_argument("--batch", type=int, default=16, help="of the YOLO's training (16)")
    parser.add_argument("--python", type=Path, help="interpreter of an environment that is there")
    args = parser.parse_args(arguments)
    os.environ.setdefault("DATA_BASE_PATH", str(Path.cwd()))
    try:
        minutes = args.minutes or _minutes(args.results)
        folder = args.results / "yolo"
        data = write_dataset(args.results, folder / "data")
        python = args.python or environment(folder / "environment")
        rows = [
            yolo_row(args.results, folder / name, train(python, name, data, folder, minutes, args))
            for name in args.models
        ]
        rows += own_rows(args.results)
        rates = frame_rates([row.onnx for row in rows], args.threads)
    except DetectNetError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    print(table(rows, rates, subsets(args.results), args.threads))
    return 0


def _minutes(results: Path) -> float:
    seconds = training_seconds(results, "unpruned")
    if seconds is None:
        raise DetectNetError(
            f"{results}/benchmarks/train/unpruned.tsv: not there, so nobody knows how long the "
            "unpruned model trained: give --minutes"
        )
    return seconds / 60


def environment(folder: Path) -> Path:
    """The interpreter of the YOLO's virtual environment, which is made if need be."""
    python = folder / "bin/python"
    done = folder / "made"
    if not done.is_file():
        _run(sys.executable, "-m", "venv", "--clear", folder)
        for name, flags in (("requirements", []), ("requirements-no-deps", ["--no-deps"])):
            _run(python, "-m", "pip", "install", "-q", *flags, "-r", HERE / f"{name}.txt")
        done.touch()
    return python


def write_dataset(results: Path, folder: Path) -> Path:
    """The workflow's converted images in YOLO's layout: links, and labels as shares of the image.

    The folds are those of the training spec; boxes are clipped to the image. What an earlier call
    has written goes away. Returns data.yaml.
    """
    experiment = load_experiment(results / "unpruned/train_spec.txt")
    names = target_classes(experiment)
    for kind in ("images", "labels"):
        if (folder / kind).is_dir():
            shutil.rmtree(folder / kind)
    for title, samples in (
        ("train", training_samples(experiment)),
        ("fold0", validation_samples(experiment)),
    ):
        for kind in ("images", "labels"):
            (folder / kind / title).mkdir(parents=True)
        for sample in samples:
            link = folder / "images" / title / sample.image.name
            link.symlink_to(sample.image.resolve())
            label = folder / "labels" / title / f"{sample.image.stem}.txt"
            label.write_text("".join(f"{line}\n" for line in label_lines(sample)), encoding="ascii")
    document = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/fold0",
        "names": dict(enumerate(names)),
    }
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def label_lines(sample: Sample) -> list[str]:
    """`class x y width height` of each box, centre and size as shares of the image."""
    size = np.array([sample.width, sample.height], np.float64)
    corners = np.clip(sample.boxes.reshape(-1, 2, 2) / size, 0, 1)
    sides = corners[:, 1] - corners[:, 0]
    rows = np.concatenate([corners.mean(axis=1), sides], axis=1)
    return [
        f"{kind} " + " ".join(f"{value:.6f}" for value in row)
        for kind, row in zip(sample.classes, rows, strict=True)
        if (row[2:] > 0).all()
    ]


def train(
    python: Path, name: str, data: Path, folder: Path, minutes: float, args: argparse.Namespace
) -> dict:
    """Train and export one YOLO, unless that is done; the content of its training.json."""
    output = folder / name
    if not (output / "training.json").is_file():
        experiment = load_experiment(args.results / "unpruned/train_spec.txt")
        size = experiment.augmentation_config.preprocessing
        output.mkdir(parents=True, exist_ok=True)
        sides = ["--width", size.output_image_width, "--height", size.output_image_height]
        flags = ["--model", name, "--data", data, "--output", output, "--minutes", minutes, *sides]
        flags += ["--batch", args.batch, "--threads", args.threads]
        _run(python, HERE / "train.py", *flags, config=folder / "settings", threads=args.threads)
    return read_json(output / "training.json")


def _run(*command: object, config: Path | None = None, threads: int | None = None) -> None:
    words = list(map(str, command))
    variables = dict(os.environ)
    if config is not None:
        # Nothing is downloaded, and no settings outside this folder are read or written.
        variables |= {"YOLO_CONFIG_DIR": str(config.resolve()), "YOLO_OFFLINE": "true"}
        variables |= {"YOLO_AUTOINSTALL": "false", "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, stdout=sys.stderr, env=variables, check=False)
    if done.returncode:
        raise DetectNetError(f"`{' '.join(words)}` failed, see above")


def yolo_row(results: Path, folder: Path, training: dict) -> Row:
    """Evaluate the exported YOLO on every subset, by the toolkit's rules."""
    session = open_session(folder / "model.onnx", os.cpu_count() or 1)
    found = {}
    for subset in subsets(results):
        experiment = load_experiment(results / f"evaluate/{subset}_spec.txt")
        samples = validation_samples(experiment)
        names = target_classes(experiment)
        if training["names"] != names:
            raise DetectNetError(f"{folder}: was trained on {training['names']}, not on {names}")
        detections = [detect(session, read_image(item.image), len(names)) for item in samples]
        wrapped = -len(samples) % experiment.training_config.batch_size_per_gpu
        evaluation = evaluate_detections(
            ground_truth(samples, experiment), detections, experiment, wrapped=wrapped
        )
        found[subset] = _figures(evaluation)
    time_text = f"{training['minutes']:.1f} min, {training['epochs']} epochs"
    return Row(training["model"], folder / "model.onnx", found, training["parameters"], time_text)


def _figures(evaluation: Evaluation) -> tuple[float, dict[str, float], float | None]:
    precision = evaluation.average_precision
    return evaluation.mean_average_precision, precision, evaluation.coco["AP"]


def detect(session: onnxruntime.InferenceSession, image: np.ndarray, classes: int) -> list:
    """Detections of an RGB image (h, w, 3) by class, in its pixels.

    The image is put into the middle of the network's input, which is as large or larger.
    """
    entry = session.get_inputs()[0]
    height, width = entry.shape[2:]
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    canvas = np.full((height, width, 3), PADDING, np.uint8)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    values = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / 255
    (output,) = session.run(None, {entry.name: values})
    found = decode(output[0], classes)
    moved = []
    for boxes, confidence in found:
        inside = boxes - np.array([left, top, left, top], np.float32)
        limits = [image.shape[1], image.shape[0]] * 2
        moved.append((np.clip(inside, 0, limits).astype(np.float32), confidence))
    return moved


def decode(output: np.ndarray, classes: int) -> list[Detections]:
    """Boxes x1 y1 x2 y2 and confidences by class, best first, from either kind of output.

    A YOLO with a one-to-one head gives (n, 6): corners, confidence, class. The others give
    (4 + classes, n), centre and size before the classes' scores, and need suppression.
    """
    if output.shape[1] == 6 and output.shape[0] != 4 + classes:
        boxes, confidence, kind = output[:, :4], output[:, 4], output[:, 5].astype(int)
    else:
        centre, half = output[:2].T, output[2:4].T / 2
        kind, place = np.nonzero(output[4:] > CONFIDENCE)
        boxes = np.concatenate([centre - half, centre + half], axis=1)[place]
        confidence = output[4:][kind, place]
    result = []
    for index in range(classes):
        own = np.flatnonzero((kind == index) & (confidence > CONFIDENCE))
        if output.shape[1] == 6 and output.shape[0] != 4 + classes:
            kept = own[np.argsort(-confidence[own], kind="stable")]
        else:
            kept = own[suppress(boxes[own], confidence[own], IOU)]
        result.append((boxes[kept[:MOST]], confidence[kept[:MOST]]))
    return result


def own_rows(results: Path) -> list[Row]:
    """The unpruned and the chosen model of the run, as far as they were exported."""
    choice = read_json(results / "chosen/choice.json")["run"]
    rows = []
    for name, run in (("unpruned", "unpruned"), ("chosen", choice)):
        onnx = results / f"export/{name}/model.onnx"
        if not onnx.is_file() or (name, run) == ("chosen", "unpruned"):
            continue
        each = {
            subset: read_json(results / run / f"evaluation/{subset}/metrics.json")
            for subset in subsets(results)
        }
        found = {
            subset: (entry["mAP"], entry["average_precision"], entry["coco"]["AP"])
            for subset, entry in each.items()
        }
        parameters = next(iter(each.values()))["model"]["parameters"]
        seconds = training_seconds(results, run)
        text = f"{seconds / 60:.1f} min" if seconds else ""
        title = name if run == "unpruned" else f"{name}, {run.partition('/')[2]}"
        rows.append(Row(f"DetectNet_v2 {title}", onnx, found, parameters, text))
    return rows


def open_session(onnx: Path, threads: int) -> onnxruntime.InferenceSession:
    """The model on the CPU with so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def frame_rates(models: Sequence[Path], threads: int) -> list[float]:
    """Images a second of each network alone, one image at a time: medians over turns.

    The models take turns, so that other load on the machine falls on all of them.
    """
    sessions = [open_session(onnx, threads) for onnx in models]
    feeds = []
    for session in sessions:
        entry = session.get_inputs()[0]
        shape = [side if isinstance(side, int) else 1 for side in entry.shape]
        noise = np.random.default_rng(0).random(shape, dtype=np.float32)
        feeds.append({entry.name: noise})
        for _ in range(WARM_UP):
            session.run(None, feeds[-1])
    times: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for session, feed, taken in zip(sessions, feeds, times, strict=True):
            for _ in range(IMAGES_A_ROUND):
                started = time.perf_counter()
                session.run(None, feed)
                taken.append(time.perf_counter() - started)
    return [1 / statistics.median(taken) for taken in times]


def table(rows: Sequence[Row], rates: Sequence[float], known: Sequence[str], threads: int) -> str:
    """Markdown: figures, size, frame rate and training time of every model."""
    head = ["model"]
    for subset in known:
        head += [f"{TITLES[subset]} mAP (by class)", "COCO AP50:95"]
    head += ["parameters", f"FPS, ONNX Runtime, {threads} threads", "training"]
    lines = []
    for row, rate in zip(rows, rates, strict=True):
        cells = [row.name]
        for subset in known:
            mean, classes, coco = row.figures[subset]
            by_class = ", ".join(f"{name} {value:.2f}" for name, value in classes.items())
            cells += [f"{mean:.2f} ({by_class})", "" if coco is None else f"{coco:.2f}"]
        lines.append([*cells, f"{row.parameters:,}", f"{rate:.1f}", row.training])
    return markdown(head, lines)


if __name__ == "__main__":
    sys.exit(main())
