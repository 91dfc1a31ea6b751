"""Task `calibration_tensorfile`: batches of images for INT8 calibration, in NVIDIA's TensorFile.

A TensorFile is HDF5: the attributes `count` (batches) and `shape` (of each batch), and for batch i
the group `_tensorfile_array_key__{i}` with one dataset, `_tensorfile_array_key_`.
"""

import argparse
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from detectnet_v2 import spec_pb2
from detectnet_v2.augmentation import Augmenter
from detectnet_v2.dataset import training_samples, validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.images import read_image, stretch
from detectnet_v2.loader import epoch_order, steps_per_epoch
from detectnet_v2.progress import progress
from detectnet_v2.spec import load_experiment
from detectnet_v2.whole_file import refuse_existing, whole_file

_KEY = "_tensorfile_array_key_"

logger = logging.getLogger(__name__)


def write_tensorfile(path: Path, batches: Iterable[np.ndarray]) -> int:
    """Write batches of equal shape; the file appears when all of them are in it.

    Args:
        path: a file that does not exist yet.
        batches: float32 (N, 3, H, W) in 0..1.

    Returns:
        The number of batches.

    Raises:
        DetectNetError: when the file exists, cannot be written, or the shapes differ.
    """
    refuse_existing(path)
    count = 0
    with whole_file(path) as part, h5py.File(part, "w") as file:
        for batch in batches:
            if count == 0:
                file.attrs["shape"] = batch.shape
            elif tuple(file.attrs["shape"]) != batch.shape:
                raise DetectNetError(
                    f"batch {count} of {path} has the shape {batch.shape}, those before "
                    f"{tuple(file.attrs['shape'])}"
                )
            file.create_group(f"{_KEY}_{count}").create_dataset(
                _KEY,
                data=batch,
                chunks=(1, *batch.shape[1:]),
                # The 256 values of a pixel squeeze well once equal bytes lie together; higher
                # levels gain little and take several times as long.
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                track_times=False,
            )
            count += 1
        file.attrs["count"] = count
    return count


def read_tensorfile(path: Path) -> Iterator[np.ndarray]:
    """Yield the batches of a TensorFile, float32 (N, 3, H, W), in the order they were written.

    Raises:
        DetectNetError: when the file is missing, damaged or no TensorFile.
    """
    with _reading(path) as file:
        for number in range(int(file.attrs["count"])):
            yield np.asarray(file[f"{_KEY}_{number}"][_KEY], dtype=np.float32)


def count_batches(path: Path) -> tuple[int, int]:
    """Number of batches of a TensorFile, and of images in each; raises as read_tensorfile does."""
    with _reading(path) as file:
        count = int(file.attrs["count"])
        return count, int(file[f"{_KEY}_0"][_KEY].shape[0]) if count else 0


class CalibrationBatches:
    """Batches as training reads them, without augmentation: float32 (N, 3, H, W) in 0..1.

    Training images come in the order of the first epoch for the spec's random_seed, validation
    images in the order of their files; both start again at the end to fill the last batch.

    Args:
        experiment: the spec; its batch_size_per_gpu is the size of a batch.
        batches: how many; -1 for as many as an epoch has.
        validation: take the validation set.

    Raises:
        DetectNetError: for more batches than an epoch has, or no images; while iterating, for an
            image that cannot be read.
    """

    def __init__(
        self, experiment: spec_pb2.Experiment, *, batches: int = -1, validation: bool = False
    ) -> None:
        samples = validation_samples(experiment) if validation else training_samples(experiment)
        if not samples:
            raise DetectNetError(
                "the spec has no validation set (dataset_config.validation_fold or "
                "validation_data_source): leave --use_validation_set away"
                if validation
                else "the spec's tfrecords hold no images (dataset_config.data_sources)"
            )
        self.batch_size = experiment.training_config.batch_size_per_gpu
        available = steps_per_epoch(len(samples), self.batch_size)
        self._count = available if batches == -1 else batches
        if not 1 <= self._count <= available:
            raise DetectNetError(
                f"{batches} batches asked for: the {'validation' if validation else 'training'} "
                f"set has {available} batches of {self.batch_size}; ask for 1 to {available}, or "
                "-1 for all"
            )
        total = self._count * self.batch_size
        self._order = (
            np.arange(total) % len(samples)
            if validation
            else epoch_order(experiment.random_seed, 0, len(samples), total)
        )
        self._samples = samples
        self._resize = experiment.augmentation_config.preprocessing.enable_auto_resize
        self._augmenter = Augmenter(
            experiment.augmentation_config,
            canvas=(max(s.width for s in samples), max(s.height for s in samples)),
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(2) as pool:
            for first in range(0, len(self._order), self.batch_size):
                images = pool.map(self._image, self._order[first : first + self.batch_size])
                yield np.stack(list(images)).transpose(0, 3, 1, 2).astype(np.float32) / 255

    def _image(self, position: int) -> np.ndarray:
        """One image at the network's size, (H, W, 3) uint8."""
        image = read_image(self._samples[position].image)
        if self._resize:
            image = stretch(image, self._augmenter.width, self._augmenter.height)
        return self._augmenter.warp(image, self._augmenter.unchanged())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NVIDIA's flags of `calibration_tensorfile`."""
    parser.add_argument("-e", "--experiment_spec_file", type=Path, required=True, help="spec")
    parser.add_argument("-o", "--output_path", type=Path, required=True, help="tensorfile to write")
    parser.add_argument(
        "-m", "--max_batches", type=int, default=-1, help="number of batches; -1 for all (-1)"
    )
    parser.add_argument(
        "--use_validation_set", action="store_true", help="take the validation set instead"
    )
    parser.add_argument("-k", "--key", help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def run(args: argparse.Namespace) -> int:
    """Write `args.output_path`."""
    refuse_existing(args.output_path)
    batches = CalibrationBatches(
        load_experiment(args.experiment_spec_file),
        batches=args.max_batches,
        validation=args.use_validation_set,
    )
    count = write_tensorfile(args.output_path, progress(batches, len(batches), "batches", logger))
    logger.info("%s: %d batches of %d images", args.output_path, count, batches.batch_size)
    return 0


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise DetectNetError(f"no tensorfile at {path}: make it with calibration_tensorfile")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError) as error:
        raise DetectNetError(
            f"{path} is damaged or no tensorfile ({str(error).splitlines()[0]}): make it again "
            "with calibration_tensorfile"
        ) from error
