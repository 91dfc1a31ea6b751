"""Model files: Keras HDF5 as TAO 5 writes it, so that weights move between the toolkits."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from detectnet_v2.architecture import COVERAGE_HEAD, HEADS, Architecture
from detectnet_v2.errors import DetectNetError
from detectnet_v2.keras_config import (
    BACKEND,
    KERAS_VERSION,
    StoredGraph,
    identify,
    keras_order,
    model_config,
)
from detectnet_v2.keras_file import CLASS_NAMES, Stored, read_keras_file, stored_graph
from detectnet_v2.model import DetectNetV2
from detectnet_v2.objectives import STRIDE
from detectnet_v2.torchvision_weights import is_torch_file, read_torchvision
from detectnet_v2.whole_file import whole_file

# Keras's names of a layer's weights, in the order of the file, and those of the PyTorch module.
_CONVOLUTION = {"kernel": "weight", "bias": "bias"}
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NEUTRAL = {"bias": 0, "beta": 0, "gamma": 1}


@dataclass(frozen=True)
class PretrainedReport:
    """What `load_pretrained` did with each layer.

    `matched` layers were copied; `mismatched` ones have another shape in the file (layer, shape
    in the file, shape in the network) and were skipped; `absent` ones are not in the file;
    `unused` are the file's layers without a place in the backbone.
    """

    matched: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    absent: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.matched) + len(self.mismatched) + len(self.absent)
        parts = [f"{len(self.matched)} of {total} backbone layers loaded"]
        if self.mismatched:
            name, stored, wanted = self.mismatched[0]
            parts.append(
                f"{len(self.mismatched)} skipped for their shape "
                f"(first: {name}, {stored} in the file, {wanted} in the network)"
            )
        if self.absent:
            parts.append(f"{len(self.absent)} not in the file (first: {self.absent[0]})")
        if self.unused:
            parts.append(f"{len(self.unused)} of the file not used (first: {self.unused[0]})")
        return "; ".join(parts)


def save_model(model: DetectNetV2, path: str | Path) -> None:
    """Write a model as Keras HDF5; the file appears whole or not at all.

    Equal models give equal bytes.

    Args:
        model: any DetectNetV2, pruned or not.
        path: the file to write or replace; its folder is created.

    Raises:
        DetectNetError: when the file cannot be written.
    """
    # Made in memory: on a full disk HDF5 fails late, more than once and with a page of messages.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        _write(file, model)
    with whole_file(Path(path)) as part:
        part.write_bytes(content.getbuffer())


def load_detector(path: str | Path, *, classes: Sequence[str] | None = None) -> DetectNetV2:
    """`load_model`, for a model whose boxes are wanted.

    Raises:
        DetectNetError: as `load_model`, and for a grid that is not of `objectives.STRIDE` pixels.
    """
    model = load_model(path, classes=classes)
    stride = model.architecture.stride
    if stride != STRIDE:
        raise DetectNetError(
            f"{path}: was made with use_pooling, whose cells of {stride} pixels are too coarse to "
            f"detect ({STRIDE} are needed): train without"
        )
    return model


def load_model(path: str | Path, *, classes: Sequence[str] | None = None) -> DetectNetV2:
    """Build the network that a model file holds, pruned widths included.

    Args:
        path: Keras HDF5 with heads, from this toolkit or from TAO 5.
        classes: the classes in channel order that the caller works with.

    Returns:
        The network in evaluation mode.

    Raises:
        DetectNetError: for a file that cannot be read, is another network, or has other classes.
    """
    path = Path(path)
    stored = read_keras_file(path)
    graph = stored_graph(stored, path)
    architecture, widths = _architecture(stored, graph, path)
    _check_classes(stored, architecture.num_classes, classes, path)
    if graph is None or graph.input_size is None:
        raise DetectNetError(
            f"{path} does not say the network's input size: it holds weights without a graph; "
            "use it as model_config.pretrained_model_file with load_graph: false"
        )
    height, width = graph.input_size
    model = DetectNetV2(
        architecture.num_layers,
        architecture.num_classes,
        widths=widths,
        use_pooling=architecture.use_pooling,
        all_projections=architecture.all_projections,
        use_batch_norm=architecture.use_batch_norm,
        input_height=height,
        input_width=width,
        class_names=stored.class_names,
    )
    for name, module, slots in _weighted(model):
        if isinstance(module, nn.BatchNorm2d):
            module.eps = graph.epsilons.get(name, module.eps)
        tensors = _tensors(stored.weights[name], slots, f"{path}: layer {name}")
        for slot, value in tensors.items():
            target = getattr(module, slot)
            if target.shape != value.shape:
                raise DetectNetError(
                    f"{path}: {slot} of layer {name} has the shape {tuple(value.shape)}, the "
                    f"graph needs {tuple(target.shape)}; the file is inconsistent"
                )
        _assign(module, tensors)
    return model.eval()


def load_pretrained(model: DetectNetV2, path: str | Path) -> PretrainedReport:
    """Copy a pretrained backbone into a model by layer name, as `load_graph: false` asks.

    The heads keep their fresh values. A layer whose shape differs is skipped whole.

    Args:
        model: changed in place.
        path: Keras HDF5 (an NGC backbone, or any model file) or a torchvision ResNet's state_dict.

    Returns:
        Which layers matched; `str()` of it is a line for the log.

    Raises:
        DetectNetError: for a file that cannot be read, is of another kind of network, or in which
            no layer matches. The model is as before then.
    """
    path = Path(path)
    if path.is_file() and is_torch_file(path):
        weights = read_torchvision(path, model.architecture)
    else:
        weights = read_keras_file(path).weights
    _check_kind(model, weights, path)
    matched, mismatched, absent = [], [], []
    names = set()
    for name, module, slots in _weighted(model):
        if name in HEADS:
            continue
        names.add(name)
        if name not in weights:
            absent.append(name)
            continue
        tensors = _tensors(weights[name], slots, f"{path}: layer {name}")
        odd = [
            (name, tuple(value.shape), tuple(getattr(module, slot).shape))
            for slot, value in tensors.items()
            if getattr(module, slot).shape != value.shape
        ]
        if odd:
            mismatched.append(odd[0])
        else:
            _assign(module, tensors)
            matched.append(name)
    report = PretrainedReport(
        tuple(matched),
        tuple(mismatched),
        tuple(absent),
        tuple(sorted(set(weights) - names - set(HEADS))),
    )
    if not matched:
        raise DetectNetError(
            f"no layer of {path} fits {model.architecture.name}: {report}; set model_config."
            "pretrained_model_file to a backbone of this depth"
        )
    return report


def _check_kind(
    model: DetectNetV2, weights: Mapping[str, Mapping[str, np.ndarray]], path: Path
) -> None:
    """Refuse a network of another kind, of whose layers some would fit by chance.

    TAO's templates share names, such as `block_1a_bn_1` in ResNets and VGGs. Pruning changes
    widths alone, so a convolution with another kernel is another network's; and all ResNets have
    the stem.
    """
    wanted = model.architecture.name
    for layer in model.layers:
        kernel = weights.get(layer.name, {}).get("kernel")
        if layer.kind != "conv" or layer.name in HEADS or kernel is None:
            continue
        if kernel.shape[:2] != (layer.kernel, layer.kernel):
            size = " x ".join(map(str, kernel.shape[:-2]))
            raise DetectNetError(
                f"{path} is another kind of network than {wanted}: its {layer.name} has kernels of "
                f"{size}, not {layer.kernel} x {layer.kernel} pixels; set model_config."
                "pretrained_model_file to a backbone of this depth"
            )
    if any(layer.name in weights for layer in model.layers) and "conv1" not in weights:
        raise DetectNetError(
            f"{path} is another kind of network than {wanted}: it has no conv1; set model_config."
            "pretrained_model_file to a ResNet backbone"
        )


def _write(file: h5py.File, model: DetectNetV2) -> None:
    config = model_config(
        model.architecture,
        model.layers,
        input_height=model.input_height,
        input_width=model.input_width,
        epsilons={
            name: module.eps
            for name, module in model.named_children()
            if isinstance(module, nn.BatchNorm2d)
        },
    )
    _text_attribute(file, "keras_version", KERAS_VERSION)
    _text_attribute(file, "backend", BACKEND)
    _text_attribute(file, "model_config", json.dumps(config))
    if model.class_names is not None:
        file.attrs[CLASS_NAMES] = np.array([name.encode() for name in model.class_names])
    group = file.create_group("model_weights")
    order = keras_order(model.layers)
    group.attrs["layer_names"] = np.array([layer.name.encode() for layer in order])
    _text_attribute(group, "backend", BACKEND)
    _text_attribute(group, "keras_version", KERAS_VERSION)
    weighted = {name: (module, slots) for name, module, slots in _weighted(model)}
    for layer in order:
        subgroup = group.create_group(layer.name)
        if layer.name not in weighted:
            # What Keras itself leaves for an empty list.
            subgroup.attrs["weight_names"] = np.zeros(0)
            continue
        module, slots = weighted[layer.name]
        names = {weight: f"{layer.name}/{weight}:0" for weight in slots}
        subgroup.attrs["weight_names"] = np.array([name.encode() for name in names.values()])
        for weight, name in names.items():
            value = getattr(module, slots[weight]).detach().float().cpu()
            if weight == "kernel":
                value = value.permute(2, 3, 1, 0)
            subgroup.create_dataset(name, data=value.contiguous().numpy(), track_times=False)


def _text_attribute(node: h5py.Group, name: str, text: str) -> None:
    # Variable-length bytes: Keras 2.2.4 calls .decode() on it, and a fixed-length string stops
    # at 64 KiB.
    node.attrs.create(name, text.encode(), dtype=h5py.string_dtype("ascii"))


def _architecture(
    stored: Stored, graph: StoredGraph | None, path: Path
) -> tuple[Architecture, dict[str, int]]:
    missing = [head for head in HEADS if "kernel" not in stored.weights.get(head, {})]
    if missing:
        raise DetectNetError(
            f"{path} has no layer {' and no '.join(missing)}: it is not a whole DetectNet_v2; a "
            "backbone goes into model_config.pretrained_model_file with load_graph: false"
        )
    num_classes = stored.weights[COVERAGE_HEAD]["kernel"].shape[-1]
    architecture = identify(
        set(stored.weights),
        use_pooling=graph is not None and graph.use_pooling,
        num_classes=num_classes,
    )
    if architecture is None:
        raise DetectNetError(
            f"{path} is not a ResNet 10, 18, 34 or 50 DetectNet_v2: its {len(stored.weights)} "
            f"layers with weights ({', '.join(list(stored.weights)[:3])}, ...) fit none of them"
        )
    widths = {
        name: weights["kernel"].shape[-1]
        for name, weights in stored.weights.items()
        if "kernel" in weights and name not in HEADS
    }
    return architecture, widths


def _check_classes(
    stored: Stored, num_classes: int, classes: Sequence[str] | None, path: Path
) -> None:
    if classes is None:
        return
    if len(classes) != num_classes:
        raise DetectNetError(
            f"{path} has {num_classes} classes, the spec's cost_function_config.target_classes "
            f"has {len(classes)} ({', '.join(classes)}): use the spec that trained it"
        )
    if stored.class_names is not None and stored.class_names != tuple(classes):
        raise DetectNetError(
            f"{path} was trained for the classes {', '.join(stored.class_names)} in this order, "
            f"the spec's cost_function_config.target_classes are {', '.join(classes)}"
        )


def _weighted(model: DetectNetV2) -> Iterable[tuple[str, nn.Module, Mapping[str, str]]]:
    """Every layer with weights: its name, its module, and Keras's weight names with the slots."""
    for name, module in model.named_children():
        yield name, module, _CONVOLUTION if isinstance(module, nn.Conv2d) else _BATCH_NORM


def _tensors(
    weights: Mapping[str, np.ndarray], slots: Mapping[str, str], place: str
) -> dict[str, Tensor]:
    """The stored arrays as the module's tensors.

    A layer without bias, scale or shift (Keras's `use_bias`, `scale`, `center`) gets neutral ones.
    """
    tensors = {}
    for name, slot in slots.items():
        if name in weights:
            value = weights[name]
        elif name in _NEUTRAL and weights:
            filters = next(iter(weights.values())).shape[-1]
            value = np.full(filters, _NEUTRAL[name], np.float32)
        else:
            raise DetectNetError(f"{place} has no {name}: the file is inconsistent")
        tensor = torch.from_numpy(value)
        tensors[slot] = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor
    return tensors


def _assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for slot, value in tensors.items():
            getattr(module, slot).copy_(value)
