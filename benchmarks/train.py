"""Images a second of the task `train` against a plain PyTorch loop over the same model and data.

The plain loop is what one writes first: float32, PyTorch's own memory layout, images decoded and
augmented between the steps, torch.optim.Adam. Both train the same network on the same batches of
the same images with the same cost. They take turns for several rounds, so that other load on the
machine falls on both; the table gives the median of each and of the ratio of neighbours.
"""

import argparse
import io
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2 import cost, loader, precision, spec_pb2
from detectnet_v2.allocator import keep_freed_memory
from detectnet_v2.augmentation import Augmenter
from detectnet_v2.convolution import Convolution
from detectnet_v2.dataset import Sample
from detectnet_v2.image_cache import content_digest, open_images
from detectnet_v2.model import DetectNetV2, regularized_parameters
from detectnet_v2.rasterizer import EllipseConfig, rasterize
from detectnet_v2.schedule import from_spec as schedule_from_spec
from detectnet_v2.trainer import Trainer

CLASSES = ("mask", "no-mask")
ELLIPSES = [EllipseConfig()] * len(CLASSES)
STEPS_PER_EPOCH = 1000


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=480, help="of the images (%(default)s)")
    parser.add_argument("--height", type=int, default=272, help="of the images (%(default)s)")
    parser.add_argument("--layers", type=int, default=18, help="of the ResNet (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (%(default)s)")
    parser.add_argument("--images", type=Path, help="folder of JPEGs; default: drawn ones")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--steps", type=int, default=3, help="steps a round (%(default)s)")
    parser.add_argument(
        "--onednn",
        action="store_true",
        help="leave all convolutions to oneDNN, where the task would compute some of them itself",
    )
    parser.add_argument("--threads", type=int, default=0, help="default: the available cores")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the process's CPU time, for a busy machine; sound with --threads 1 only, since "
        "threads that wait for each other count too",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(arguments.images.glob("*.jpg")) if arguments.images else None
        files = files or draw_images(Path(folder), arguments.width, arguments.height, 64)
        with (
            Worker(PlainLoop, files, arguments, Path(folder)) as plain,
            Worker(TrainLoop, files, arguments, Path(folder)) as ours,
        ):
            for loop in (plain, ours):
                loop.run(2)
            rounds = [
                (plain.run(arguments.steps), ours.run(arguments.steps))
                for _ in range(arguments.rounds)
            ]
    report(rounds, arguments)


def report(rounds: list[tuple["Figures", "Figures"]], arguments: argparse.Namespace) -> None:
    """Print the table."""
    plain, ours = ([pair[i].images_per_second for pair in rounds] for i in range(2))
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ResNet"
        f"{arguments.layers} {arguments.width}x{arguments.height}, batch {arguments.batch}; "
        f"{' '.join(sys.argv)}"
    )
    unit = "images/CPU s" if arguments.cpu_time else "images/s"
    print(f"{'':<34}{unit:>12}{'min':>8}{'max':>8}")
    for pair, values in zip(rounds[-1], (plain, ours), strict=True):
        print(
            f"{pair.title:<34}{statistics.median(values):>12.2f}{min(values):>8.2f}"
            f"{max(values):>8.2f}"
        )
    ratios = [b / a for a, b in zip(plain, ours, strict=True)]
    print(f"ratio {statistics.median(ratios):.2f}")
    waiting = statistics.median(pair[1].waiting for pair in rounds)
    print(f"waiting for data {100 * waiting:.2f} % of the time")


@dataclass(frozen=True)
class Figures:
    """What a loop measured over some steps: its speed, and the share of time without data."""

    title: str
    images_per_second: float
    waiting: float = 0.0


class Worker:
    """A loop in a process of its own, since settings of the process are part of its speed."""

    def __init__(
        self, loop: type, files: list[Path], arguments: argparse.Namespace, folder: Path
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(loop, files, arguments, folder, other))
        with openmp_spinning(shortly=loop is TrainLoop):
            self._process.start()
        other.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.send(0)
        self._process.join()

    def run(self, steps: int) -> Figures:
        """Train for some steps."""
        self._connection.send(steps)
        return self._connection.recv()


