"""A trained network as a function of images, whichever file it comes from."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from detectnet_v2.architecture import BBOX_HEAD, COVERAGE_HEAD
from detectnet_v2.errors import DetectNetError

BBOX_OUTPUT = f"{BBOX_HEAD}/BiasAdd"
COV_OUTPUT = f"{COVERAGE_HEAD}/Sigmoid"
CLASS_NAMES = "class_names"
"""Metadata of an exported ONNX file: the classes in channel order, with semicolons between."""
ENGINE_SUFFIXES = (".trt", ".engine", ".plan")
SEALED_SUFFIXES = (".tlt", ".etlt")


class Network(Protocol):
    """A network; `seconds` holds the time of each call a frame, without loading images.

    Attributes:
        height, width: size of the input in pixels.
        parameters: number of its weights as the file has them.
        macs: multiply-accumulates for one image.
    """

    height: int
    width: int
    parameters: int
    macs: int
    seconds: list[float]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bbox (N, 4C, h, w) and cov (N, C, h, w) of images (N, H, W, 3) uint8 RGB."""


def load_network(
    path: Path, classes: Sequence[str], *, precision: str = "float32", threads: int = 0
) -> Network:
    """Return the network of a model file: .hdf5, or .onnx run by ONNX Runtime.

    Args:
        path: the file.
        classes: names in channel order.
        precision: float32 or bfloat16, of a .hdf5.
        threads: of an operation, for a .onnx; 0 takes all cores.

    Raises:
        DetectNetError: the file is of another kind, cannot be read, or has other classes.
    """
    if path.suffix in ENGINE_SUFFIXES:
        raise DetectNetError(
            f"{path}: a TensorRT engine runs on its own device only: give the .onnx it was built of"
        )
    if path.suffix in SEALED_SUFFIXES:
        raise DetectNetError(
            f"{path}: is encrypted by NVIDIA's toolkit: export it there, or give a .hdf5 or .onnx"
        )
    if not path.is_file():
        raise DetectNetError(f"{path}: no such model file")
    if path.suffix == ".onnx":
        return OnnxNetwork(path, classes, threads=threads)
    return TorchNetwork(path, classes, precision=precision)


class TorchNetwork:
    """A .hdf5 model in PyTorch, on the GPU if there is one."""

    def __init__(self, path: Path, classes: Sequence[str], *, precision: str = "float32"):
        import torch  # noqa: PLC0415 - an .onnx does without

        from detectnet_v2.device import has_usable_gpu  # noqa: PLC0415
        from detectnet_v2.folding import fold_batch_norms  # noqa: PLC0415
        from detectnet_v2.model import count_macs, count_parameters  # noqa: PLC0415
        from detectnet_v2.model_file import load_detector  # noqa: PLC0415

        self._device = torch.device("cuda" if has_usable_gpu() else "cpu")
        # PyTorch lets a GPU round the numbers that float32 convolutions multiply to 10 bits (TF32).
        # A model's figures are those of float32, on every device.
        torch.backends.cudnn.allow_tf32 = False
        model = load_detector(path, classes=classes)
        self.height, self.width = model.input_height, model.input_width
        self.parameters, self.macs = count_parameters(model), count_macs(model)
        # Convolutions on CPUs and on tensor cores are faster with channels last.
        # Batch norms cost a tenth of the time and, folded away, nothing.
        self._model = fold_batch_norms(model).to(self._device, memory_format=torch.channels_last)
        self._half = precision == "bfloat16"
        self.seconds: list[float] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bbox and cov, float32, of images (N, H, W, 3) uint8."""
        import torch  # noqa: PLC0415

        started = time.perf_counter()
        with torch.inference_mode(), self._autocast():
            # (N, H, W, 3) in memory is (N, 3, H, W) with channels last: no copy.
            batch = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
            bbox, cov = self._model(batch.float().div_(255))
        outputs = bbox.float().cpu().numpy(), cov.float().cpu().numpy()
        self.seconds.append((time.perf_counter() - started) / len(images))
        return outputs

    def _autocast(self) -> AbstractContextManager:
        import torch  # noqa: PLC0415

        if not self._half:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


class OnnxNetwork:
    """An exported model in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, classes: Sequence[str], *, threads: int = 0):
        import onnx  # noqa: PLC0415
        import onnxruntime  # noqa: PLC0415
        from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
        except (
            state.Fail,
            state.InvalidProtobuf,
            state.InvalidGraph,
            state.NotImplemented,
        ) as error:
            reason = str(error).splitlines()[0]
            raise DetectNetError(f"{path}: ONNX Runtime cannot run it: {reason}") from error
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        self._outputs = []
        for name in (BBOX_OUTPUT, COV_OUTPUT):
            # tf2onnx, an option of NVIDIA's export, appends the number of the output.
            found = next((other for other in (name, f"{name}:0") if other in outputs), None)
            if found is None:
                raise DetectNetError(
                    f"{path}: has no output {name} (but {', '.join(outputs)}): no DetectNet_v2"
                )
            self._outputs.append(found)
        channels = outputs[self._outputs[1]][1]
        if channels != len(classes):
            raise DetectNetError(
                f"{path}: finds {channels} classes, the spec has {len(classes)} "
                f"({', '.join(classes)})"
            )
        # Of this toolkit's exports; other files do not say.
        trained = self._session.get_modelmeta().custom_metadata_map.get(CLASS_NAMES)
        if trained is not None and trained.split(";") != list(classes):
            raise DetectNetError(
                f"{path}: was trained for the classes {', '.join(trained.split(';'))} in this "
                f"order, the spec has {', '.join(classes)}"
            )
        self._input = self._session.get_inputs()[0]
        batch, _, self.height, self.width = self._input.shape
        self._batch = batch if isinstance(batch, int) else None
        self.parameters, self.macs = _count(graph)
        self.seconds: list[float] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bbox and cov, float32, of images (N, H, W, 3) uint8."""
        started = time.perf_counter()
        step = self._batch or len(images)
        parts = []
        for first in range(0, len(images), step):
            part = images[first : first + step]
            # A fixed batch is filled up with black images.
            missing = step - len(part)
            batch = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else part
            values = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32)
            values /= 255
            found = self._session.run(self._outputs, {self._input.name: values})
            parts.append([output[: len(part)] for output in found])
        bbox, cov = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        self.seconds.append((time.perf_counter() - started) / len(images))
        return bbox, cov


def _count(graph) -> tuple[int, int]:
    """Return the weights of an ONNX graph's convolutions, and their MACs for one image."""
    weights = {item.name: math.prod(item.dims) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            # An INT8 kernel becomes the convolution's only here.
            weights[node.output[0]] = weights[node.input[0]]
    extents = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    parameters = sum(weights[name] for node in convolutions for name in node.input[1:])
    macs = sum(
        weights[node.input[1]] * math.prod(extents[node.output[0]][2:]) for node in convolutions
    )
    return parameters, macs
