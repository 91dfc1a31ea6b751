"""Renders ds_configs/ for one device, model and engine, and lays out the folder that is deployed.

Classes, sizes, thresholds, precision and file names enter once, here; the templates hold the rest.
Every key is checked against `deepstream.keys` for the device's DeepStream.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepstream import keyfile, keys
from deepstream.devices import Device, check_precision, dla_core
from deepstream.errors import DeepStreamError
from deepstream.inferconfig import DBSCAN, HYBRID, NMS
from deepstream.labels import check_class_names
from deepstream.releases import version_order

log = logging.getLogger("deepstream")

INFER_CONFIG, LABELS = "config_infer_primary.txt", "labels.txt"
BENCHMARK, VIDEO = "app.txt", "app_video.txt"
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
# What nvinfer does with boxes is one number a class; these are the keys that clustering.json holds.
_CLUSTER_KEYS = {
    NMS: ("pre-cluster-threshold", "post-cluster-threshold", "nms-iou-threshold", "topk"),
    DBSCAN: ("pre-cluster-threshold", "post-cluster-threshold", "eps", "minBoxes", "topk"),
}
_CLUSTER_KEYS[HYBRID] = (*_CLUSTER_KEYS[DBSCAN], "nms-iou-threshold")
# Green, red, blue, yellow: the first two are mask and no-mask.
_COLORS = ((0, 1, 0, 1), (1, 0, 0, 1), (0, 0, 1, 1), (1, 1, 0, 1))
_CAMERAS = {"v4l2": (1, "V4L2 camera"), "csi": (5, "CSI camera"), "rtsp": (4, "RTSP camera")}
_CAMERA_DEFAULTS = {"device": 0, "width": 1280, "height": 720, "fps": 30, "uri": ""}


@dataclass(frozen=True)
class Model:
    """The exported model: `file` is its name in the release, `dims` are channels, height, width.

    `batch` is the batch size that the export fixed, None for an open one.
    """

    name: str
    file: str
    dims: tuple[int, int, int]
    output_names: tuple[str, ...]
    batch: int | None = None

    @property
    def key(self) -> str:
        """The nvinfer key that names this kind of file."""
        return "tlt-encoded-model" if self.file.endswith(".etlt") else "onnx-file"


@dataclass(frozen=True)
class Video:
    """What the app configs show: `clip` is a URI, sizes in pixels of the muxed frames."""

    clip: str
    width: int
    height: int
    streams: int = 1
    perf_interval_s: int = 5
    tracker: bool = False
    cameras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_model(onnx_file: Path, name: str, *, shipped: str) -> Model:
    """Take the network's size and outputs from its ONNX.

    `shipped` is the deployed file's name, which may be an .etlt of the same network.
    Raises DeepStreamError when the ONNX has no fixed size or not the parser's two outputs.
    """
    import onnx  # noqa: PLC0415

    try:
        graph = onnx.load(onnx_file, load_external_data=False).graph
    # protobuf's DecodeError is not a public name.
    except Exception as error:
        raise DeepStreamError(f"{onnx_file}: not an ONNX model: {error}") from error
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = [value.name for value in graph.output]
    for part in ("bbox", "cov"):
        if sum(part in output for output in outputs) != 1:
            raise DeepStreamError(
                f"{onnx_file}: nvinfer's parser needs one output with {part!r} in its name, "
                f"found {', '.join(outputs)}"
            )
    batch, *dims = (size.dim_value for size in inputs[0].type.tensor_type.shape.dim)
    if len(inputs) != 1 or len(dims) != 3 or not all(dims):
        raise DeepStreamError(f"{onnx_file}: expected one input N,C,H,W of a fixed size")
    return Model(name, shipped, tuple(dims), tuple(outputs), batch=batch or None)


def engine_file(model: str, batch_size: int, engine: str, precision: str) -> str:
    """Name the TensorRT engine as nvinfer does, so that a second start finds the first one's."""
    unit = "gpu0" if engine == "gpu" else engine
    return f"{model}_b{batch_size}_{unit}_{precision}.engine"


def render(
    device: Device,
    *,
    engine: str,
    model: Model,
    classes: list[str],
    clustering: Mapping[str, Any],
    video: Video,
    templates: Path,
    precision: str | None = None,
    precision_note: str = "",
    calibration: str | None = None,
) -> dict[str, str]:
    """Render every config of one release: file name -> text.

    `clustering` is the content of clustering.json: cluster-mode and, under `classes`, each class's
    keys; under `dbscan` those that replace them in modes 1 and 3.
    `precision` is the device's own without one; `precision_note` says why, beside it.
    `calibration` is the calibration cache's name in the release, needed for int8.
    Raises DeepStreamError when the device cannot run what is asked for.
    """
    precision = precision or device.precision
    check_class_names(classes)
    check_precision(device, precision)
    _check_model(device, model, video.streams, engine)
    if precision == "int8" and not calibration:
        raise DeepStreamError(
            f"deploy.devices.{device.name}.precision: int8 needs a calibration cache, "
            f"nvinfer would silently run FP16 without one"
        )
    mode = int(clustering.get("cluster-mode", NMS))
    context = {
        "device": device,
        "engine": engine,
        "model": model,
        "classes": classes,
        "batch_size": video.streams,
        "network_mode": NETWORK_MODES[precision],
        "precision_note": precision_note,
        "calibration": calibration if precision == "int8" else None,
        "dla_core": dla_core(device, engine, precision),
        "engine_file": engine_file(model.file, video.streams, engine, precision),
        "cluster_mode": mode,
        "class_attributes": _class_attributes(classes, clustering, mode),
        "clip": video.clip,
        "width": video.width,
        "height": video.height,
        "streams": video.streams,
        "perf_interval_s": video.perf_interval_s,
        "colors": [_COLORS[index % len(_COLORS)] for index in range(len(classes))],
        "enc_type": 0 if device.hardware_encoder else 1,
        "tracker": tracker(device) if video.tracker else None,
    }
    environment = _environment(templates)
    files = {name: (f"{name}.j2", {}) for name in (INFER_CONFIG, LABELS, BENCHMARK, VIDEO)}
    for kind in _CAMERAS:
        camera = _camera(kind, video.cameras.get(kind) or {})
        files[f"app_camera_{kind}.txt"] = ("app_camera.txt.j2", {"camera": camera})
    texts = {}
    for name, (template, extra) in files.items():
        text = environment.get_template(template).render(**context, **extra)
        texts[name] = text if name == LABELS else _keep_known(text, name, template, device)
    return texts


