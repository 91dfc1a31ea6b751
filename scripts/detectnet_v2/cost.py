"""Training cost of DetectNet_v2: coverage and box costs, their weights, regularisation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError

OBJECTIVES = ("cov", "bbox")
_EPSILON = 1e-5


@dataclass(frozen=True)
class Targets:
    """What a batch of N images should produce; all float32.

    ``cov`` and ``cov_norm`` are (N, C, h, w), ``bbox`` is (N, 4C, h, w), ``weight`` (N,) is the
    weight of each image's data source.
    """

    cov: Tensor
    cov_norm: Tensor
    bbox: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> "Targets":
        """The same targets on another device."""
        return Targets(
            *(
                value.to(device, non_blocking=True)
                for value in (self.cov, self.cov_norm, self.bbox, self.weight)
            )
        )


def cross_entropy(predicted: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of each value, kept finite as NVIDIA does it; all in 0..1."""
    return -(
        target * torch.log(predicted + _EPSILON)
        + (1 - target) * torch.log(1 - predicted + _EPSILON)
    )


def coverage_cost(
    predicted: Tensor,
    target: Tensor,
    *,
    foreground_weight: Tensor,
    weight: Tensor | None = None,
    focal_gamma: float = 0.0,
    positive_weight: float = 1.0,
) -> Tensor:
    """Weighted binary cross-entropy of the coverage, a mean over all cells: (C,).

    ``predicted`` and ``target`` are (N, C, h, w) in 0..1; targets may be fractions. Cells count
    with ``foreground_weight`` (C,) where the target is over a half and with one minus it
    elsewhere; ``weight`` (N,) multiplies images. Not NVIDIA's, and neutral by default:
    ``focal_gamma`` multiplies a cell by \\|target - predicted\\|^gamma, so that the many easy cells
    fade (quality focal loss, arXiv:2006.04388); ``positive_weight`` multiplies cells that an
    object covers even partly.
    """
    loss = cross_entropy(predicted, target)
    foreground = foreground_weight.view(1, -1, 1, 1)
    loss = loss * torch.where(target > 0.5, foreground, 1 - foreground)
    if focal_gamma:
        # A root has no slope at zero, where a sigmoid that rounds to its target gets.
        loss = loss * (target - predicted).abs().clamp(min=_EPSILON).pow(focal_gamma)
    if positive_weight != 1:
        loss = loss * torch.where(target > 0, positive_weight, 1.0)
    if weight is not None:
        loss = loss * weight.view(-1, 1, 1, 1)
    return loss.mean((0, 2, 3))


