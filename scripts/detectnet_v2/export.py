"""Task `export`: write a model as ONNX, with NVIDIA's flags and tensor names."""

import argparse
import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from detectnet_v2.calibrate import add_source_arguments, calibrate
from detectnet_v2.calibration_cache import activation_tensors, check_coverage, read_cache
from detectnet_v2.dataset import target_classes
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_model
from detectnet_v2.onnx_graph import onnx_model
from detectnet_v2.spec import load_experiment
from detectnet_v2.status import task_status
from detectnet_v2.whole_file import refuse_existing, whole_file, write_text

# 1/255 as the float32 that nvinfer multiplies pixels with.
NET_SCALE_FACTOR = "0.0039215697906911373"
OUTPUTS = "bbox", "cov"
TOLERANCE = 1e-4
ROUNDING = 4
_ROUTE_SUFFIXES = {"keras2onnx": "", "tf2onnx": ":0"}

logger = logging.getLogger(__name__)


def export_onnx(
    model: DetectNetV2,
    path: Path,
    *,
    opset: int = 11,
    batch_size: int | None = None,
    suffix: str = "",
) -> None:
    """Write a model as ONNX after comparing ONNX Runtime's output with PyTorch's.

    Args:
        model: the model, in evaluation mode.
        path: a file that does not exist yet; it appears only when the outputs agree.
        opset: see `onnx_model`.
        batch_size: see `onnx_model`.
        suffix: see `onnx_model`.

    Raises:
        DetectNetError: when the file exists, cannot be written, or computes something else.
    """
    refuse_existing(path)
    content = onnx_model(model, opset=opset, batch_size=batch_size, suffix=suffix)
    with whole_file(path) as part:
        part.write_bytes(content.SerializeToString(deterministic=True))
        for output, (difference, tolerance) in differences(model, part).items():
            # Also refuses NaN.
            if not difference <= tolerance:
                raise DetectNetError(
                    f"the ONNX of {path} computes something else than the model: {output} differs "
                    f"by {difference:.3g}, allowed is {tolerance:.3g}; the model's weights may be "
                    "infinite or NaN"
                )
            logger.info("%s of ONNX Runtime and PyTorch differ by %.2g", output, difference)


