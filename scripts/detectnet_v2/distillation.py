"""Knowledge distillation: a network learns from another one's answers beside the labels."""

from pathlib import Path

import torch
from torch import Tensor

from detectnet_v2 import spec_pb2
from detectnet_v2.cost import cross_entropy
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_detector
from detectnet_v2.precision import Precision

# Keeps the logit of a certain answer finite.
_EPSILON = 1e-5


class Teacher:
    """A trained network whose answers for the augmented images are further targets.

    The student's coverage is drawn to the teacher's by cross-entropy, its boxes by an L1 cost
    weighted by the teacher's coverage, so that boxes count where the teacher sees an object.
    """

    def __init__(
        self, model: DetectNetV2, *, weight: float, temperature: float, precision: Precision
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self._weight = weight
        self._temperature = temperature
        self._precision = precision

    def cost(self, images: Tensor, bbox: Tensor, cov: Tensor) -> Tensor:
        """Weighted cost, a scalar, of the student's ``bbox`` and ``cov`` for ``images``."""
        with torch.no_grad(), self._precision.autocast():
            teacher_bbox, teacher_cov = self._model(images)
        if self._temperature != 1:
            teacher_cov, cov = self._soften(teacher_cov), self._soften(cov)
        # The teacher's own entropy is subtracted, so that the cost of a perfect student is zero.
        coverage = cross_entropy(cov, teacher_cov) - cross_entropy(teacher_cov, teacher_cov)
        coverage = coverage.mean((0, 2, 3)).sum() * self._temperature**2
        shape = (len(cov), cov.shape[1], 4, *cov.shape[2:])
        boxes = (bbox - teacher_bbox).abs().view(shape).mean(2) * teacher_cov
        boxes = boxes.sum() / teacher_cov.sum().clamp(min=1.0)
        return self._weight * (coverage + boxes)

    def _soften(self, probability: Tensor) -> Tensor:
        return torch.sigmoid(torch.logit(probability, eps=_EPSILON) / self._temperature)


def teacher_from_spec(
    experiment: spec_pb2.Experiment, student: DetectNetV2, precision: Precision
) -> Teacher | None:
    """The teacher of ``native.distillation``, None when there is none.

    Raises DetectNetError for a teacher that cannot be loaded or does not fit the student.
    """
    config = experiment.native.distillation
    if not config.teacher_model_file:
        return None
    names = [target.name for target in experiment.cost_function_config.target_classes]
    model = load_detector(Path(config.teacher_model_file), classes=names)
    sizes = (model.input_width, model.input_height), (student.input_width, student.input_height)
    if sizes[0] != sizes[1]:
        raise DetectNetError(
            f"native.distillation.teacher_model_file: {config.teacher_model_file} was trained on "
            f"{sizes[0][0]} x {sizes[0][1]} images, this network on {sizes[1][0]} x "
            f"{sizes[1][1]}: train a teacher of the same size"
        )
    model = model.to(precision.device, memory_format=torch.channels_last)
    return Teacher(
        model,
        weight=config.weight,
        temperature=config.temperature or 1.0,
        precision=precision,
    )
