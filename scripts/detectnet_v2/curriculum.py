"""What of a training changes from epoch to epoch: the size of its images, and its mosaics.

The network is fully convolutional and boxes are regressed in pixels of its input, so it can learn
on small images first, several of which cost as much as one of full size, and go on with larger
ones. Everything follows from the number of the epoch, so a resumed training goes on where it was.
"""

from dataclasses import dataclass
from itertools import pairwise

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import SIZE_MULTIPLE


@dataclass(frozen=True)
class Curriculum:
    """The course of a training of ``epochs`` epochs towards images of ``size`` (width, height).

    ``scales`` are pairs (until, scale): up to the share ``until`` of the epochs, images have
    ``scale`` times the full width and height. ``mosaic_until`` is the share of the epochs after
    which no more mosaics are made.
    """

    size: tuple[int, int]
    epochs: int = 1
    scales: tuple[tuple[float, float], ...] = ()
    mosaic_until: float = 1.0

    def input_size(self, epoch: int) -> tuple[int, int]:
        """Width and height of the images of an epoch, counted from 0: multiples of the stride."""
        for until, scale in self.scales:
            if epoch < round(until * self.epochs):
                width, height = (_multiple(side * scale) for side in self.size)
                return width, height
        return self.size

    def has_mosaics(self, epoch: int) -> bool:
        """Whether images may be put together in the epoch, counted from 0."""
        return epoch < round(self.mosaic_until * self.epochs)

    def work(self) -> list[float]:
        """Pixels of an image of each epoch, as a share of the full size: about what it costs."""
        full = self.size[0] * self.size[1]
        sizes = [self.input_size(epoch) for epoch in range(self.epochs)]
        return [width * height / full for width, height in sizes]

    def describe(self) -> str:
        """The sizes in words: ``240 x 144 in epochs 1 to 5, 480 x 272 in epochs 6 to 10``."""
        first = {}
        for epoch in range(self.epochs):
            first.setdefault(self.input_size(epoch), epoch)
        ends = [*list(first.values())[1:], self.epochs]
        return ", ".join(
            f"{size[0]} x {size[1]} in epochs {begin + 1} to {end}"
            for (size, begin), end in zip(first.items(), ends, strict=True)
        )


def from_spec(experiment: spec_pb2.Experiment) -> Curriculum:
    """The curriculum of ``native.input_scales`` and ``native.augmentation.mosaic_until``.

    Raises DetectNetError for shares that do not rise, that leave no epoch of full size, or that go
    with a schedule which may end the training before it.
    """
    native, training = experiment.native, experiment.training_config
    size = experiment.augmentation_config.preprocessing
    result = Curriculum(
        (size.output_image_width, size.output_image_height),
        epochs=training.num_epochs,
        scales=tuple((entry.until, entry.scale) for entry in native.input_scales),
        mosaic_until=native.augmentation.mosaic_until or 1.0,
    )
    if not result.scales:
        return result
    shares = [until for until, _ in result.scales]
    if any(second <= first for first, second in pairwise(shares)):
        raise DetectNetError(
            f"native.input_scales: until {', '.join(f'{share:g}' for share in shares)}: "
            "each must be above the one before"
        )
    if result.epochs and result.input_size(result.epochs - 1) != result.size:
        raise DetectNetError(
            f"native.input_scales: until {shares[-1]:g} of {result.epochs} epochs leaves none of "
            "full size: lower it or train longer"
        )
    if training.learning_rate.WhichOneof("schedule") == "early_stopping_annealing_schedule":
        raise DetectNetError(
            "native.input_scales: an early_stopping_annealing_schedule may end before the images "
            "have full size: use a soft_start_annealing_schedule"
        )
    return result


def _multiple(side: float) -> int:
    """The nearest multiple of the stride, one at least."""
    return max(int(side / SIZE_MULTIPLE + 0.5), 1) * SIZE_MULTIPLE
