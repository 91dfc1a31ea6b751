"""Adam with the arithmetic of TensorFlow 1, and a moving average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from detectnet_v2 import spec_pb2


class TensorFlowAdam(torch.optim.Adam):
    """Adam whose epsilon is added to the uncorrected second moment, as TensorFlow 1 does.

    TensorFlow: ``lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)``. PyTorch corrects ``v``
    before it adds epsilon, so its epsilon is TensorFlow's divided by ``sqrt(1 - b2^t)``: setting
    that at every step makes both equal and keeps PyTorch's fused kernel.

    ``decayed`` parameters shrink by the learning rate times ``decay`` at every step, apart from the
    gradient and its moments (AdamW, arXiv:1711.05101).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        epsilon: float,
        betas: tuple[float, float],
        decayed: Iterable[nn.Parameter] = (),
        decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=0.0, betas=betas, eps=epsilon, fused=True)
        self._epsilon = epsilon
        self._decay = decay
        self._decayed = [p for p in decayed if p.requires_grad] if decay else []
        self._steps = 0

    def update(self, learning_rate: float) -> None:
        """Take one step with the parameters' gradients."""
        self._steps += 1
        for group in self.param_groups:
            group["lr"] = learning_rate
            group["eps"] = self._epsilon / math.sqrt(1 - group["betas"][1] ** self._steps)
        if self._decayed:
            with torch.no_grad():
                torch._foreach_mul_(self._decayed, 1 - learning_rate * self._decay)
        self.step()

    def load_state_dict(self, state: dict) -> None:
        """Restore the moments and the number of steps taken."""
        super().load_state_dict(state)
        steps = [int(entry["step"]) for entry in self.state.values()]
        self._steps = max(steps, default=0)


def from_spec(
    config: spec_pb2.OptimizerConfig,
    parameters: Iterable[nn.Parameter],
    *,
    decayed: Iterable[nn.Parameter] = (),
    decay: float = 0.0,
) -> TensorFlowAdam:
    """The optimiser of ``training_config.optimizer``.

    ``decayed`` and ``decay`` are as for TensorFlowAdam. A parameter without a gradient stays as it
    is.
    """
    adam = config.adam
    return TensorFlowAdam(
        parameters,
        epsilon=adam.epsilon,
        betas=(adam.beta1, adam.beta2),
        decayed=decayed,
        decay=decay,
    )


class MovingAverage:
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises with the steps taken, (1 + t) / (10 + t) up to ``decay``, so that the random
    start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._sources = _float_tensors(model)
        self._averages = [tensor.detach().clone() for tensor in self._sources]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model's present values."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averages into ``model``, which has the same layers."""
        torch._foreach_copy_(_float_tensors(model), self._averages)

    def state_dict(self) -> dict:
        """Averages and the number of updates, for a checkpoint."""
        return {"steps": self._steps, "averages": self._averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Restore ``state_dict``'s result."""
        self._steps = state["steps"]
        torch._foreach_copy_(self._averages, state["averages"])


def _float_tensors(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach() for t in model.state_dict().values() if t.is_floating_point()]
