"""The layer graph of DetectNet_v2 on a ResNet backbone, as plain data.

One table describes the network for everything that needs it: the PyTorch module runs it, the
model file writes it as a Keras configuration, pruning walks it to find which filters must stay
together, and the ONNX export turns it into nodes. Layer names are those of NVIDIA's Keras
template, so a weight has the same name everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from detectnet_v2.errors import DetectNetError

INPUT = "input_1"
BBOX_HEAD = "output_bbox"
COVERAGE_HEAD = "output_cov"
HEADS = (BBOX_HEAD, COVERAGE_HEAD)
IMAGE_CHANNELS = 3
BATCH_NORM_EPSILON = 1e-3
# The share of a batch in the moving average; Keras keeps 0.99 of the old one.
BATCH_NORM_MOMENTUM = 0.01

# Units of each block, and whether a unit is a bottleneck (1x1, 3x3, 1x1 to four times the width).
_REPEATS = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}
_BLOCK_WIDTHS = (64, 128, 256, 512)

Kind = Literal["input", "conv", "batch_norm", "relu", "max_pool", "average_pool", "add"]


@dataclass(frozen=True)
class Layer:
    """One node of the graph.

    `filters` is the width of a convolution's output and 0 for every other kind; `kernel` and
    `stride` are in pixels and 1 where they mean nothing. Padding is symmetric, `kernel // 2`.
    `block` is 0 for the stem, 1 to 4 for the ResNet blocks and 5 for the heads.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    filters: int = 0
    kernel: int = 1
    stride: int = 1
    block: int = 0

    @property
    def padding(self) -> int:
        """Zeros added on each side."""
        return self.kernel // 2


@dataclass(frozen=True)
class Architecture:
    """What determines the graph except the widths of a pruned network.

    Args:
        num_layers: depth of the ResNet: 10, 18, 34 or 50.
        num_classes: classes of the detector, at least one.
        use_pooling: NVIDIA's pooling variant: a 3x3 max-pool after the stem and a 7x7 average
            pool before the heads. Its grid is far coarser than the usual stride of 16 pixels.
        all_projections: a 1x1 convolution on every shortcut; otherwise only on the first unit of
            each block (block 1 included) and the identity on the others.
        use_batch_norm: batch normalisation after every convolution of the backbone.

    Raises:
        DetectNetError: for a depth without a template or no class.
    """

    num_layers: int = 18
    num_classes: int = 2
    use_pooling: bool = False
    all_projections: bool = False
    use_batch_norm: bool = True

    def __post_init__(self) -> None:
        if self.num_layers not in _REPEATS:
            depths = ", ".join(map(str, _REPEATS))
            raise DetectNetError(
                f"no ResNet with {self.num_layers} layers: model_config.num_layers must be one of "
                f"{depths}"
            )
        if self.num_classes < 1:
            raise DetectNetError(
                "a detector needs at least one class: name them in "
                "cost_function_config.target_classes"
            )

    @property
    def name(self) -> str:
        """The Keras model's name, such as `resnet18_nopool_bn_detectnet_v2`."""
        pooling = "" if self.use_pooling else "_nopool"
        norm = "_bn" if self.use_batch_norm else ""
        return f"resnet{self.num_layers}{pooling}{norm}_detectnet_v2"

    @property
    def stride(self) -> int:
        """Pixels of the input per cell of the output grid."""
        return 2 * 2 * 8 * 7 if self.use_pooling else 16

    def layers(self, widths: Mapping[str, int] | None = None) -> tuple[Layer, ...]:
        """The graph in an order that can be run from first to last.

        Args:
            widths: filters by convolution name, for a pruned network; names that are absent keep
                the template's width. The heads' widths follow from the classes.

        Raises:
            DetectNetError: for a name that is no convolution of this network, a width below one,
                or widths that differ at an addition.
        """
        layers = tuple(_Builder(self, dict(widths or {})).build())
        _check_additions(layers)
        return layers


