"""Task `calibrate`: INT8 scales of an ONNX model, as a calibration cache for TensorRT.

The scales come from histograms of every activation over calibration images, run in float32 by
ONNX Runtime: no GPU and no TensorRT are needed. A scale is data about the network, the same on
every device; only the header of the cache names a TensorRT version.
"""

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from detectnet_v2.calibration_cache import activation_tensors, version_number, write_cache
from detectnet_v2.cores import job_threads
from detectnet_v2.errors import DetectNetError
from detectnet_v2.histogram import ActivationHistogram
from detectnet_v2.images import read_image, stretch
from detectnet_v2.progress import progress
from detectnet_v2.spec import load_experiment
from detectnet_v2.tensorfile import CalibrationBatches, count_batches, read_tensorfile
from detectnet_v2.whole_file import write_json

METHODS = ("entropy", "max", "percentile")
STEPS = 127
"""INT8 steps from zero to amax."""

# Each keeps all activations of a batch in memory: 0.3 GB for ResNet 18 at 960 x 544.
_MOST_WORKERS = 8
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
_VERSION_FIELD = "{version}"

logger = logging.getLogger(__name__)


def collect_histograms(
    model: onnx.ModelProto, images: Iterable[np.ndarray], *, workers: int | None = None
) -> dict[str, ActivationHistogram]:
    """Run a model over images and count the values of all its activations.

    Each worker runs whole images on one core and keeps histograms of its own, so that nothing
    waits; the sum does not depend on who ran what.

    Args:
        model: with one input (N, 3, H, W), float32.
        images: float32 (3, H, W) in 0..1, at the model's size.
        workers: threads; by default one a core, up to eight.

    Returns:
        A histogram for each of `activation_tensors(model)`.

    Raises:
        DetectNetError: when there are no images, their size does not fit, or the model yields
            values that are not finite.
    """
    session, names = _tapped_session(model)
    value = session.get_inputs()[0]
    shape = value.shape[1:]
    batch = value.shape[0] if isinstance(value.shape[0], int) else 1
    totals = {name: ActivationHistogram() for name in [value.name, *names]}
    workers = workers or min(job_threads(), _MOST_WORKERS)

    def count(mine: dict[str, ActivationHistogram], inputs: np.ndarray) -> None:
        outputs = session.run(names, {value.name: inputs})
        for name, values in zip([value.name, *names], [inputs, *outputs], strict=True):
            try:
                mine[name].add(values)
            except ValueError as error:
                raise DetectNetError(
                    f"the values of {name} are {error}: the model cannot be calibrated"
                ) from error

    pools = [{name: ActivationHistogram() for name in totals} for _ in range(workers)]
    seen = 0
    with ThreadPoolExecutor(workers) as executor:
        batches = _batches(images, batch, shape)
        # One batch a worker at a time: memory is bounded, and no lock is needed.
        while group := list(islice(batches, workers)):
            seen += sum(len(inputs) for inputs in group)
            list(executor.map(count, pools, group))
    if not seen:
        raise DetectNetError("no calibration images: see --cal_data_file and --cal_image_dir")
    for pool in pools:
        for name, histogram in pool.items():
            totals[name].merge(histogram)
    return totals