@contextmanager
def openmp_spinning(*, shortly: bool) -> Iterator[None]:
    """Start processes with the spin count that the package has set, or with OpenMP's own."""
    count = os.environ.get("GOMP_SPINCOUNT")
    if not shortly:
        os.environ.pop("GOMP_SPINCOUNT", None)
    yield
    if count is not None:
        os.environ["GOMP_SPINCOUNT"] = count


def serve(
    loop: type,
    files: list[Path],
    arguments: argparse.Namespace,
    folder: Path,
    connection: Connection,
) -> None:
    """Run a loop's steps as the connection asks, until it asks for none."""
    precision.set_threads(arguments.threads, 1)
    samples = make_samples(files, arguments.width, arguments.height)
    spec = experiment(arguments.width, arguments.height)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    with loop(spec, samples, arguments, folder) as running:
        while steps := connection.recv():
            started = clock()
            waited = running.run(steps)
            seconds = clock() - started
            images = steps * arguments.batch
            connection.send(Figures(running.title, images / seconds, waited / seconds))


class PlainLoop:
    """The loop that a first version would be."""

    title = "plain PyTorch loop, float32"

    def __init__(
        self,
        spec: spec_pb2.Experiment,
        samples: list[Sample],
        arguments: argparse.Namespace,
        folder: Path,
    ) -> None:
        self._samples = samples
        self._batch = arguments.batch
        self._model = make_model(arguments)
        self._cost = cost.from_spec(spec)
        self._regularized = regularized_parameters(self._model)
        self._optimizer = torch.optim.Adam(self._model.parameters())
        self._schedule = schedule_from_spec(spec.training_config, STEPS_PER_EPOCH)
        self._augmenter = Augmenter(
            spec.augmentation_config, canvas=(arguments.width, arguments.height)
        )
        self._rng = np.random.default_rng(0)
        self._step = 0

    def __enter__(self) -> "PlainLoop":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, steps: int) -> float:
        """Train for some steps; its images are made between them, so none are waited for."""
        for _ in range(steps):
            images, targets = self._load()
            bbox, cov = self._model(images)
            loss = self._cost.total(self._cost.costs(bbox, cov, targets))
            loss = loss + 3e-9 * sum(p.abs().sum() for p in self._regularized)
            for group in self._optimizer.param_groups:
                group["lr"] = self._schedule.learning_rate(self._step)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            if not torch.isfinite(loss):
                raise SystemExit("the plain loop diverged")
            self._step += 1
        return 0.0

    def _load(self) -> tuple[torch.Tensor, cost.Targets]:
        images, targets = [], []
        for i in self._rng.integers(len(self._samples), size=self._batch):
            sample = self._samples[i]
            image = np.asarray(Image.open(sample.image).convert("RGB"))
            drawn = self._augmenter.draw(self._rng)
            image = self._augmenter.warp(image, drawn)
            self._augmenter.recolor(image, drawn, self._rng)
            images.append(torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255)
            targets.append(
                rasterize(
                    sample.boxes,
                    sample.classes,
                    config=ELLIPSES,
                    grid_width=self._augmenter.width // 16,
                    grid_height=self._augmenter.height // 16,
                    num_classes=len(CLASSES),
                )
            )
        cov, cov_norm, bbox = (
            torch.from_numpy(np.stack(part)) for part in zip(*targets, strict=True)
        )
        return torch.stack(images), cost.Targets(cov, cov_norm, bbox, torch.ones(self._batch))