def bbox_cost(
    predicted: Tensor, target: Tensor, cov_norm: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """L1 cost of the boxes, weighted by normalised coverage, a mean over the whole grid: (C,).

    ``predicted`` and ``target`` are (N, 4C, h, w), ``cov_norm`` is (N, C, h, w). The mean divides
    by all cells, covered or not.
    """
    count, classes, height, width = cov_norm.shape
    difference = (predicted - target).abs().view(count, classes, 4, height, width)
    loss = difference * cov_norm[:, :, None]
    if weight is not None:
        loss = loss * weight.view(-1, 1, 1, 1, 1)
    return loss.mean((0, 2, 3, 4))


def giou_cost(
    predicted: Tensor, target: Tensor, cov_norm: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """1 - GIoU of the boxes (arXiv:1902.09630), weighted and averaged as ``bbox_cost`` does: (C,).

    Shapes are those of ``bbox_cost``. Both boxes of a cell lie about its reference point, so
    their overlap and their hull follow from the distances to the sides. A box without area has an
    IoU of 0.
    """
    count, classes, height, width = cov_norm.shape
    shape = count, classes, 4, height, width
    left, top, right, bottom = predicted.view(shape).unbind(2)
    left_, top_, right_, bottom_ = target.view(shape).unbind(2)

    def area(across: Tensor, down: Tensor) -> Tensor:
        return across.clamp(min=0) * down.clamp(min=0)

    overlap = area(
        torch.minimum(left, left_) + torch.minimum(right, right_),
        torch.minimum(top, top_) + torch.minimum(bottom, bottom_),
    )
    union = area(left + right, top + bottom) + area(left_ + right_, top_ + bottom_) - overlap
    hull = area(
        torch.maximum(left, left_) + torch.maximum(right, right_),
        torch.maximum(top, top_) + torch.maximum(bottom, bottom_),
    )
    giou = overlap / (union + _EPSILON) - (hull - union) / (hull + _EPSILON)
    loss = (1 - giou) * cov_norm
    if weight is not None:
        loss = loss * weight.view(-1, 1, 1, 1)
    return loss.mean((0, 2, 3))


@dataclass(frozen=True)
class ClassCost:
    """Weights of one class: its own, of foreground cells, and of objectives (cov, bbox)."""

    name: str
    class_weight: float
    foreground_weight: float
    initial_weights: tuple[float, float]
    weight_targets: tuple[float, float]


class CostFunction:
    """Costs of a batch, their weighted sum, and the weights' adjustment after every epoch.

    ``class_weights`` (C,) add up to one; ``weights`` (C, 2) are those of the objectives in the
    order ``OBJECTIVES``.
    """

    def __init__(
        self,
        classes: Sequence[ClassCost],
        *,
        autoweighting: bool = False,
        min_weight: float = 0.0,
        max_weight: float = 1.0,
        focal_gamma: float = 0.0,
        positive_weight: float = 1.0,
        giou: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.names = [c.name for c in classes]
        class_weights = torch.tensor([c.class_weight for c in classes], dtype=torch.float64)
        initial = torch.tensor([c.initial_weights for c in classes], dtype=torch.float64)
        self.class_weights = (class_weights / class_weights.sum()).float().to(device)
        self.weights = (initial / initial.sum(1, keepdim=True)).float().to(device)
        self._targets = torch.tensor([c.weight_targets for c in classes]).to(device)
        self._foreground = torch.tensor([c.foreground_weight for c in classes]).to(device)
        self._autoweighting = autoweighting
        self._limits = min_weight, max_weight
        self._focal_gamma = focal_gamma
        self._positive_weight = positive_weight
        self._giou = giou
        self._sums = torch.zeros_like(self.weights)

    def costs(self, bbox: Tensor, cov: Tensor, targets: Targets) -> Tensor:
        """Costs (C, 2) of a batch's predictions ``bbox`` (N, 4C, h, w) and ``cov`` (N, C, h, w)."""
        boxes = bbox_cost(bbox, targets.bbox, targets.cov_norm, weight=targets.weight)
        if self._giou:
            boxes = boxes + giou_cost(bbox, targets.bbox, targets.cov_norm, weight=targets.weight)
        return torch.stack(
            [
                coverage_cost(
                    cov,
                    targets.cov,
                    foreground_weight=self._foreground,
                    weight=targets.weight,
                    focal_gamma=self._focal_gamma,
                    positive_weight=self._positive_weight,
                ),
                boxes,
            ],
            dim=1,
        )

    def total(self, costs: Tensor) -> Tensor:
        """Weighted sum of ``costs`` (C, 2): a scalar."""
        return (costs * self.weights * self.class_weights[:, None]).sum()

    def accumulate(self, costs: Tensor) -> None:
        """Add a training batch's ``costs`` (C, 2), those of all processes together, to the sums
        that decide the next weights."""
        self._sums += costs

    def end_epoch(self) -> None:
        """Set the weights from the epoch's sums, when autoweighting is on, and start new sums.

        An objective's weight becomes its weight target over its cost's sum, as a share of the
        class's total and clipped to the limits; a class without any cost keeps its weights.
        """
        if not self._autoweighting:
            self._sums.zero_()
            return
        sums = self._sums.double()
        shares = torch.where(sums > 0, self._targets / sums, 0.0)
        totals = shares.sum(1, keepdim=True)
        weights = (shares / totals).clamp(*self._limits).float()
        self.weights = torch.where(totals > 0, weights, self.weights)
        self._sums.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and sums, for a checkpoint."""
        return {"weights": self.weights, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore ``state_dict``'s result."""
        self.weights = state["weights"].clone().to(self.weights.device)
        self._sums = state["sums"].clone().to(self.weights.device)


def from_spec(
    experiment: spec_pb2.Experiment, *, device: torch.device | None = None
) -> CostFunction:
    """The cost function that ``cost_function_config`` and ``native`` describe.

    Raises DetectNetError for weights that cannot be used and for what is not implemented here.
    """
    config = experiment.cost_function_config
    if experiment.HasField("loss_mask_label_filter"):
        raise DetectNetError(
            "loss_mask_label_filter: not supported by this toolkit; remove it from the spec"
        )
    if not config.target_classes:
        raise DetectNetError("cost_function_config: no target_classes; give at least one")
    if not any(target.class_weight for target in config.target_classes):
        raise DetectNetError("cost_function_config: every class_weight is 0; one must be positive")
    native = experiment.native
    return CostFunction(
        [_class_cost(target) for target in config.target_classes],
        autoweighting=config.enable_autoweighting,
        min_weight=config.min_objective_weight,
        max_weight=config.max_objective_weight,
        focal_gamma=native.coverage_focal_gamma,
        positive_weight=native.coverage_positive_weight or 1.0,
        giou=native.bbox_loss == spec_pb2.NativeConfig.L1_GIOU,
        device=device,
    )


def _class_cost(target: spec_pb2.CostFunctionConfig.TargetClass) -> ClassCost:
    place = f"cost_function_config: class {target.name!r}"
    objectives = {objective.name: objective for objective in target.objectives}
    unknown = sorted(set(objectives) - set(OBJECTIVES))
    if unknown:
        raise DetectNetError(f"{place}: objective {unknown[0]!r} is neither 'cov' nor 'bbox'")
    missing = [name for name in OBJECTIVES if name not in objectives]
    if missing:
        raise DetectNetError(f"{place}: objective {missing[0]!r} is missing")
    cov, bbox = (objectives[name] for name in OBJECTIVES)
    if not cov.initial_weight + bbox.initial_weight > 0:
        raise DetectNetError(f"{place}: initial_weight of the objectives must be positive")
    return ClassCost(
        name=target.name,
        class_weight=target.class_weight,
        foreground_weight=target.coverage_foreground_weight,
        initial_weights=(cov.initial_weight, bbox.initial_weight),
        weight_targets=(cov.weight_target, bbox.weight_target),
    )


class Regularizer:
    """Sum (not mean) of absolute or squared values over parameters, times a weight.

    All parameters count, frozen ones too; those with a gradient get the term's own added to it,
    which is far cheaper than a graph over all weights of the network.
    """

    def __init__(
        self, config: spec_pb2.RegularizerConfig, parameters: Sequence[torch.nn.Parameter]
    ) -> None:
        kinds = spec_pb2.RegularizerConfig
        self.active = config.type != kinds.NO_REG and config.weight != 0
        self._squared = config.type == kinds.L2
        self._weight = config.weight
        self._parameters = list(parameters) if self.active else []

    @torch.no_grad()
    def cost(self) -> Tensor | float:
        """The term's value at the present parameters."""
        if not self._parameters:
            return 0.0
        norms = torch.stack(torch._foreach_norm(self._parameters, 2 if self._squared else 1))
        return self._weight * (norms.square() if self._squared else norms).sum()

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the term's gradient to the ``grad`` of every parameter that has one."""
        learning = [p for p in self._parameters if p.grad is not None]
        if not learning:
            return
        gradients = [p.grad for p in learning]
        if self._squared:
            torch._foreach_add_(gradients, learning, alpha=2 * self._weight)
        else:
            torch._foreach_add_(gradients, torch._foreach_sign(learning), alpha=self._weight)