def ranges(
    model: onnx.ModelProto,
    histograms: Mapping[str, ActivationHistogram],
    *,
    method: str = "entropy",
    percentile: float = 99.99,
) -> dict[str, float]:
    """The largest magnitude that INT8 represents, for each activation.

    The network's input and what follows its last convolutions keep their whole range whatever the
    method: few cells see a face, and the rare large values of the heads are those cells.

    Args:
        model: the network.
        histograms: from `collect_histograms`.
        method: see `ActivationHistogram.amax`.
        percentile: see `ActivationHistogram.amax`.
    """
    whole = _heads(model) | {value.name for value in model.graph.input}
    return {
        name: histogram.amax("max" if name in whole else method, percentile=percentile)
        for name, histogram in histograms.items()
    }


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with one image input.

    Raises:
        DetectNetError: when it cannot be read or has other inputs.
    """
    if not path.is_file():
        raise DetectNetError(f"no ONNX file at {path}: make it with export")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise DetectNetError(
            f"{path} is damaged or no ONNX file ({str(error).splitlines()[0]}): export it again"
        ) from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise DetectNetError(f"{path}: expected one input (N, 3, H, W), found {len(inputs)}")
    return model


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which images to calibrate with, as in NVIDIA's `export`."""
    parser.add_argument("--cal_data_file", type=Path, help="tensorfile of calibration_tensorfile")
    parser.add_argument("--cal_image_dir", type=Path, help="folder of images to calibrate with")
    parser.add_argument("--batches", type=int, default=10, help="batches to calibrate with (10)")
    parser.add_argument("--batch_size", type=int, default=16, help="images of each batch (16)")
    parser.add_argument(
        "--calibration_method",
        choices=METHODS,
        default="entropy",
        help="how ranges are chosen (entropy; this toolkit only)",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calibrate`, a task of this toolkit only."""
    parser.add_argument("-m", "--model", type=Path, required=True, help="ONNX model")
    parser.add_argument(
        "-o",
        "--output_file",
        required=True,
        help=f"cache to write; {_VERSION_FIELD} in its name stands for the TensorRT version",
    )
    parser.add_argument(
        "--trt_version",
        nargs="+",
        required=True,
        help="TensorRT versions of the devices, such as 8.2.1; one cache each",
    )
    parser.add_argument("-e", "--experiment_spec", type=Path, help="spec: its training images")
    add_source_arguments(parser)
    parser.add_argument("--results_dir", type=Path, help="folder of calibration.json")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def run(args: argparse.Namespace) -> int:
    """Write one cache for each TensorRT version."""
    outputs = _outputs(args.output_file, args.trt_version)
    calibrate(load_onnx(args.model), outputs, args)
    return 0


def calibrate(
    model: onnx.ModelProto, outputs: Mapping[str, Path], args: argparse.Namespace
) -> None:
    """Calibrate a network and write the caches.

    Args:
        model: the network, with one input (N, 3, H, W).
        outputs: cache to write, by TensorRT version.
        args: with the flags of `add_source_arguments`, `experiment_spec` and `results_dir`.

    Raises:
        DetectNetError: for files or images that cannot be used.
    """
    for version in outputs:
        version_number(version)
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:])
    total, images = _images(args, height, width)
    histograms = collect_histograms(model, progress(images, total, "images", logger))
    amax = ranges(model, histograms, method=args.calibration_method)
    for version, output in outputs.items():
        write_cache(output, {name: value / STEPS for name, value in amax.items()}, version)
        logger.info("%s: scales of %d tensors for TensorRT %s", output, len(amax), version)
    if args.results_dir is not None:
        _write_report(args.results_dir / "calibration.json", histograms, amax, total, args)


def _tapped_session(
    model: onnx.ModelProto,
) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session that returns every value that a node computes, and their names."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    names = activation_tensors(model)[1:]
    tapped.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, names


def _batches(images: Iterable[np.ndarray], size: int, shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Stack images into batches of the size that the model takes; a rest is filled by repeating."""
    images = iter(images)
    while batch := list(islice(images, size)):
        for image in batch:
            if list(image.shape) != list(shape):
                raise DetectNetError(
                    f"a calibration image has the shape {tuple(image.shape)}, the model takes "
                    f"{tuple(shape)}: make the tensorfile with the spec that trained the model"
                )
        yield np.stack(batch + batch[:1] * (size - len(batch)))


def _heads(model: onnx.ModelProto) -> set[str]:
    """Outputs of the network and what leads to them from the last convolutions on."""
    producers = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    pending = [value.name for value in model.graph.output]
    while pending:
        name = pending.pop()
        found.add(name)
        if producers[name].op_type != "Conv":
            # Weights have no producer: another exporter may add a bias in a step of its own.
            pending.extend(source for source in producers[name].input if source in producers)
    return found


def _images(args: argparse.Namespace, height: int, width: int) -> tuple[int, Iterator[np.ndarray]]:
    """Number of images, and the images, from what the flags name."""
    if args.batches < 1 or args.batch_size < 1:
        raise DetectNetError(
            f"--batches {args.batches} --batch_size {args.batch_size}: both must be at least 1"
        )
    wanted = args.batches * args.batch_size
    if args.cal_data_file is not None:
        batches, size = count_batches(args.cal_data_file)
        if args.batches > batches or args.batch_size > size:
            raise DetectNetError(
                f"--batches {args.batches} --batch_size {args.batch_size}: {args.cal_data_file} "
                f"holds {batches} batches of {size}; ask for no more"
            )
        chosen = islice(read_tensorfile(args.cal_data_file), args.batches)
        return wanted, (image for batch in chosen for image in batch[: args.batch_size])
    if args.cal_image_dir is not None:
        return _folder_images(args.cal_image_dir, wanted, height, width)
    if args.experiment_spec is not None:
        experiment = load_experiment(args.experiment_spec)
        experiment.training_config.batch_size_per_gpu = args.batch_size
        chosen = CalibrationBatches(experiment, batches=args.batches)
        return wanted, (image for batch in chosen for image in batch)
    raise DetectNetError(
        "no calibration images: name a tensorfile (--cal_data_file), a folder (--cal_image_dir) or "
        "a spec (-e)"
    )


def _folder_images(
    folder: Path, wanted: int, height: int, width: int
) -> tuple[int, Iterator[np.ndarray]]:
    """The first images of a folder by name, stretched to the network's size."""
    if not folder.is_dir():
        raise DetectNetError(f"--cal_image_dir {folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    if len(paths) < wanted:
        raise DetectNetError(
            f"--cal_image_dir {folder}: {len(paths)} images (jpg, png), but --batches x "
            f"--batch_size is {wanted}: lower them"
        )

    def load(path: Path) -> np.ndarray:
        pixels = stretch(read_image(path), width, height)
        return pixels.transpose(2, 0, 1).astype(np.float32) / 255

    return wanted, map(load, paths[:wanted])


def _outputs(template: str, versions: Sequence[str]) -> dict[str, Path]:
    if len(set(versions)) > 1 and _VERSION_FIELD not in template:
        raise DetectNetError(
            f"-o {template}: with several TensorRT versions its name must hold {_VERSION_FIELD}"
        )
    return {version: Path(template.replace(_VERSION_FIELD, version)) for version in versions}


def _write_report(
    path: Path,
    histograms: Mapping[str, ActivationHistogram],
    amax: Mapping[str, float],
    images: int,
    args: argparse.Namespace,
) -> None:
    content = {
        "images": images,
        "method": args.calibration_method,
        "tensors": {
            name: {
                "amax": value,
                "maximum": histograms[name].maximum,
                "clipped": histograms[name].clipped(value),
            }
            for name, value in amax.items()
        },
    }
    write_json(path, content)
