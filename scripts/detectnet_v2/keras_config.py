"""The Keras side of the network: the `model_config` JSON and the order of the layers in a file.

The dialect is that of Keras 2.2.4, which TAO 5 runs and every later Keras still reads.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectnet_v2.architecture import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    BBOX_HEAD,
    COVERAGE_HEAD,
    HEADS,
    IMAGE_CHANNELS,
    INPUT,
    Architecture,
    Layer,
)
from detectnet_v2.errors import DetectNetError

KERAS_VERSION = "2.2.4"
BACKEND = "tensorflow"

_CLASSES = {
    "input": "InputLayer",
    "conv": "Conv2D",
    "batch_norm": "BatchNormalization",
    "relu": "Activation",
    "add": "Add",
    "max_pool": "MaxPooling2D",
    "average_pool": "AveragePooling2D",
}
# TAO writes a pooling-free network with these classes only; Dropout does nothing when it runs.
_READABLE = {*_CLASSES.values(), "Dropout"}


@dataclass(frozen=True)
class StoredGraph:
    """What a file's `model_config` says that its weights do not.

    `input_size` is (height, width) in pixels, None where the file leaves it open; `epsilons` are
    those of the batch norms by layer name.
    """

    input_size: tuple[int, int] | None
    use_pooling: bool
    epsilons: Mapping[str, float]


def keras_order(layers: tuple[Layer, ...]) -> list[Layer]:
    """Sort layers as Keras numbers them: by depth, then in the order of a walk from the outputs.

    Keras assigns stored weights by this position and not by name, so a file in another order
    loads wrongly wherever shapes agree.
    """
    by_name = {layer.name: layer for layer in layers}
    depth = dict.fromkeys(by_name, 0)
    for layer in reversed(layers):
        for name in layer.inputs:
            depth[name] = max(depth[name], depth[layer.name] + 1)
    met: dict[str, int] = {}
    pending = list(reversed(HEADS))
    while pending:
        name = pending.pop()
        if name not in met:
            met[name] = len(met)
            pending.extend(reversed(by_name[name].inputs))
    return sorted(layers, key=lambda layer: (-depth[layer.name], met[layer.name]))


def model_config(
    architecture: Architecture,
    layers: tuple[Layer, ...],
    *,
    input_height: int,
    input_width: int,
    epsilons: Mapping[str, float],
) -> dict[str, Any]:
    """The `model_config` of a network, ready for `json.dumps`.

    Args:
        architecture: gives the model its name.
        layers: the graph with its widths.
        input_height: pixels.
        input_width: pixels.
        epsilons: epsilon of every batch norm, by layer name.
    """
    return {
        "class_name": "Model",
        "config": {
            "name": architecture.name,
            "layers": [
                {
                    "name": layer.name,
                    "class_name": _CLASSES[layer.kind],
                    "config": _layer_config(layer, input_height, input_width, epsilons),
                    "inbound_nodes": (
                        [[[name, 0, 0, {}] for name in layer.inputs]] if layer.inputs else []
                    ),
                }
                for layer in keras_order(layers)
            ],
            "input_layers": [[INPUT, 0, 0]],
            "output_layers": [[BBOX_HEAD, 0, 0], [COVERAGE_HEAD, 0, 0]],
        },
    }


def read_config(config: Any, place: str) -> StoredGraph:
    """Take from a parsed `model_config` what this toolkit needs.

    Nested models, which TAO writes for some graphs, are looked into.

    Args:
        config: the parsed JSON.
        place: file name for messages.

    Raises:
        DetectNetError: for a layer or activation that the network here does not have.
    """
    input_size = None
    epsilons: dict[str, float] = {}
    use_pooling = False
    for layer in _flat_layers(config, place):
        kind, settings = layer["class_name"], layer["config"]
        name = settings.get("name", "?")
        if kind not in _READABLE:
            raise DetectNetError(
                f"{place}: layer {name} is a {kind}, which is not part of a ResNet DetectNet_v2; "
                "models trained with enable_qat or another arch cannot be read"
            )
        activation = settings.get("activation", "linear")
        if activation not in ("linear", "relu", "sigmoid"):
            raise DetectNetError(
                f"{place}: layer {name} has the activation {activation!r}; only relu is supported"
            )
        if kind == "InputLayer":
            input_size = input_size or _input_size(settings, place)
        elif kind == "MaxPooling2D":
            use_pooling = True
        elif kind == "BatchNormalization":
            epsilons[name] = float(settings.get("epsilon", BATCH_NORM_EPSILON))
    return StoredGraph(input_size, use_pooling, epsilons)


def identify(names: set[str], *, use_pooling: bool, num_classes: int) -> Architecture | None:
    """The architecture whose weighted layers are exactly `names`; None when there is none."""
    batch_norm = any(re.search(r"(^|_)bn_", name) for name in names)
    for num_layers in (10, 18, 34, 50):
        for all_projections in (False, True):
            architecture = Architecture(
                num_layers, num_classes, use_pooling, all_projections, batch_norm
            )
            weighted = {
                layer.name
                for layer in architecture.layers()
                if layer.kind in ("conv", "batch_norm")
            }
            if weighted == names:
                return architecture
    return None


def _flat_layers(config: Any, place: str) -> list[dict[str, Any]]:
    try:
        flat: list[dict[str, Any]] = []
        for layer in config["config"]["layers"]:
            if layer["class_name"] in ("Model", "Functional"):
                flat.extend(_flat_layers(layer, place))
            else:
                flat.append({"class_name": layer["class_name"], "config": dict(layer["config"])})
    except (KeyError, TypeError, ValueError) as error:
        raise DetectNetError(
            f"{place}: model_config is not that of a Keras functional model ({error!r})"
        ) from error
    return flat


def _input_size(settings: Mapping[str, Any], place: str) -> tuple[int, int] | None:
    shape = settings.get("batch_input_shape") or settings.get("batch_shape")
    if not shape or len(shape) != 4 or shape[1] != IMAGE_CHANNELS:
        raise DetectNetError(
            f"{place}: the input's shape is {shape}; expected [null, 3, height, width]"
        )
    if shape[2] is None or shape[3] is None:
        return None
    return int(shape[2]), int(shape[3])


def _layer_config(
    layer: Layer, input_height: int, input_width: int, epsilons: Mapping[str, float]
) -> dict[str, Any]:
    if layer.kind == "input":
        return {
            "batch_input_shape": [None, IMAGE_CHANNELS, input_height, input_width],
            "dtype": "float32",
            "sparse": False,
            "name": layer.name,
        }
    common = {"name": layer.name, "trainable": True}
    if layer.kind == "conv":
        return common | _convolution_config(layer)
    if layer.kind == "batch_norm":
        return common | _batch_norm_config(epsilons[layer.name])
    if layer.kind == "relu":
        return common | {"activation": "relu"}
    if layer.kind == "add":
        return common
    return common | {
        "pool_size": [layer.kernel, layer.kernel],
        "padding": "same",
        "strides": [layer.stride, layer.stride],
        "data_format": "channels_first",
    }


def _convolution_config(layer: Layer) -> dict[str, Any]:
    shortcut = layer.name.endswith("_shortcut")
    regularizer = {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.0}}
    return {
        "filters": layer.filters,
        "kernel_size": [layer.kernel, layer.kernel],
        "strides": [layer.stride, layer.stride],
        # TAO's patched Keras pads "same" symmetrically, which is what this network does.
        "padding": "valid" if shortcut else "same",
        "data_format": "channels_first",
        "dilation_rate": [1, 1],
        "activation": "sigmoid" if layer.name == COVERAGE_HEAD else "linear",
        "use_bias": True,
        "kernel_initializer": {
            "class_name": "VarianceScaling",
            "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
        },
        "bias_initializer": _initializer("Zeros"),
        "kernel_regularizer": regularizer,
        "bias_regularizer": regularizer,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
    }


def _batch_norm_config(epsilon: float) -> dict[str, Any]:
    return {
        "axis": 1,
        "momentum": 1 - BATCH_NORM_MOMENTUM,
        "epsilon": epsilon,
        "center": True,
        "scale": True,
        "beta_initializer": _initializer("Zeros"),
        "gamma_initializer": _initializer("Ones"),
        "moving_mean_initializer": _initializer("Zeros"),
        "moving_variance_initializer": _initializer("Ones"),
        "beta_regularizer": None,
        "gamma_regularizer": None,
        "beta_constraint": None,
        "gamma_constraint": None,
    }


def _initializer(name: str) -> dict[str, Any]:
    return {"class_name": name, "config": {}}