def differences(model: DetectNetV2, path: Path) -> dict[str, tuple[float, float]]:
    """Compare an ONNX file with the model it was made from, on a fixed random image.

    Outputs must agree within 1e-4: of a coverage in 0..1, or of a box's side in units of the box
    scale, where it is 0.0035 pixels. A network that was not trained may have sides of thousands of
    pixels, of which float32 itself computes fewer digits. Where the outputs differ by more, both
    are therefore held against float64: the ONNX file may be farther away than 1e-4 when PyTorch's
    float32 is so too, by `ROUNDING` times as much.

    Returns:
        For bbox and cov the largest absolute difference, and the largest that is allowed.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    shape = (batch if isinstance(batch, int) else 1, 3, model.input_height, model.input_width)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    actual = session.run(None, {session.get_inputs()[0].name: images})
    expected = _outputs(model, images)
    result = {
        name: (_largest(ours - theirs), TOLERANCE)
        for name, ours, theirs in zip(OUTPUTS, actual, expected, strict=True)
    }
    if all(difference <= tolerance for difference, tolerance in result.values()):
        return result
    exact = _outputs(copy.deepcopy(model).double(), images.astype(np.float64))
    return {
        name: (_largest(ours - truth), max(TOLERANCE, ROUNDING * _largest(theirs - truth)))
        for name, ours, theirs, truth in zip(OUTPUTS, actual, expected, exact, strict=True)
    }


def _outputs(model: DetectNetV2, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in model(torch.from_numpy(images))]


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def write_ds_config(
    folder: Path, names: Sequence[str], *, height: int, width: int, key: str | None = None
) -> None:
    """Write labels.txt and nvinfer_config.txt, the part of nvinfer's settings that the model fixes.

    Args:
        folder: where both go.
        names: classes in channel order.
        height: of the network's input in pixels.
        width: of the network's input in pixels.
        key: `tlt-model-key`, left out when None; plain ONNX needs none.
    """
    settings = {
        "net-scale-factor": NET_SCALE_FACTOR,
        "offsets": "0.0;0.0;0.0",
        "infer-dims": f"3;{height};{width}",
        **({} if key is None else {"tlt-model-key": key}),
        "network-type": "0",
        "num-detected-classes": str(len(names)),
        "model-color-format": "0",
        "maintain-aspect-ratio": "0",
        "output-tensor-meta": "0",
    }
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in names))
    write_text(
        folder / "nvinfer_config.txt",
        "".join(f"{name}={value}\n" for name, value in settings.items()),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NVIDIA's flags of `export`, those of earlier toolkits included."""
    parser.add_argument("-m", "--model", type=Path, required=True, help="model (.hdf5)")
    parser.add_argument("-k", "--key", help="only written to nvinfer_config.txt")
    parser.add_argument(
        "-o", "--output_file", type=Path, help="ONNX file (the model's name with .onnx, beside it)"
    )
    parser.add_argument("-e", "--experiment_spec", type=Path, help="spec that names the classes")
    parser.add_argument(
        "--gen_ds_config", action="store_true", help="write labels.txt and nvinfer_config.txt"
    )
    parser.add_argument(
        "--static_batch_size",
        type=int,
        default=-1,
        help="images a batch; 0 or less leaves it open (-1)",
    )
    parser.add_argument(
        "--target_opset", type=int, default=11, help="ONNX operator set (11, for TensorRT 7.1)"
    )
    parser.add_argument(
        "--onnx_route",
        choices=sorted(_ROUTE_SUFFIXES),
        default="keras2onnx",
        help="whose tensor names: tf2onnx appends :0 (keras2onnx)",
    )
    parser.add_argument("--results_dir", type=Path, help="folder of status.json")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument(
        "--data_type",
        choices=["fp32", "fp16", "int8"],
        default="fp32",
        help="int8 also writes a calibration cache; the ONNX file is float32 in any case (fp32)",
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--cal_cache_file",
        type=Path,
        default=Path("cal.bin"),
        help="calibration cache of int8; one that is there is kept if it fits (./cal.bin)",
    )
    parser.add_argument(
        "--trt_version",
        default="8.5.2",
        help="TensorRT version in the cache's header (8.5.2; this toolkit only)",
    )
    parser.add_argument("--cal_json_file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--max_batch_size", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--min_batch_size", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--opt_batch_size", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--max_workspace_size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine_file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "-s", "--strict_type_constraints", action="store_true", help=argparse.SUPPRESS
    )
    parser.add_argument("--force_ptq", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Export `args.model`."""
    output = args.output_file or args.model.with_suffix(".onnx")
    if output.suffix != ".onnx":
        output = output.with_name(f"{output.name}.onnx")
    with task_status(args.results_dir, "DetectNet_v2 export"):
        _refuse_engines(args)
        refuse_existing(output)
        names = None if args.experiment_spec is None else _classes(args.experiment_spec)
        model = load_model(args.model, classes=names)
        if args.gen_ds_config and (names := names or model.class_names) is None:
            raise DetectNetError(
                f"--gen_ds_config: {args.model} does not hold the names of its classes, give the "
                "spec that trained it with -e"
            )
        options = {
            "opset": args.target_opset,
            "batch_size": args.static_batch_size if args.static_batch_size > 0 else None,
            "suffix": _ROUTE_SUFFIXES[args.onnx_route],
        }
        if args.data_type == "int8":
            _calibrate(onnx_model(model, **options), args)
        export_onnx(model, output, **options)
        logger.info("ONNX model: %s", output)
        if args.gen_ds_config:
            write_ds_config(
                output.parent,
                names,
                height=model.input_height,
                width=model.input_width,
                key=args.key,
            )
            logger.info("DeepStream settings: labels.txt, nvinfer_config.txt in %s", output.parent)
    return 0


def _calibrate(network: onnx.ModelProto, args: argparse.Namespace) -> None:
    """Write the calibration cache, or check the one that is there, which NVIDIA's export reuses."""
    path = args.cal_cache_file
    if path.exists():
        check_coverage(read_cache(path), activation_tensors(network), str(path))
        logger.info("Calibration cache that was there: %s", path)
    else:
        calibrate(network, {args.trt_version: path}, args)


def _refuse_engines(args: argparse.Namespace) -> None:
    """Name what this toolkit cannot do; flags that only tune an engine are taken and ignored."""
    if args.engine_file is not None:
        raise DetectNetError(
            f"--engine_file {args.engine_file}: building an engine needs TensorRT; let nvinfer or "
            "trtexec build it on the device from the ONNX file"
        )
    if args.cal_json_file is not None:
        raise DetectNetError(
            f"--cal_json_file {args.cal_json_file}: scales of quantisation-aware training need a "
            "model trained with enable_qat under NVIDIA's toolkit"
        )


def _classes(spec: Path) -> list[str]:
    return target_classes(load_experiment(spec))
