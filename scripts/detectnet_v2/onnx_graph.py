"""The network as an ONNX graph with NVIDIA's tensor names and batch norms folded away."""

import onnx
from onnx import TensorProto, helper, numpy_helper

from detectnet_v2.architecture import (
    BBOX_HEAD,
    COVERAGE_HEAD,
    IMAGE_CHANNELS,
    INPUT,
    Layer,
    channels,
    sizes,
)
from detectnet_v2.errors import DetectNetError
from detectnet_v2.folding import fold_batch_norms
from detectnet_v2.model import DetectNetV2
from detectnet_v2.network import BBOX_OUTPUT, CLASS_NAMES, COV_OUTPUT

INPUT_TENSOR = INPUT
OPSETS = range(9, 21)
"""Opsets in which every operator used here has the meaning that it is given."""

_SUFFIXES = {
    "conv": "BiasAdd",
    "relu": "Relu",
    "add": "add",
    "max_pool": "MaxPool",
    "average_pool": "AvgPool",
}
_OPERATORS = {
    "conv": "Conv",
    "relu": "Relu",
    "add": "Add",
    "max_pool": "MaxPool",
    "average_pool": "AveragePool",
}


def onnx_model(
    model: DetectNetV2, *, opset: int = 11, batch_size: int | None = None, suffix: str = ""
) -> onnx.ModelProto:
    """Describe a model in ONNX; the same model always gives the same bytes.

    A node has the name of its Keras layer, its output that name and the operation, such as
    `block_1a_conv_1/BiasAdd`. A convolution's output is the one after its batch norm.

    Args:
        model: its weights are taken as they are, batch norms with their moving averages.
        opset: ONNX operator set, 9 to 20. TensorRT 7.1 reads up to 11.
        batch_size: images a batch, or None to leave it open.
        suffix: appended to the names of input and outputs; tf2onnx writes `:0`.

    Raises:
        DetectNetError: for an opset out of range or a batch below one.
    """
    if opset not in OPSETS:
        raise DetectNetError(
            f"--target_opset {opset}: choose {OPSETS.start} to {OPSETS.stop - 1} "
            "(TensorRT 7.1 reads up to 11, 8.0 up to 13)"
        )
    if batch_size is not None and batch_size < 1:
        raise DetectNetError(f"--static_batch_size {batch_size}: give at least 1, or -1 for any")
    tensors = {INPUT: INPUT_TENSOR + suffix}
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    folded = fold_batch_norms(model)
    for layer in folded.layers:
        if layer.kind == "input":
            continue
        inputs = [tensors[name] for name in layer.inputs]
        if layer.kind == "conv":
            stored = _weights(folded, layer)
            weights += stored
            inputs += [tensor.name for tensor in stored]
        output = f"{layer.name}/{_SUFFIXES[layer.kind]}"
        if layer.name == BBOX_HEAD:
            output += suffix
        nodes.append(_node(layer, inputs, output))
        tensors[layer.name] = output
    nodes.append(
        helper.make_node(
            "Sigmoid",
            [tensors[COVERAGE_HEAD]],
            [COV_OUTPUT + suffix],
            name=f"{COVERAGE_HEAD}_sigmoid",
        )
    )
    batch = "batch" if batch_size is None else batch_size
    extents = sizes(model.layers, model.input_height, model.input_width)
    counts = channels(model.layers)
    graph = helper.make_graph(
        nodes,
        model.architecture.name,
        [
            helper.make_tensor_value_info(
                INPUT_TENSOR + suffix,
                TensorProto.FLOAT,
                [batch, IMAGE_CHANNELS, model.input_height, model.input_width],
            )
        ],
        [
            helper.make_tensor_value_info(
                name + suffix, TensorProto.FLOAT, [batch, counts[head], *extents[head]]
            )
            for name, head in ((BBOX_OUTPUT, BBOX_HEAD), (COV_OUTPUT, COVERAGE_HEAD))
        ],
        weights,
    )
    operators = [helper.make_opsetid("", opset)]
    proto = helper.make_model(
        graph,
        producer_name="detectnet_v2",
        opset_imports=operators,
        # The lowest version that fits: runtimes of the opset's time refuse a later one.
        ir_version=helper.find_min_ir_version_for(operators),
    )
    if model.class_names is not None:
        helper.set_model_props(proto, {CLASS_NAMES: ";".join(model.class_names)})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _node(layer: Layer, inputs: list[str], output: str) -> onnx.NodeProto:
    attributes = {}
    if layer.kind in ("conv", "max_pool", "average_pool"):
        attributes = {
            "kernel_shape": [layer.kernel] * 2,
            "pads": [layer.padding] * 4,
            "strides": [layer.stride] * 2,
        }
    return helper.make_node(_OPERATORS[layer.kind], inputs, [output], layer.name, **attributes)


def _weights(folded: DetectNetV2, layer: Layer) -> list[onnx.TensorProto]:
    convolution = folded.get_submodule(layer.name)
    return [
        numpy_helper.from_array(values.detach().numpy(), f"{layer.name}/{name}")
        for name, values in (("kernel", convolution.weight), ("bias", convolution.bias))
    ]
