"""DetectNet_v2 as a PyTorch module: a ResNet backbone and two 1x1 heads on its last grid."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectnet_v2.architecture import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    BBOX_HEAD,
    COVERAGE_HEAD,
    HEADS,
    Architecture,
    Layer,
    channels,
    sizes,
)
from detectnet_v2.convolution import Convolution
from detectnet_v2.errors import DetectNetError

# Every network size is a multiple of the stride of 16 pixels, as NVIDIA's specs require.
SIZE_MULTIPLE = 16


class DetectNetV2(nn.Module):
    """The network; submodules carry the Keras layer names (`conv1`, `block_1a_bn_1`, ...).

    A pruned network is the same class with smaller `widths`.

    Args:
        num_layers: depth of the ResNet: 10, 18, 34 or 50.
        num_classes: number of classes C.
        widths: filters by convolution name where they differ from the template.
        use_pooling: see `Architecture`.
        all_projections: see `Architecture`.
        use_batch_norm: see `Architecture`.
        input_height: height of the images in pixels, a multiple of 16.
        input_width: width of the images in pixels, a multiple of 16.
        class_names: names of the classes in channel order, kept with the model when given.

    Raises:
        DetectNetError: for a network that cannot be built from these values.
    """

    def __init__(
        self,
        num_layers: int = 18,
        num_classes: int = 2,
        *,
        widths: Mapping[str, int] | None = None,
        use_pooling: bool = False,
        all_projections: bool = False,
        use_batch_norm: bool = True,
        input_height: int = 544,
        input_width: int = 960,
        class_names: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        self.architecture = Architecture(
            num_layers, num_classes, use_pooling, all_projections, use_batch_norm
        )
        self.layers = self.architecture.layers(widths)
        self.input_height = _network_size("height", input_height)
        self.input_width = _network_size("width", input_width)
        self.class_names = None if class_names is None else tuple(class_names)
        if self.class_names is not None and len(self.class_names) != num_classes:
            raise DetectNetError(
                f"{num_classes} classes but {len(self.class_names)} names: "
                f"{', '.join(self.class_names)}"
            )
        self._frozen_batch_norm = False
        counts = channels(self.layers)
        for layer in self.layers:
            if layer.kind == "conv":
                self.add_module(layer.name, _convolution(layer, counts[layer.inputs[0]]))
            elif layer.kind == "batch_norm":
                self.add_module(
                    layer.name,
                    nn.BatchNorm2d(
                        counts[layer.name], eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM
                    ),
                )
        self._last_uses = _last_uses(self.layers)

    @property
    def num_layers(self) -> int:
        """Depth of the ResNet."""
        return self.architecture.num_layers

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.architecture.num_classes

    @property
    def widths(self) -> dict[str, int]:
        """Filters of every convolution of the backbone, by layer name."""
        return {
            layer.name: layer.filters
            for layer in self.layers
            if layer.kind == "conv" and layer.name not in HEADS
        }

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict boxes and coverage.

        Args:
            images: (N, 3, H, W) RGB in 0..1; channels_last memory is the fast one on a CPU.

        Returns:
            bbox (N, 4C, h, w), distances left, top, right, bottom of each class in units of the
            box scale, and cov (N, C, h, w) after the sigmoid. Both are float32 under autocast
            too: the loss takes logarithms of values near 0 and 1.
        """
        features = self.features(images)
        with torch.autocast(features.device.type, enabled=False):
            head = self.get_submodule(BBOX_HEAD)
            features = features.to(head.weight.dtype)
            bbox = head(features)
            cov = torch.sigmoid(self.get_submodule(COVERAGE_HEAD)(features))
        return bbox, cov

    def features(self, images: Tensor) -> Tensor:
        """The backbone's last activation (N, channels, h, w) for `images` (N, 3, H, W)."""
        values: dict[str, Tensor] = {}
        result = images
        for layer in self.layers:
            if layer.name in HEADS:
                break
            if layer.kind == "input":
                result = images
            else:
                result = self._run(layer, [values[name] for name in layer.inputs])
            values[layer.name] = result
            for name in self._last_uses.get(layer.name, ()):
                del values[name]
        return result

    def train(self, mode: bool = True) -> "DetectNetV2":
        """Set training or evaluation mode; frozen batch norms keep using their moving averages."""
        super().train(mode)
        if self._frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def freeze_batch_norm(self) -> None:
        """Use the moving averages in training too; scale and shift still learn."""
        self._frozen_batch_norm = True
        self.train(self.training)

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        match layer.kind:
            case "conv" | "batch_norm":
                return self.get_submodule(layer.name)(inputs[0])
            case "relu":
                # Its input is never used elsewhere, and no backward pass needs it.
                return F.relu_(inputs[0])
            case "add":
                # The first operand is the residual branch, which ends here.
                return inputs[0].add_(inputs[1])
            case "max_pool":
                return F.max_pool2d(inputs[0], layer.kernel, layer.stride, layer.padding)
            case "average_pool":
                return F.avg_pool2d(
                    inputs[0],
                    layer.kernel,
                    layer.stride,
                    layer.padding,
                    count_include_pad=False,
                )
        raise AssertionError(f"no way to run a layer of kind {layer.kind}")


