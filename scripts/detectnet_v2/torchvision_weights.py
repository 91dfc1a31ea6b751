"""ImageNet ResNets in torchvision's layout, brought to the layer names of this network.

torchvision feeds its networks images that are normalised with ImageNet's mean and deviation, has
no bias in its convolutions, another epsilon in its batch norms, and no projection where the
shortcut keeps its shape. The conversion makes up for each of these, so that a converted layer
computes what the original computes on images in 0..1.
"""

import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detectnet_v2.architecture import BATCH_NORM_EPSILON, Architecture
from detectnet_v2.errors import DetectNetError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
TORCHVISION_EPSILON = 1e-5

# First bytes of torch.save's zip format, and of the pickles it wrote before.
_TORCH_FILES = (b"PK\x03\x04", b"\x80")
_UNIT = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.weight")

Moments = tuple[Tensor, Tensor]


def is_torch_file(path: Path) -> bool:
    """Whether a file is one that `torch.save` writes."""
    with path.open("rb") as file:
        return file.read(4).startswith(_TORCH_FILES)


def read_torchvision(path: Path, architecture: Architecture) -> dict[str, dict[str, np.ndarray]]:
    """Read a torchvision ResNet's state_dict as Keras weights.

    Args:
        path: a file of `torch.save(resnet.state_dict(), path)`.
        architecture: the network that the weights are for.

    Returns:
        `weights[layer][name]` as `model_file.Stored` has them, kernels in HWIO order.

    Raises:
        DetectNetError: when the file cannot be read or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DetectNetError(
            f"{path} is damaged or no plain state_dict ({reason}): download it again"
        ) from error
    if not isinstance(state, dict) or "conv1.weight" not in state or "bn1.weight" not in state:
        raise DetectNetError(
            f"{path} is not the state_dict of a torchvision ResNet (no conv1.weight, bn1.weight)"
        )
    if not architecture.use_batch_norm:
        raise DetectNetError(
            f"{path}: torchvision's ResNets need model_config.use_batch_norm: true"
        )
    try:
        return _convert(state, architecture)
    except KeyError as error:
        raise DetectNetError(f"{path} lacks {error}: download it again") from error


def _convert(
    state: Mapping[str, Tensor], architecture: Architecture
) -> dict[str, dict[str, np.ndarray]]:
    weights = {
        "conv1": _stem(state["conv1.weight"].double()),
        "bn_conv1": _batch_norm(state, "bn1"),
    }
    for key in state:
        found = _UNIT.fullmatch(key)
        if found:
            block, unit, kind, number = found.groups()
            source = key.removesuffix(".weight")
            target = f"{_unit_name(block, unit)}_{kind}_{number}"
            weights[target] = (
                _convolution(state[key]) if kind == "conv" else _batch_norm(state, source)
            )
        elif key.endswith(".downsample.0.weight"):
            _, block, unit, *_ = re.split(r"layer(\d)\.(\d+)\.", key)
            prefix = key.removesuffix(".0.weight")
            name = _unit_name(block, unit)
            weights[f"{name}_conv_shortcut"] = _convolution(state[key])
            weights[f"{name}_bn_shortcut"] = _batch_norm(state, f"{prefix}.1")
    _add_identity_projections(weights, architecture)
    return weights


def _add_identity_projections(
    weights: dict[str, dict[str, np.ndarray]], architecture: Architecture
) -> None:
    """Fill the projections that torchvision has not with ones that pass their input through.

    A batch norm after an identity kernel changes nothing only when its scale and shift undo the
    normalisation. That takes the mean and variance of each channel of the unit's input, which
    follow from the batch norms before it when pre-activations are taken as independent and
    Gaussian: the mean after a batch norm is its beta, the deviation its gamma but for the epsilon.
    """
    moments = _rectified(_output_moments(weights["bn_conv1"]))
    for layer in architecture.layers():
        if layer.kind != "add":
            continue
        last_norm = layer.inputs[0]
        if last_norm not in weights:
            return
        unit = last_norm.split("_bn_")[0]
        shortcut = f"{unit}_conv_shortcut"
        wanted = layer.inputs[1] == f"{unit}_bn_shortcut"
        if wanted and shortcut not in weights:
            mean, variance = moments
            weights[shortcut] = _convolution(torch.eye(len(mean))[:, :, None, None])
            weights[f"{unit}_bn_shortcut"] = {
                "gamma": _array(torch.sqrt(variance + BATCH_NORM_EPSILON)),
                "beta": _array(mean),
                "moving_mean": _array(mean),
                "moving_variance": _array(variance),
            }
        elif wanted:
            moments = _output_moments(weights[f"{unit}_bn_shortcut"])
        branch = _output_moments(weights[last_norm])
        if branch[0].shape != moments[0].shape:
            return
        moments = _rectified((moments[0] + branch[0], moments[1] + branch[1]))


def _output_moments(norm: Mapping[str, np.ndarray]) -> Moments:
    """Mean and variance of each channel after a batch norm."""
    variance = torch.from_numpy(norm["moving_variance"]).double()
    gamma = torch.from_numpy(norm["gamma"]).double()
    output_variance = gamma**2 * variance / (variance + BATCH_NORM_EPSILON)
    return torch.from_numpy(norm["beta"]).double(), output_variance


def _rectified(moments: Moments) -> Moments:
    """Mean and variance of max(x, 0) for Gaussian x with the given ones."""
    mean, variance = moments
    deviation = variance.clamp_min(1e-12).sqrt()
    ratio = mean / deviation
    above = torch.special.ndtr(ratio)
    density = torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
    first = mean * above + deviation * density
    second = (mean**2 + deviation**2) * above + mean * deviation * density
    return first, (second - first**2).clamp_min(0)


def _unit_name(block: str, unit: str) -> str:
    return f"block_{block}{chr(ord('a') + int(unit))}"


def _stem(kernel: Tensor) -> dict[str, np.ndarray]:
    """The first convolution with ImageNet's normalisation folded in.

    Exact except within three pixels of the image's border, where the padding is now a 0 before
    the normalisation instead of after it.
    """
    mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)[None, :, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION, dtype=torch.float64)[None, :, None, None]
    scaled = kernel / deviation
    return _convolution(scaled) | {"bias": _array(-(scaled * mean).sum(dim=(1, 2, 3)))}


def _convolution(kernel: Tensor) -> dict[str, np.ndarray]:
    return {
        "kernel": _array(kernel.permute(2, 3, 1, 0)),
        "bias": np.zeros(kernel.shape[0], np.float32),
    }


def _batch_norm(state: Mapping[str, Tensor], name: str) -> dict[str, np.ndarray]:
    variance = state[f"{name}.running_var"].double()
    gamma = state[f"{name}.weight"].double()
    correction = torch.sqrt((variance + BATCH_NORM_EPSILON) / (variance + TORCHVISION_EPSILON))
    return {
        "gamma": _array(gamma * correction),
        "beta": _array(state[f"{name}.bias"]),
        "moving_mean": _array(state[f"{name}.running_mean"]),
        "moving_variance": _array(variance),
    }


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), dtype=np.float32)
