"""A GPU for tests on a machine without one: PyTorch's device `meta`, whose tensors have no values.

Like a GPU's it refuses to compute with the CPU's tensors, and what passes between the two is seen
and can be counted. What a program fetches is zeros.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
_aten = torch.ops.aten


class PretendedGpu(TorchDispatchMode):
    """Notes in ``waits`` each operation for which a program would wait for a GPU's work to end."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # In inference mode, operations that are made of others come here whole.
        with self:
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        source, target = self._copied(function, args, kwargs)
        if source is None:
            return function(*args, **kwargs)
        if source.is_meta and target.type == "cpu":
            self.waits.append(f"fetches {function} of {tuple(source.shape)}")
            if function is _aten._local_scalar_dense.default:
                return source.dtype is torch.bool or 0.0
            found = torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return found if function is _aten._to_copy.default else args[0].copy_(found)
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        if not source.is_meta and target.type == "meta" and blocking:
            self.waits.append(f"sends {function} of {tuple(source.shape)}")
        return function(*args, **kwargs)

    @staticmethod
    def _copied(function, args, kwargs) -> tuple[torch.Tensor | None, torch.device | None]:
        """What an operation copies and where to; nothing of another operation."""
        if function is _aten._local_scalar_dense.default:
            return args[0], torch.device("cpu")
        if function is _aten._to_copy.default and kwargs.get("device") is not None:
            return args[0], torch.device(kwargs["device"])
        if function is _aten.copy_.default:
            return args[1], args[0].device
        return None, None


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Let models and trainings use ``DEVICE``; autocast is off on it."""
    plain = torch.autocast

    class Autocast(plain):
        def __init__(self, device_type: str, **settings) -> None:
            if device_type == DEVICE.type:
                device_type, settings = "cpu", {"enabled": False}
            super().__init__(device_type, **settings)

    fused = "torch.optim.adam._device_dtype_check_for_fused"
    with mock.patch("torch.autocast", Autocast), mock.patch(fused), PretendedGpu() as gpu:
        yield gpu