def regularized_parameters(model: DetectNetV2) -> list[nn.Parameter]:
    """Kernels and biases of all convolutions, heads included: what L1 and L2 apply to."""
    return [
        parameter
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
        for parameter in (module.weight, module.bias)
    ]


def freeze(model: DetectNetV2, blocks: Iterable[float] = (), bn: bool = False) -> None:
    """Stop parts of the network from learning, as `freeze_blocks` and `freeze_bn` ask.

    Args:
        model: changed in place.
        blocks: 0 for the stem, 1 to 4 for the ResNet blocks. Only their convolutions are frozen;
            their batch norms keep learning, as in NVIDIA's implementation.
        bn: let every batch norm use its moving averages in training.

    Raises:
        DetectNetError: for a block that does not exist.
    """
    wanted = set(blocks)
    unknown = wanted - set(range(5))
    if unknown:
        raise DetectNetError(
            f"freeze_blocks: no block {', '.join(f'{block:g}' for block in sorted(unknown))}; "
            "0 is conv1, 1 to 4 are the ResNet blocks"
        )
    for layer in model.layers:
        if layer.kind == "conv" and layer.block in wanted:
            model.get_submodule(layer.name).requires_grad_(False)
    if bn:
        model.freeze_batch_norm()


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of values in the network as Keras counts them.

    Moving averages of batch norms count, as in NVIDIA's pruning ratio, unless `trainable`.
    """
    count = sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
    if trainable:
        return count
    return count + sum(b.numel() for b in model.buffers() if b.is_floating_point())


def count_macs(model: DetectNetV2) -> int:
    """Multiply-accumulates of the convolutions for one image of the model's own size."""
    counts = channels(model.layers)
    extents = sizes(model.layers, model.input_height, model.input_width)
    return sum(
        counts[layer.inputs[0]] * layer.filters * layer.kernel**2 * math.prod(extents[layer.name])
        for layer in model.layers
        if layer.kind == "conv"
    )


def _convolution(layer: Layer, inputs: int) -> Convolution:
    """A convolution with Keras's initial values: Glorot-uniform kernel, zero bias."""
    module = Convolution(inputs, layer.filters, layer.kernel, layer.stride, layer.padding)
    nn.init.xavier_uniform_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def _last_uses(layers: tuple[Layer, ...]) -> dict[str, tuple[str, ...]]:
    """For each layer, the values that no later layer needs, so that memory is freed early."""
    last = {name: layer.name for layer in layers for name in layer.inputs}
    dead: dict[str, tuple[str, ...]] = {}
    for name, user in last.items():
        if user not in HEADS:
            dead[user] = (*dead.get(user, ()), name)
    return dead


def _network_size(side: str, pixels: int) -> int:
    if pixels <= 0 or pixels % SIZE_MULTIPLE:
        raise DetectNetError(
            f"the network's input {side} is {pixels}: it must be a positive multiple of "
            f"{SIZE_MULTIPLE} (augmentation_config.preprocessing.output_image_{side})"
        )
    return pixels