class _Builder:
    """Appends layers one after the other; `self.top` is the name of the latest."""

    def __init__(self, architecture: Architecture, widths: dict[str, int]) -> None:
        self.architecture = architecture
        self.widths = widths
        self.unused = set(widths)
        self.nodes: list[Layer] = [Layer(INPUT, "input", ())]
        self.top = INPUT
        self.additions = 0
        self.block = 0

    def build(self) -> list[Layer]:
        architecture = self.architecture
        self.conv("conv1", 64, kernel=7, stride=2)
        self.norm("bn_conv1")
        self.add_node("activation_1", "relu")
        if architecture.use_pooling:
            self.add_node("max_pooling2d_1", "max_pool", kernel=3, stride=2)
        strides = (1, 2, 2, 2) if architecture.use_pooling else (2, 2, 2, 1)
        repeats, bottleneck = _REPEATS[architecture.num_layers]
        for index, (repeat, stride) in enumerate(zip(repeats, strides, strict=True)):
            self.block = index + 1
            for unit in range(repeat):
                self.unit(
                    f"block_{self.block}{chr(ord('a') + unit)}",
                    _BLOCK_WIDTHS[index],
                    stride=stride if unit == 0 else 1,
                    project=unit == 0 or architecture.all_projections,
                    bottleneck=bottleneck,
                )
        self.block = len(strides) + 1
        if architecture.use_pooling:
            self.add_node("average_pooling2d_1", "average_pool", kernel=7, stride=7)
        features = self.top
        for head, channels in ((BBOX_HEAD, 4), (COVERAGE_HEAD, 1)):
            self.top = features
            self.conv(head, channels * architecture.num_classes, fixed=True)
        if self.unused:
            raise DetectNetError(
                f"{architecture.name} has no convolution named {', '.join(sorted(self.unused))}"
            )
        return self.nodes

    def unit(self, name: str, width: int, *, stride: int, project: bool, bottleneck: bool) -> None:
        entry = self.top
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        outputs = (width, width, 4 * width) if bottleneck else (width, width)
        for number, (kernel, filters) in enumerate(zip(kernels, outputs, strict=True), start=1):
            self.conv(f"{name}_conv_{number}", filters, kernel, stride if number == 1 else 1)
            self.norm(f"{name}_bn_{number}")
            if number < len(kernels):
                self.add_node(f"{name}_relu_{number}", "relu")
        branch, self.top = self.top, entry
        if project:
            self.conv(f"{name}_conv_shortcut", outputs[-1], stride=stride)
            self.norm(f"{name}_bn_shortcut")
        self.additions += 1
        self.nodes.append(
            Layer(f"add_{self.additions}", "add", (branch, self.top), block=self.block)
        )
        self.top = self.nodes[-1].name
        self.add_node(f"{name}_relu", "relu")

    def conv(
        self, name: str, filters: int, kernel: int = 1, stride: int = 1, *, fixed: bool = False
    ) -> None:
        if not fixed and name in self.widths:
            self.unused.discard(name)
            filters = self.widths[name]
            if filters < 1:
                raise DetectNetError(f"layer {name} cannot have {filters} filters")
        self.add_node(name, "conv", filters=filters, kernel=kernel, stride=stride)

    def norm(self, name: str) -> None:
        if self.architecture.use_batch_norm:
            self.add_node(name, "batch_norm")

    def add_node(
        self, name: str, kind: Kind, *, filters: int = 0, kernel: int = 1, stride: int = 1
    ) -> None:
        self.nodes.append(Layer(name, kind, (self.top,), filters, kernel, stride, self.block))
        self.top = name


def channels(layers: tuple[Layer, ...]) -> dict[str, int]:
    """Channels of every layer's output, by layer name."""
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.kind == "input":
            counts[layer.name] = IMAGE_CHANNELS
        elif layer.kind == "conv":
            counts[layer.name] = layer.filters
        else:
            counts[layer.name] = counts[layer.inputs[0]]
    return counts


def sizes(layers: tuple[Layer, ...], height: int, width: int) -> dict[str, tuple[int, int]]:
    """Height and width in pixels of every layer's output, for an input of `height` x `width`."""
    extents: dict[str, tuple[int, int]] = {}
    for layer in layers:
        if layer.kind == "input":
            extents[layer.name] = (height, width)
            continue
        before = extents[layer.inputs[0]]
        extents[layer.name] = tuple(
            (extent + 2 * layer.padding - layer.kernel) // layer.stride + 1 for extent in before
        )
    return extents


def _check_additions(layers: tuple[Layer, ...]) -> None:
    counts = channels(layers)
    for layer in layers:
        if layer.kind == "add":
            left, right = layer.inputs
            if counts[left] != counts[right]:
                raise DetectNetError(
                    f"widths do not fit at {layer.name}: {left} has {counts[left]} channels and "
                    f"{right} has {counts[right]}"
                )
