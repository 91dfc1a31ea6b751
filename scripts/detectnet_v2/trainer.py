"""One training step after another: forward, cost, backward, optimiser, and all of their state."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detectnet_v2 import cost, optimizer, schedule, spec_pb2
from detectnet_v2.convolution import choose_gradients
from detectnet_v2.distillation import Teacher
from detectnet_v2.errors import DetectNetError
from detectnet_v2.loader import Batch
from detectnet_v2.model import DetectNetV2, regularized_parameters
from detectnet_v2.optimizer import MovingAverage
from detectnet_v2.precision import Precision

# Gradients vanish in float16 unless the loss is scaled: TensorFlow's automatic mixed precision
# begins at 2^15 and doubles after 2000 steps without overflow.
_FLOAT16_SCALING = spec_pb2.CostScalingConfig(
    enabled=True, initial_exponent=15, increment=1 / 2000, decrement=1
)


@dataclass(frozen=True)
class Wishes:
    """What this process would like to happen after a step; what one wants, all do together."""

    stop: bool = False
    save: bool = False


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Reading:
    """What a step found, the same in every process.

    ``loss`` is averaged over the processes and ``gradient_norm`` is not finite when a gradient is
    not; ``broken`` holds the numbers of the processes whose own loss is not finite.
    """

    loss: float
    gradient_norm: float
    stop: bool
    save: bool
    broken: tuple[int, ...]


@dataclass(frozen=True)
class StepResult:
    """A finished step and its ``values``, which are still on the device.

    They are the costs (C, 2) flattened, the total loss, the gradients' norm, how many processes
    want to stop and to save, and for each process whether its own loss is not finite.
    """

    step: int
    values: torch.Tensor
    processes: int

    def read(self) -> Reading:
        """Fetch the values; waits for a GPU."""
        loss, norm, stop, save, *broken = self.values[-4 - self.processes :].tolist()
        numbers = tuple(rank for rank, flag in enumerate(broken) if flag)
        return Reading(loss, norm, stop > 0, save > 0, numbers)


class Trainer:
    """Trains ``model`` by the settings of ``experiment``; ``step`` counts from 0 over all epochs.

    The model must be on the precision's device. Each process of a distributed training has one.
    """

    def __init__(
        self,
        experiment: spec_pb2.Experiment,
        model: DetectNetV2,
        *,
        precision: Precision,
        steps_per_epoch: int,
        teacher: Teacher | None = None,
    ) -> None:
        training, native = experiment.training_config, experiment.native
        self.model = model
        self.step = 0
        self.cost = cost.from_spec(experiment, device=precision.device)
        self.schedule = schedule.from_spec(training, steps_per_epoch, native.annealing)
        self._precision = precision
        self._teacher = teacher
        self._distributed = torch.distributed.is_initialized()
        self._rank = torch.distributed.get_rank() if self._distributed else 0
        self._processes = torch.distributed.get_world_size() if self._distributed else 1
        self._clip_norm = native.gradient_clip_norm
        idle = skip_idle_biases(model)
        choose_gradients(model, precision.device)
        self._regularizer = cost.Regularizer(training.regularizer, regularized_parameters(model))
        # The regulariser's is the only gradient that they have.
        self._idle = idle if self._regularizer.active else []
        self._parameters = [p for p in model.parameters() if p.requires_grad] + self._idle
        kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
        self._optimizer = optimizer.from_spec(
            training.optimizer, self._parameters, decayed=kernels, decay=native.weight_decay
        )
        self.average = MovingAverage(model, native.ema_decay) if native.ema_decay else None
        self._scaling = training.cost_scaling
        if precision.name == "float16" and not self._scaling.enabled:
            self._scaling = _FLOAT16_SCALING
        self._exponent = self._scaling.initial_exponent if self._scaling.enabled else 0.0
        self._forward = self._wrapped(native.compile)

    def run_step(self, batch: Batch, wishes: Wishes = NO_WISHES) -> StepResult:
        """Train on one batch."""
        device = self._precision.device
        images = batch.images.to(device, non_blocking=True)
        # The array is (N, H, W, 3), so this view is in channels_last memory, and stays in it.
        images = images.permute(0, 3, 1, 2).float().div_(255)
        targets = batch.targets.to(device)
        with self._precision.autocast():
            bbox, cov = self._forward(images)
        costs = self.cost.costs(bbox.float(), cov.float(), targets)
        loss = self.cost.total(costs)
        if self._teacher is not None:
            loss = loss + self._teacher.cost(images, bbox.float(), cov.float())
        (loss * 2.0**self._exponent).backward()
        # Before the update, like the costs.
        loss = loss.detach() + self._regularizer.cost()
        values = self._together(costs.detach(), loss, self._update(), wishes)
        self.cost.accumulate(values[: costs.numel()].view_as(costs))
        result = StepResult(self.step, values, self._processes)
        self.step += 1
        return result

    @contextlib.contextmanager
    def evaluated_model(self):
        """The model to validate or save, in evaluation mode: with averaged weights if kept."""
        own = None
        if self.average is not None:
            own = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.average.copy_to(self.model)
        self.model.eval()
        try:
            yield self.model
        finally:
            if own is not None:
                self.model.load_state_dict(own)
            self.model.train()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            # A resumed training may have another number type, which is scaled or is not.
            "exponent": self._exponent if self._scaling.enabled else None,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "cost": self.cost.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``'s result."""
        self.step = state["step"]
        if self._scaling.enabled and state["exponent"] is not None:
            self._exponent = state["exponent"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.cost.load_state_dict(state["cost"])
        self.schedule.load_state_dict(state["schedule"])

    def _together(
        self, costs: torch.Tensor, loss: torch.Tensor, norm: torch.Tensor, wishes: Wishes
    ) -> torch.Tensor:
        """The values of a ``StepResult``: averages over the processes, and sums of flags."""
        flags = torch.zeros(2 + self._processes, device=loss.device)
        # Filled where they are: a copy of numbers from here would wait for all of a GPU's work.
        flags[0].fill_(wishes.stop)
        flags[1].fill_(wishes.save)
        flags[2 + self._rank] = ~torch.isfinite(loss)
        values = torch.cat([costs.flatten(), torch.stack([loss, norm]), flags])
        if self._distributed:
            torch.distributed.all_reduce(values)
            values[: -len(flags)] /= self._processes
        return values

    def _update(self) -> torch.Tensor:
        """Apply the gradients; returns a number that is not finite when they are not."""
        for bias in self._idle:
            bias.grad = torch.zeros_like(bias)
        gradients = [p.grad for p in self._parameters]
        if self._scaling.enabled:
            torch._foreach_mul_(gradients, 2.0**-self._exponent)
        self._regularizer.add_gradients()
        norm = nn.utils.get_total_norm(gradients)
        if self._scaling.enabled:
            if math.isfinite(norm):
                self._exponent += self._scaling.increment
            else:
                # Adam still takes a step, with its momentum alone.
                self._exponent -= self._scaling.decrement
                torch._foreach_zero_(gradients)
                norm = torch.zeros_like(norm)
        if self._clip_norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        self._optimizer.update(self.schedule.learning_rate(self.step))
        self._optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return norm

    def _wrapped(self, compiled: bool) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        forward: Callable = self.model
        if self._distributed:
            forward = nn.parallel.DistributedDataParallel(
                self.model, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        return _compiled(forward) if compiled else forward


def _compiled(forward: Callable) -> Callable:
    """``forward`` by torch.compile; the result raises DetectNetError where that does not work."""
    optimized = torch.compile(forward)

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        try:
            return optimized(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).partition("\n")[0]
            raise DetectNetError(
                f"native.compile: PyTorch cannot compile the network here ({reason}): set it to "
                "false"
            ) from error

    return run


def skip_idle_biases(model: DetectNetV2) -> list[nn.Parameter]:
    """Keep the biases of convolutions before a batch norm out of the backward pass; returns them.

    In training the batch norm removes every constant, so the true gradient of such a bias is
    zero, and computing its rounding noise costs a pass over the activations. A batch norm that
    uses moving averages removes nothing; before it the bias learns.
    """
    idle = []
    for layer in model.layers:
        if layer.kind != "batch_norm" or not model.get_submodule(layer.name).training:
            continue
        source = model.get_submodule(layer.inputs[0])
        if isinstance(source, nn.Conv2d) and source.bias.requires_grad:
            source.bias.requires_grad_(False)
            idle.append(source.bias)
    return idle
