"""Task `quantize`: an ONNX model that computes in INT8 with the scales of a calibration cache.

The values that TensorRT keeps in INT8 go through QuantizeLinear and DequantizeLinear with exactly
the cache's scales; kernels are INT8 with a scale for each filter, as TensorRT makes them. ONNX
Runtime runs the result anywhere, which shows what INT8 costs in accuracy before a device is near.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from detectnet_v2.calibrate import STEPS, load_onnx
from detectnet_v2.calibration_cache import (
    CalibrationCache,
    activation_tensors,
    check_coverage,
    read_cache,
)
from detectnet_v2.whole_file import refuse_existing, whole_file

OPSET = 13
"""The first opset with a scale for each filter."""

logger = logging.getLogger(__name__)


def quantized_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the values that an INT8 engine stores in eight bits, in the order of the graph.

    These are the inputs of convolutions, and the shortcut of each addition. TensorRT runs a
    convolution, the addition after it and the rectifier as one step in higher precision, so what
    lies between them is never stored; nor are the outputs, which are float32. Adding a weight, as
    another exporter may do with a bias, is part of the step before it.
    """
    activations = activation_tensors(model)
    wanted = set()
    for node in model.graph.node:
        if node.op_type == "Conv":
            wanted.add(node.input[0])
        elif node.op_type == "Add" and set(node.input) <= set(activations):
            wanted.add(node.input[1])
    return [name for name in activations if name in wanted]


def quantize(model: onnx.ModelProto, cache: CalibrationCache) -> onnx.ModelProto:
    """Build the Q/DQ model.

    Args:
        model: a float32 model written by `export`.
        cache: scales for its tensors.

    Raises:
        DetectNetError: when a tensor has no scale.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    initializers = [tensor for tensor in graph.initializer if tensor.name not in kernels]
    renamed: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.name in kernels:
            values, scale = quantize_kernel(numpy_helper.to_array(tensor))
            name = f"{tensor.name}_int8"
            zeros = np.zeros(len(scale), np.int8)
            initializers += [
                numpy_helper.from_array(values, name),
                numpy_helper.from_array(scale, f"{name}_scale"),
                numpy_helper.from_array(zeros, f"{name}_zero_point"),
            ]
            nodes.append(_linear("Dequantize", name, tensor.name, name, axis=0))
    wanted = set(quantized_tensors(model))
    zero_point = numpy_helper.from_array(np.zeros((), np.int8), "zero_point")
    initializers.append(zero_point)

    def store(name: str) -> None:
        """Pass a value through INT8; every later node takes the result."""
        scale = np.array(cache.scales[name], np.float32)
        initializers.append(numpy_helper.from_array(scale, f"{name}_scale"))
        nodes.append(_linear("Quantize", name, f"{name}_int8", name, zero=zero_point.name))
        renamed[name] = f"{name}_dequantized"
        nodes.append(
            _linear("Dequantize", f"{name}_int8", renamed[name], name, zero=zero_point.name)
        )

    for value in graph.input:
        if value.name in wanted:
            store(value.name)
    for node in graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(changed)
        for name in node.output:
            if name in wanted:
                store(name)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
    opset = max(OPSET, *(entry.version for entry in model.opset_import))
    del result.opset_import[:]
    result.opset_import.append(helper.make_opsetid("", opset))
    result.ir_version = helper.find_min_ir_version_for(result.opset_import)
    onnx.checker.check_model(result, full_check=True)
    return result


def quantize_kernel(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """INT8 kernel and the float32 scale of each filter, from a float32 kernel (O, I, h, w)."""
    amax = np.abs(kernel).max(axis=(1, 2, 3))
    scale = np.where(amax > 0, amax / STEPS, 1).astype(np.float32)
    steps = np.rint(kernel / scale[:, None, None, None])
    return np.clip(steps, -STEPS, STEPS).astype(np.int8), scale


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `quantize`, a task of this toolkit only."""
    parser.add_argument("-m", "--model", type=Path, required=True, help="ONNX model of export")
    parser.add_argument(
        "-c", "--cal_cache_file", type=Path, required=True, help="calibration cache"
    )
    parser.add_argument("-o", "--output_file", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def run(args: argparse.Namespace) -> int:
    """Write `args.output_file`."""
    refuse_existing(args.output_file)
    model = load_onnx(args.model)
    cache = read_cache(args.cal_cache_file)
    check_coverage(cache, activation_tensors(model), str(args.cal_cache_file))
    content = quantize(model, cache).SerializeToString(deterministic=True)
    with whole_file(args.output_file) as part:
        part.write_bytes(content)
    logger.info("INT8 model: %s", args.output_file)
    return 0


def _linear(
    kind: str, source: str, target: str, name: str, *, zero: str | None = None, axis: int = 1
) -> onnx.NodeProto:
    """A QuantizeLinear or DequantizeLinear node with the scale that belongs to `name`."""
    return helper.make_node(
        f"{kind}Linear",
        [source, f"{name}_scale", zero or f"{name}_zero_point"],
        [target],
        f"{target}_{kind.lower()}",
        axis=axis,
    )
