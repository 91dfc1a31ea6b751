"""Learning-rate schedules of the spec's ``training_config.learning_rate``.

NVIDIA's rise and fall evenly in the logarithm of the rate; with ``native.annealing: COSINE`` the
rate itself follows half a wave (SGDR, arXiv:1608.03983), which stays high for longer.
"""

import math
from typing import Protocol

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError

EXPONENTIAL = spec_pb2.NativeConfig.EXPONENTIAL
COSINE = spec_pb2.NativeConfig.COSINE


class Schedule(Protocol):
    """A learning rate for every step, and the epochs at which training may end early."""

    def learning_rate(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""

    def validated(self, step: int, cost: float) -> None:
        """Take note of a validation's cost after ``step`` steps."""

    def finished(self, step: int) -> bool:
        """Whether training ends before its last epoch, asked after ``step`` steps."""

    def state_dict(self) -> dict:
        """What a resumed training needs to know."""

    def load_state_dict(self, state: dict) -> None:
        """Restore ``state_dict``'s result."""


def between(low: float, high: float, height: float, shape: int = EXPONENTIAL) -> float:
    """The rate at ``height``, 0 to 1, of the way from ``low`` to ``high``, for an annealing."""
    if shape == COSINE:
        return low + (high - low) * (1 - math.cos(math.pi * height)) / 2
    return math.exp(math.log(low) + height * (math.log(high) - math.log(low)))


def soft_start_annealing(
    progress: float,
    *,
    min_learning_rate: float,
    max_learning_rate: float,
    soft_start: float,
    annealing: float,
    shape: int = EXPONENTIAL,
) -> float:
    """Rise from the least to the greatest rate, hold it, and fall back.

    ``progress`` runs from 0 to 1 over the whole training; the rise ends at ``soft_start``, the
    fall begins at ``annealing``.
    """
    if progress < soft_start:
        height = progress / soft_start
    elif progress > annealing:
        height = (1 - progress) / (1 - annealing)
    else:
        height = 1.0
    return between(min_learning_rate, max_learning_rate, height, shape)


class SoftStartAnnealing:
    """``soft_start_annealing_schedule``: fixed by the share of the training that is done."""

    def __init__(
        self,
        *,
        total_steps: int,
        min_learning_rate: float,
        max_learning_rate: float,
        soft_start: float,
        annealing: float,
        shape: int = EXPONENTIAL,
    ) -> None:
        self._total_steps = total_steps
        self._settings = {
            "min_learning_rate": min_learning_rate,
            "max_learning_rate": max_learning_rate,
            "soft_start": soft_start,
            "annealing": annealing,
            "shape": shape,
        }

    def learning_rate(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""
        return soft_start_annealing(min(step / self._total_steps, 1.0), **self._settings)

    def validated(self, step: int, cost: float) -> None:
        """Nothing: this schedule does not look at the model."""

    def finished(self, step: int) -> bool:
        """Never before the last epoch."""
        return False

    def state_dict(self) -> dict:
        """Empty: the step says everything."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


class EarlyStoppingAnnealing:
    """``early_stopping_annealing_schedule``: hold the rate while validation improves.

    The rate rises for ``soft_start_epochs``. When the validation cost has not fallen for
    ``patience_steps`` validations, or when only ``annealing_epochs`` are left, it falls for
    ``annealing_epochs`` and training ends.
    """

    def __init__(
        self,
        *,
        steps_per_epoch: int,
        num_epochs: int,
        min_learning_rate: float,
        max_learning_rate: float,
        soft_start_epochs: int,
        annealing_epochs: int,
        patience_steps: int,
        shape: int = EXPONENTIAL,
    ) -> None:
        self._low, self._high, self._shape = min_learning_rate, max_learning_rate, shape
        self._rise = soft_start_epochs * steps_per_epoch
        self._fall = annealing_epochs * steps_per_epoch
        self._fall_start = max(num_epochs * steps_per_epoch - self._fall, 0)
        self._patience = max(patience_steps, 1)
        self._best = math.inf
        self._waited = 0

    def learning_rate(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""
        rising = step / self._rise if step < self._rise else 1.0
        since = step - self._fall_start
        falling = 1 - since / max(self._fall, 1) if since > 0 else 1.0
        height = max(min(rising, falling), 0.0)
        return between(self._low, self._high, height, self._shape)

    def validated(self, step: int, cost: float) -> None:
        """Begin to anneal at ``step`` when the cost has stopped falling."""
        if cost < self._best:
            self._best, self._waited = cost, 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            self._fall_start = min(self._fall_start, step)

    def finished(self, step: int) -> bool:
        """Whether the annealing is over."""
        return step >= self._fall_start + self._fall

    def state_dict(self) -> dict:
        """Where the annealing begins, and what decides it."""
        return {"fall_start": self._fall_start, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict) -> None:
        """Restore ``state_dict``'s result."""
        self._fall_start, self._best = state["fall_start"], state["best"]
        self._waited = state["waited"]


def from_spec(
    training: spec_pb2.TrainingConfig, steps_per_epoch: int, shape: int = EXPONENTIAL
) -> Schedule:
    """The schedule that ``training_config.learning_rate`` names; ``shape`` is native.annealing.

    Raises DetectNetError when its values do not make a schedule.
    """
    kind = training.learning_rate.WhichOneof("schedule")
    config = getattr(training.learning_rate, kind)
    place = f"training_config.learning_rate.{kind}"
    if not 0 < config.min_learning_rate <= config.max_learning_rate:
        raise DetectNetError(
            f"{place}: min_learning_rate {config.min_learning_rate:g} and max_learning_rate "
            f"{config.max_learning_rate:g}: 0 < min <= max is needed"
        )
    rates = {
        "min_learning_rate": config.min_learning_rate,
        "max_learning_rate": config.max_learning_rate,
        "shape": shape,
    }
    if kind == "soft_start_annealing_schedule":
        if not 0 <= config.soft_start <= config.annealing < 1:
            raise DetectNetError(
                f"{place}: soft_start {config.soft_start:g} and annealing {config.annealing:g}: "
                "0 <= soft_start <= annealing < 1 is needed"
            )
        return SoftStartAnnealing(
            total_steps=steps_per_epoch * training.num_epochs,
            soft_start=config.soft_start,
            annealing=config.annealing,
            **rates,
        )
    return EarlyStoppingAnnealing(
        steps_per_epoch=steps_per_epoch,
        num_epochs=training.num_epochs,
        soft_start_epochs=config.soft_start_epochs,
        annealing_epochs=config.annealing_epochs,
        patience_steps=config.patience_steps,
        **rates,
    )
