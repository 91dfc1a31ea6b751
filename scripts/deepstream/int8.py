"""INT8 on a device: which cache fits, what the loss of accuracy allows, a simulation."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectnet_v2.calibrate import load_onnx
from detectnet_v2.calibration_cache import (
    ALGORITHM,
    activation_tensors,
    check_coverage,
    read_cache,
    version_number,
)
from detectnet_v2.quantize import quantize

from deepstream.devices import Device
from deepstream.errors import DeepStreamError
from deepstream.inferconfig import InferConfig
from deepstream.network import load_model

log = logging.getLogger("deepstream")


def check_cache(path: Path, device: Device, onnx: Path) -> None:
    """Check that a device's TensorRT takes a calibration cache for a network.

    TensorRT says nothing of a cache that does not fit: it skips it, or runs the layers without a
    scale in a higher precision.

    Raises:
        DeepStreamError: for the header of another TensorRT or algorithm.
        DetectNetError: when the cache is damaged or lacks one of the network's tensors.
    """
    cache = read_cache(path)
    if (cache.version, cache.algorithm) != (version_number(device.tensorrt), ALGORITHM):
        raise DeepStreamError(
            f"{path}: its header says TRT-{cache.version}-{cache.algorithm}, the TensorRT "
            f"{device.tensorrt} of deploy.devices.{device.name} takes "
            f"TRT-{version_number(device.tensorrt)}-{ALGORITHM}: calibrate for it"
        )
    check_coverage(cache, activation_tensors(load_onnx(onnx)), str(path))


def judge(
    fp32: Mapping[str, Any], int8: Mapping[str, Any], *, max_drop: float, images: int
) -> dict[str, Any]:
    """Return what int8.json holds, from the figures of both precisions (mAP and AP in percent)."""
    drop = round(fp32["mAP"] - int8["mAP"], 4)
    return {
        "images": images,
        "fp32": dict(fp32),
        "int8": dict(int8),
        "drop": drop,
        "max_int8_drop": max_drop,
        "passed": bool(drop <= max_drop),
    }


def read_judgement(path: Path) -> dict[str, Any]:
    """Read int8.json, raising DeepStreamError when it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sentence(found)
        bool(found["passed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeepStreamError(f"{path}: not an int8.json: {error}") from error
    return found


def settle_precision(device: Device, judgement: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the precision that a device gets, and a line on why where it has something to say.

    INT8 that loses more than export.max_int8_drop becomes FP16.
    """
    if device.precision != "int8":
        return device.precision, ""
    if judgement is not None and not judgement["passed"]:
        return "fp16", f"FP16 instead of INT8, which {sentence(judgement)}"
    notes = [f"INT8 {sentence(judgement)}"] if judgement is not None else []
    if device.release.deprecates_calibration:
        notes.append(
            f"TensorRT {device.tensorrt} deprecates calibration caches: see in the log of the "
            "engine build that it takes this one"
        )
    return "int8", "; ".join(notes)


def sentence(judgement: Mapping[str, Any]) -> str:
    """Say what INT8 costs, to stand after "INT8"."""
    fp32, int8 = judgement["fp32"]["mAP"], judgement["int8"]["mAP"]
    verb = "loses" if judgement["drop"] >= 0 else "gains"
    return (
        f"{verb} {abs(judgement['drop']):.2f} points of mAP ({fp32:.2f} to {int8:.2f}, simulated), "
        f"export.max_int8_drop allows {judgement['max_int8_drop']:g}"
    )


def simulated(config: InferConfig, calibration: Path, folder: Path) -> InferConfig:
    """Return the config of an INT8 simulation: its model with Q/DQ nodes, written into `folder`.

    Raises:
        DeepStreamError: when the model cannot be opened.
        DetectNetError: when the cache is damaged or lacks one of the network's tensors.
    """
    model = load_model(config.model, config.model_key)
    source = Path(folder, "fp32.onnx") if isinstance(model, bytes) else Path(model)
    if isinstance(model, bytes):
        source.write_bytes(model)
    network = load_onnx(source)
    cache = read_cache(calibration)
    check_coverage(cache, activation_tensors(network), str(calibration))
    target = Path(folder, "int8.onnx")
    target.write_bytes(quantize(network, cache).SerializeToString(deterministic=True))
    return replace(config, model=target, network_mode=0)
