"""Batches for training and validation: the order of the data, augmentation, and targets.

Everything random in a batch follows from (seed, epoch, position), never from which thread or
process made it or what was made before, so a resumed training sees the very same batches.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from detectnet_v2 import objectives, spec_pb2
from detectnet_v2.augmentation import Augmenter, Drawn, scaling, transform_boxes, translation
from detectnet_v2.cost import Targets
from detectnet_v2.curriculum import Curriculum
from detectnet_v2.dataset import MINIMUM_SIZE, Sample, target_classes
from detectnet_v2.errors import DetectNetError
from detectnet_v2.rasterizer import EllipseConfig, rasterize

_ORDER, _AUGMENTATION, _COLOR_NOISE = range(3)
"""What a random stream is for; part of its seed."""

_MOSAIC_MIN_VISIBLE = 0.3
_MOSAIC_CENTER = 0.25, 0.75

T = TypeVar("T")


class Images(Protocol):
    """Images by position, (h, w, 3) uint8."""

    def __getitem__(self, i: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """N images (N, H, W, 3) uint8, their targets, and their positions in the list of samples."""

    images: torch.Tensor
    targets: Targets
    indices: tuple[int, ...]


def steps_per_epoch(count: int, batch_size: int, processes: int = 1) -> int:
    """Steps of an epoch over ``count`` images: enough that every image is seen."""
    return math.ceil(math.ceil(count / batch_size) / processes)


def epoch_order(
    seed: int, epoch: int, count: int, total: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """``total`` positions among ``count`` samples: a permutation, then the start of another.

    With ``weights`` (count,) each sample comes in proportion to its weight, as often as that is or
    once more (systematic sampling), in random order.
    """
    if weights is not None:
        rng = np.random.default_rng((seed, _ORDER, epoch))
        steps = np.cumsum(weights) * (total / weights.sum())
        taken = np.searchsorted(steps, np.arange(total) + rng.random(), side="right")
        return rng.permutation(np.minimum(taken, count - 1))
    order = [
        np.random.default_rng((seed, _ORDER, epoch, turn)).permutation(count)
        for turn in range(math.ceil(total / count))
    ]
    return np.concatenate(order)[:total]


def sampling_weights(
    samples: Sequence[Sample], experiment: spec_pb2.Experiment
) -> np.ndarray | None:
    """How often each sample is to be seen, relative to the others; None for all alike.

    By ``native.class_balance``, and by ``sampling_mode``: with UNIFORM the samples of every data
    source together are seen as often as those of any other.
    """
    balance = experiment.native.class_balance
    weights = balancing_weights(samples, len(target_classes(experiment)), balance)
    sources = np.array([sample.source for sample in samples])
    is_uniform = experiment.dataset_config.sampling_mode == spec_pb2.DatasetConfig.UNIFORM
    if not is_uniform or not sources.any():
        return weights
    if weights is None:
        weights = np.ones(len(samples))
    return weights / np.bincount(sources, weights)[sources]


def balancing_weights(samples: Sequence[Sample], classes: int, balance: float) -> np.ndarray | None:
    """How often each sample is to be seen, relative to the others; None when ``balance`` is 0.

    A sample counts for the rarest class that it shows: (images of the commonest class / images of
    that class) ** balance; a sample without objects counts once.
    """
    if not balance:
        return None
    shown = np.zeros((len(samples), classes), dtype=bool)
    for row, sample in zip(shown, samples, strict=True):
        row[sample.classes] = True
    images = shown.sum(0)
    factors = (images.max() / np.maximum(images, 1)) ** balance
    return np.where(shown.any(1), np.where(shown, factors, 0).max(1), 1.0)


def ellipse_configs(experiment: spec_pb2.Experiment) -> list[EllipseConfig]:
    """The rasteriser's settings in the order of the target classes."""
    config = experiment.bbox_rasterizer_config
    result = []
    for name in target_classes(experiment):
        entry = config.target_class_config[name]
        result.append(
            EllipseConfig(
                cov_center_x=entry.cov_center_x,
                cov_center_y=entry.cov_center_y,
                cov_radius_x=entry.cov_radius_x,
                cov_radius_y=entry.cov_radius_y,
                bbox_min_radius=entry.bbox_min_radius,
                deadzone_radius=config.deadzone_radius,
            )
        )
    return result