class TrainLoop:
    """What the task runs: its trainer, its batches, its threads."""

    def __init__(
        self,
        spec: spec_pb2.Experiment,
        samples: list[Sample],
        arguments: argparse.Namespace,
        folder: Path,
    ) -> None:
        keep_freed_memory()
        cv2.setNumThreads(1)
        torch.set_flush_denormal(True)
        model = make_model(arguments).to(memory_format=torch.channels_last)
        chosen = precision.choose_precision("auto", model, torch.device("cpu"))
        self.title = f"detectnet_v2 train, {chosen.name}"
        self._trainer = Trainer(spec, model, precision=chosen, steps_per_epoch=STEPS_PER_EPOCH)
        if arguments.onednn:
            self.title += ", oneDNN alone"
            for module in model.modules():
                if isinstance(module, Convolution):
                    module.by_products = False
        paths = [sample.image for sample in samples]
        maker = loader.BatchMaker(
            samples,
            open_images(paths, directory=folder / "cache", digest=content_digest(paths)),
            augmenter=Augmenter(
                spec.augmentation_config, canvas=(arguments.width, arguments.height)
            ),
            ellipses=ELLIPSES,
        )
        order = loader.TrainingOrder(len(samples), arguments.batch, seed=0)
        self._batches = loader.Prefetcher(maker.training, order.batches(0, STEPS_PER_EPOCH))

    def __enter__(self) -> "TrainLoop":
        return self

    def __exit__(self, *exception: object) -> None:
        self._batches.close()

    def run(self, steps: int) -> float:
        """Train for some steps; returns the seconds that they waited for data."""
        waited = self._batches.waited
        for _ in range(steps):
            result = self._trainer.run_step(next(self._batches))
            if not torch.isfinite(result.values).all():
                raise SystemExit("the training diverged")
        return self._batches.waited - waited


def make_model(arguments: argparse.Namespace) -> DetectNetV2:
    """The same network for both."""
    torch.manual_seed(0)
    model = DetectNetV2(
        arguments.layers,
        len(CLASSES),
        input_width=arguments.width,
        input_height=arguments.height,
    )
    return model.train()


def experiment(width: int, height: int) -> spec_pb2.Experiment:
    """The recipe's settings, as far as a step depends on them."""
    spec = spec_pb2.Experiment()
    size = spec.augmentation_config.preprocessing
    size.output_image_width, size.output_image_height = width, height
    spatial = spec.augmentation_config.spatial_augmentation
    spatial.hflip_probability = 0.5
    spatial.zoom_min, spatial.zoom_max = 0.8, 1.2
    spatial.translate_max_x = spatial.translate_max_y = 8
    color = spec.augmentation_config.color_augmentation
    color.hue_rotation_max, color.saturation_shift_max = 25, 0.2
    color.contrast_scale_max, color.contrast_center = 0.1, 0.5
    for name in CLASSES:
        target = spec.cost_function_config.target_classes.add(
            name=name, class_weight=1, coverage_foreground_weight=0.5
        )
        target.objectives.add(name="cov", initial_weight=1, weight_target=1)
        target.objectives.add(name="bbox", initial_weight=10, weight_target=10)
    training = spec.training_config
    training.num_epochs = 1
    rates = training.learning_rate.soft_start_annealing_schedule
    rates.min_learning_rate, rates.max_learning_rate = 5e-6, 5e-4
    rates.soft_start, rates.annealing = 0.1, 0.7
    training.regularizer.type = spec_pb2.RegularizerConfig.L1
    training.regularizer.weight = 3e-9
    adam = training.optimizer.adam
    adam.epsilon, adam.beta1, adam.beta2 = 1e-8, 0.9, 0.999
    return spec


def draw_images(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """JPEGs with a photograph's amount of detail: smooth noise, coarse and fine."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        image = sum(
            np.asarray(
                Image.fromarray(
                    rng.integers(0, 256, (height // step, width // step, 3), dtype=np.uint8)
                ).resize((width, height), Image.BICUBIC),
                dtype=np.float32,
            )
            * share
            for step, share in ((64, 0.5), (16, 0.3), (4, 0.2))
        )
        stream = io.BytesIO()
        Image.fromarray(image.astype(np.uint8)).save(stream, "JPEG", quality=90)
        files.append(folder / f"{i:03d}.jpg")
        files[-1].write_bytes(stream.getvalue())
    return files


def make_samples(files: list[Path], width: int, height: int) -> list[Sample]:
    """Two boxes an image, as many as the recipe's images have faces."""
    rng = np.random.default_rng(1)
    samples = []
    for file in files:
        corner = rng.uniform(0, (width - 80, height - 80), (2, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 80, (2, 2))], axis=1)
        classes = np.array([0, 1], dtype=np.int32)
        samples.append(
            Sample(file, file.stem, width, height, boxes.astype(np.float32), classes, 1.0)
        )
    return samples


if __name__ == "__main__":
    main()
