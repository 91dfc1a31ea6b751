"""Which device computes: a GPU that PyTorch can use, or the CPU, with a word where one is left."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from detectnet_v2.errors import DetectNetError

# What a driver of NVIDIA leaves on Linux, and on Windows's Linux.
_SIGNS = ("dev/nvidia[0-9]*", "usr/lib/wsl/lib/libcuda.so*")
# Values of CUDA_VISIBLE_DEVICES by which a user, or a cluster's scheduler, asks for no GPU.
_NO_GPU = ("", "-1", "NoDevFiles")

_LOG = logging.getLogger(__name__)


def has_usable_gpu(*, tell: bool = True) -> bool:
    """Whether there is a GPU to compute on.

    Where this machine has one that cannot be used, a warning says why, if ``tell``.

    Raises:
        DetectNetError: CUDA_VISIBLE_DEVICES (or --gpu_index) names GPUs, none of which is there.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if available or (visible is not None and visible.strip() in _NO_GPU) or not _has_nvidia_gpu():
        return available
    reason = _why_not([str(warning.message) for warning in caught])
    if not reason and visible:
        raise DetectNetError(
            f"CUDA_VISIBLE_DEVICES={visible}: CUDA finds no such GPU here; nvidia-smi -L lists "
            "those that are there. Leave it empty to compute on the CPU"
        )
    if tell:
        _LOG.warning(
            "the GPU of this machine is not used: %s. Computing on the CPU (docs/gpu.md)",
            reason or "CUDA finds none",
        )
    return False


def _has_nvidia_gpu() -> bool:
    return any(any(Path("/").glob(sign)) for sign in _SIGNS)


def _why_not(messages: Sequence[str]) -> str:
    """Why PyTorch uses no GPU, from what it warned of; nothing when it does not know itself."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    for message in messages:
        if "CUDA" in message:
            return message.removeprefix("CUDA initialization: ").partition(". ")[0]
    return ""