class BatchMaker:
    """Makes batches of ``samples``, whose pixels are ``images``.

    ``geometry`` is the scale and offset of the box targets, the usual ones where it is not given;
    ``stretched`` says that images have another size than their samples, and labels must follow;
    ``curriculum`` may make training's images smaller in some epochs; ``pin_memory`` makes batches
    that a GPU can fetch while it computes.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        images: Images,
        *,
        augmenter: Augmenter,
        ellipses: Sequence[EllipseConfig],
        seed: int = 0,
        stride: int = objectives.STRIDE,
        geometry: Mapping[str, float] | None = None,
        stretched: bool = False,
        curriculum: Curriculum | None = None,
        pin_memory: bool = False,
    ) -> None:
        self._samples = samples
        self._images = images
        self._augmenter = augmenter
        self._ellipses = ellipses
        self._seed = seed
        self._stretched = stretched
        self._pin_memory = pin_memory
        self._size = augmenter.width, augmenter.height
        self._curriculum = curriculum or Curriculum(self._size)
        self._cells = {"stride": stride} | dict(geometry or {})

    def validation(self, indices: Sequence[int]) -> Batch:
        """The samples at ``indices`` without augmentation."""
        unchanged = self._augmenter.unchanged()
        return self._assemble(indices, self._size, lambda _, i, out: self._place(i, unchanged, out))

    def training(self, epoch: int, first: int, indices: Sequence[int]) -> Batch:
        """The samples at ``indices``, augmented; ``first`` is the place of the batch's first
        image in the epoch's order."""
        size = self._curriculum.input_size(epoch)
        return self._assemble(
            indices, size, lambda slot, i, out: self._augmented(epoch, first + slot, i, out)
        )

    def _assemble(
        self,
        indices: Sequence[int],
        size: tuple[int, int],
        make: Callable[[int, int, np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> Batch:
        count, classes = len(indices), len(self._ellipses)
        width, height = (-(-side // self._cells["stride"]) for side in size)
        grid = {"grid_width": width, "grid_height": height} | self._cells
        images = np.empty((count, size[1], size[0], 3), np.uint8)
        cov = np.empty((count, classes, height, width), np.float32)
        cov_norm = np.empty_like(cov)
        bbox = np.empty((count, 4 * classes, height, width), np.float32)
        for slot, i in enumerate(indices):
            boxes, labels = make(slot, int(i), images[slot])
            cov[slot], cov_norm[slot], bbox[slot] = rasterize(
                boxes, labels, config=self._ellipses, num_classes=classes, **grid
            )
        weight = np.array([self._samples[i].source_weight for i in indices], np.float32)
        tensors = [torch.from_numpy(value) for value in (images, cov, cov_norm, bbox, weight)]
        if self._pin_memory:
            tensors = [tensor.pin_memory() for tensor in tensors]
        return Batch(tensors[0], Targets(*tensors[1:]), tuple(int(i) for i in indices))

    def _boxes(self, i: int, image: np.ndarray) -> np.ndarray:
        """The labels of sample i in pixels of its image as it is stored in ``images``."""
        sample = self._samples[i]
        if not self._stretched:
            return sample.boxes
        ratio = image.shape[1] / sample.width, image.shape[0] / sample.height
        return sample.boxes * np.array(ratio * 2, dtype=np.float32)

    def _place(self, i: int, drawn: Drawn, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image = self._images[i]
        self._augmenter.warp(image, drawn, out)
        return transform_boxes(self._boxes(i, image), drawn.spatial), self._samples[i].classes

    def _augmented(
        self, epoch: int, position: int, i: int, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self._seed, _AUGMENTATION, epoch, position))
        size = out.shape[1], out.shape[0]
        drawn = self._augmenter.draw(rng, size)
        is_mosaic = rng.random() < self._augmenter.mosaic_probability
        if is_mosaic and self._curriculum.has_mosaics(epoch):
            boxes, classes = self._mosaic(i, drawn, rng, out)
        else:
            boxes, classes = self._place(i, drawn, out)
        if size != self._size:
            kept = (boxes[:, 2:] - boxes[:, :2] >= MINIMUM_SIZE).all(axis=1)
            boxes, classes = boxes[kept], classes[kept]
        self._augmenter.recolor(
            out, drawn, np.random.default_rng((self._seed, _COLOR_NOISE, epoch, position))
        )
        return boxes, classes

    def _mosaic(
        self, i: int, drawn: Drawn, rng: np.random.Generator, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Four images around a random point, each augmented, shrunk to cover its quarter.

        Boxes are clipped to their quarter and dropped where little of them is left.
        """
        height, width = out.shape[:2]
        x = round(width * rng.uniform(*_MOSAIC_CENTER))
        y = round(height * rng.uniform(*_MOSAIC_CENTER))
        quarters = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
        others = rng.integers(len(self._samples), size=3)
        all_boxes, all_classes = [], []
        for number, (left, top, right, bottom) in enumerate(quarters):
            j = i if number == 0 else int(others[number - 1])
            part = drawn if number == 0 else self._augmenter.draw(rng, (width, height))
            cover = max((right - left) / width, (bottom - top) / height)
            spatial = scaling(1 / cover, 1 / cover) @ part.spatial
            tile = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
            boxes, classes = self._place(j, Drawn(spatial, part.color), tile)
            out[top:bottom, left:right] = tile
            boxes = transform_boxes(boxes, translation(-left, -top))
            clipped = np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))
            kept = _area(clipped) > _MOSAIC_MIN_VISIBLE * _area(boxes)
            all_boxes.append(clipped[kept])
            all_classes.append(classes[kept])
        return np.concatenate(all_boxes), np.concatenate(all_classes)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


class TrainingOrder:
    """Which samples each step of each epoch takes, on this process of a distributed training.

    ``weights`` (count,), where given, say how often samples are taken relative to one another.
    Raises DetectNetError when a batch is larger than the set.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        weights: np.ndarray | None = None,
    ) -> None:
        if batch_size > count:
            raise DetectNetError(
                f"training_config.batch_size_per_gpu is {batch_size}, but there are only {count} "
                "training images: lower it (in the workflow's config: train.batch_size)"
            )
        self.steps = steps_per_epoch(count, batch_size, processes)
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._processes = processes
        self._weights = weights

    def batches(self, first_step: int, last_step: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """(epoch, first position, samples) of the steps from ``first_step`` up to ``last_step``.

        Steps are counted over all epochs, from 0; positions are places in the epoch's order.
        """
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(first_step, last_step):
            if step // self.steps != epoch:
                epoch = step // self.steps
                order = self._epoch_order(epoch)
            first = self._first(step, self._rank)
            yield epoch, first, order[first : first + self._batch_size]

    def samples(self, step: int, rank: int) -> np.ndarray:
        """What the process of number ``rank`` takes at ``step``."""
        first = self._first(step, rank)
        return self._epoch_order(step // self.steps)[first : first + self._batch_size]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        total = self.steps * self._batch_size * self._processes
        return epoch_order(self._seed, epoch, self._count, total, self._weights)

    def _first(self, step: int, rank: int) -> int:
        return ((step % self.steps) * self._processes + rank) * self._batch_size


class Prefetcher(Iterator[T]):
    """Results of ``make(*arguments)`` in order, made ahead of time by threads.

    Threads do: the heavy parts, warping and colours, run in OpenCV without Python's lock, and
    nothing has to be copied between processes. ``waited`` is the time in seconds that the caller
    has spent waiting for results. Close it to stop the threads.
    """

    def __init__(
        self,
        make: Callable[..., T],
        arguments: Iterable[tuple],
        *,
        workers: int = 1,
        ahead: int = 2,
    ) -> None:
        self.waited = 0.0
        self._make = make
        self._arguments = iter(arguments)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        self._pending: deque[Future[T]] = deque()
        for _ in range(workers + ahead):
            self._submit()

    def __next__(self) -> T:
        if not self._pending:
            raise StopIteration
        started = time.perf_counter()
        result = self._pending.popleft().result()
        self.waited += time.perf_counter() - started
        self._submit()
        return result

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what is not made yet, and wait for what is being made."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def _submit(self) -> None:
        arguments = next(self._arguments, None)
        if arguments is not None:
            self._pending.append(self._pool.submit(self._make, *arguments))