def write_release(folder: Path, texts: Mapping[str, str], files: Mapping[str, Path]) -> None:
    """Write rendered configs and copy the files that they name, each whole or not at all.

    `files` maps a name in the release to the file to copy. What an earlier release had in their
    place, such as the open model beside an encrypted one, is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("model.onnx", "model.etlt", "calibration.*.bin"):
        for path in folder.glob(pattern):
            if path.name not in files:
                path.unlink()
    for name, source in files.items():
        partial = folder / f"{name}.part"
        shutil.copyfile(source, partial)
        os.replace(partial, folder / name)
    for name, text in texts.items():
        partial = folder / f"{name}.part"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, folder / name)


def tracker(device: Device) -> dict[str, str]:
    """Return library and config of the IOU tracker that the device's DeepStream ships with."""
    root = "/opt/nvidia/deepstream/deepstream"
    samples = f"{root}/samples/configs/deepstream-app"
    if device.release.order < version_order("6.0"):
        return {
            "library": f"{root}/lib/libnvds_mot_iou.so",
            "config": f"{samples}/iou_config.txt",
        }
    return {
        "library": f"{root}/lib/libnvds_nvmultiobjecttracker.so",
        "config": f"{samples}/config_tracker_IOU.yml",
    }


def _environment(templates):
    import jinja2  # noqa: PLC0415

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _check_model(device, model, streams, engine):
    where = f"deploy.devices.{device.name}"
    if model.key == "tlt-encoded-model" and not device.accepts_etlt:
        raise DeepStreamError(
            f"{where}: DeepStream {device.deepstream} (TensorRT {device.tensorrt}) is not known to "
            f"load .etlt models, deploy the .onnx"
        )
    if model.batch not in (None, streams):
        raise DeepStreamError(
            f"{where}.streams: {streams}, but the model was exported for batches of {model.batch}"
        )
    if engine != "gpu" and streams > 1 and model.batch is None:
        # A DLA takes no dynamic dimension: smallest and largest batch of the engine must be equal.
        log.warning(
            "%s: %s with %d streams: TensorRT keeps an open batch dimension off the DLA and runs "
            "such layers on the GPU; export with a fixed batch size of %d",
            where,
            engine,
            streams,
            streams,
        )


def _class_attributes(classes, clustering, mode):
    if mode not in _CLUSTER_KEYS:
        raise DeepStreamError(
            f"cluster-mode {mode}: known are {', '.join(map(str, _CLUSTER_KEYS))}"
        )
    attributes = []
    for name in classes:
        given = clustering.get("classes", {}).get(name)
        if given is None:
            raise DeepStreamError(f"clustering: no entry for class {name!r}")
        if mode != NMS:
            given = {**given, **clustering.get("dbscan", {}).get(name, {})}
        missing = [key for key in _CLUSTER_KEYS[mode] if key not in given and key != "topk"]
        if missing:
            raise DeepStreamError(f"clustering: class {name!r} lacks {', '.join(missing)}")
        # nvinfer skips DBSCAN without a word when minBoxes is 0, and shows raw grid cells.
        if mode != NMS and given["minBoxes"] < 1:
            raise DeepStreamError(f"clustering: class {name!r}: minBoxes must be 1 or more")
        chosen = {key: given[key] for key in _CLUSTER_KEYS[mode] if key in given}
        # The default, "all", is -1, which nvinfer refuses when it is written.
        if chosen.get("topk", -1) < 0:
            chosen.pop("topk", None)
        attributes.append({key: f"{value:.6g}" for key, value in chosen.items()})
    return attributes


def _camera(kind, settings):
    number, title = _CAMERAS[kind]
    unknown = sorted(set(settings) - set(_CAMERA_DEFAULTS))
    if unknown:
        raise DeepStreamError(
            f"deploy.cameras.{kind}: {', '.join(unknown)} unknown, "
            f"known: {', '.join(_CAMERA_DEFAULTS)}"
        )
    camera = {**_CAMERA_DEFAULTS, **settings, "type": number, "title": title}
    if kind == "rtsp" and not camera["uri"]:
        camera["uri"] = "rtsp://127.0.0.1:8554/camera"
    return camera


def _keep_known(text, name, template, device):
    """Drop the lines whose key the device's DeepStream does not know.

    Raises DeepStreamError for a key that no version knows: a mistake in the template.
    """
    groups = keyfile.parse(text, Path(name))
    find = keys.nvinfer_key if name == INFER_CONFIG else keys.app_key
    dropped = set()
    for group_name, group in groups.items():
        for key, line in group.lines.items():
            known = find(group_name, key)
            if known is None:
                raise DeepStreamError(f"{template}: no DeepStream knows {key} in [{group_name}]")
            if not known.known_to(device.deepstream):
                dropped.add(line)
    lines = text.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines, start=1) if number not in dropped)
