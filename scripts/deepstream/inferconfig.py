"""Reads config_infer_primary.txt with nvinfer's rules: defaults, old names, warnings, refusals."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepstream import keyfile, keys
from deepstream.errors import DeepStreamError
from deepstream.labels import read_labels

log = logging.getLogger("deepstream")

GROUP_RECTANGLES, DBSCAN, NMS, HYBRID, NO_CLUSTERING = range(5)
_PRECISION = {0: "FP32", 1: "INT8", 2: "FP16", 3: "BEST"}


@dataclass(frozen=True)
class ClassAttributes:
    """Thresholds of one class; sizes and offsets in pixels of the streammux frame, 0 = no limit."""

    pre_cluster_threshold: float
    post_cluster_threshold: float
    eps: float
    min_boxes: int
    dbscan_min_score: float
    group_threshold: int
    nms_iou_threshold: float
    topk: int
    roi_top_offset: int
    roi_bottom_offset: int
    min_width: int
    min_height: int
    max_width: int
    max_height: int


@dataclass(frozen=True)
class InferConfig:
    """What nvinfer takes from its config file.

    `dims` is C, H, W or None for "as in the model"; `calibration` None without a readable cache.
    """

    path: Path
    model: Path
    model_key: str | None
    labels: tuple[str, ...]
    unique_id: int
    batch_size: int
    interval: int
    network_mode: int
    dims: tuple[int, int, int] | None
    output_names: tuple[str, ...]
    scale_factor: float
    offsets: tuple[float, ...]
    color_format: int
    maintain_aspect_ratio: bool
    symmetric_padding: bool
    cluster_mode: int
    classes: tuple[ClassAttributes, ...]
    filtered_classes: frozenset[int]
    calibration: Path | None = None

    @property
    def num_classes(self) -> int:
        """num-detected-classes."""
        return len(self.classes)

    def label(self, class_id: int) -> str:
        """Name of a class; nvinfer shows nothing for a class beyond its labels file."""
        return self.labels[class_id] if class_id < len(self.labels) else ""


def load(path: Path, *, overrides: dict[str, Any] | None = None) -> InferConfig:
    """Read an nvinfer config; `overrides` are keys set by deepstream-app, which win over the file.

    Raises DeepStreamError for what stops nvinfer, and for what this desk program cannot do
    (secondary inference, custom libraries); warns about unknown and deprecated keys.
    """
    groups = keyfile.read(path)
    if "property" not in groups:
        raise DeepStreamError(f"{path}: no [property] group, is this an nvinfer config?")
    _warn_about_keys(groups)
    values = _values(groups["property"], keys.PROPERTY)
    values.update({key: value for key, value in (overrides or {}).items() if value is not None})
    _refuse(path, values)
    count = values["num-detected-classes"]
    if count is None:
        raise DeepStreamError(f"{path}: num-detected-classes is missing from [property]")
    labels = ()
    if values["labelfile-path"]:
        labels = tuple(read_labels(_beside(path, values["labelfile-path"])))
    return InferConfig(
        path=path,
        model=_model_file(path, values),
        model_key=values["tlt-model-key"],
        labels=labels,
        unique_id=values["gie-unique-id"],
        batch_size=values["batch-size"],
        interval=values["interval"],
        network_mode=_network_mode(path, values),
        dims=_dims(groups["property"], values),
        output_names=tuple(values["output-blob-names"] or ()),
        scale_factor=values["net-scale-factor"],
        offsets=tuple(values["offsets"] or ()),
        color_format=values["model-color-format"],
        maintain_aspect_ratio=values["maintain-aspect-ratio"],
        symmetric_padding=values["symmetric-padding"],
        cluster_mode=_cluster_mode(path, values),
        classes=_class_attributes(path, groups, count, values),
        filtered_classes=frozenset(values["filter-out-class-ids"] or ()),
        calibration=_calibration(path, values),
    )


def default_attributes() -> ClassAttributes:
    """Return what holds for a class of which the config says nothing."""
    return _attributes({key.name: key.default for key in keys.CLASS_ATTRIBUTES.values()})


def _warn_about_keys(groups):
    for name, group in groups.items():
        if name != "property" and not name.startswith("class-attrs-"):
            log.warning("%s: group [%s] is not nvinfer's, ignored", group.path, name)
            continue
        for key in group.values:
            known = keys.nvinfer_key(name, key)
            if known is None:
                log.warning(
                    "%s: unknown or legacy key specified '%s' for group [%s]",
                    group.place(key),
                    key,
                    name,
                )
            elif known.instead:
                log.warning(
                    "%s: '%s' has been deprecated, use '%s' instead",
                    group.place(key),
                    key,
                    known.instead,
                )


def _values(group, table):
    """Typed values of one group, defaults filled in, ranges checked."""
    return {name: typed(group, key) for name, key in table.items()}


def typed(group: keyfile.Group, key: keys.Key) -> Any:
    """Return a key's value from a group as its kind, or its default when it is absent."""
    if key.name not in group:
        return key.default
    read = {
        keys.INTEGER: group.integer,
        keys.NUMBER: group.number,
        keys.BOOLEAN: group.boolean,
        keys.INTEGERS: group.integers,
        keys.NUMBERS: group.numbers,
        keys.TEXTS: group.items,
    }.get(key.kind, group.text)
    # What the desk does not act on is not judged either: the device's parser does that.
    if not key.desk:
        read = group.text
    value = read(key.name)
    if key.desk and isinstance(value, (int, float)):
        if key.low is not None and value < key.low:
            raise group.error(key.name, f"at least {key.low:g}")
        if key.high is not None and value > key.high:
            raise group.error(key.name, f"at most {key.high:g}")
    return value


def _refuse(path, values):
    if values["process-mode"] != 1:
        raise DeepStreamError(f"{path}: process-mode=2: secondary inference does not run here")
    network_type = values["network-type"]
    if values["is-classifier"] is not None:
        network_type = values["is-classifier"]
    if network_type != 0:
        raise DeepStreamError(f"{path}: network-type={network_type}: only detectors (0) run here")
    for key in ("parse-bbox-func-name", "engine-create-func-name", "mean-file"):
        if values[key]:
            raise DeepStreamError(f"{path}: {key}={values[key]}: not available off the device")
    if values["network-input-order"] == 1:
        raise DeepStreamError(f"{path}: network-input-order=1: only NCHW models (0) run here")
    if values["input-tensor-from-meta"]:
        raise DeepStreamError(f"{path}: input-tensor-from-meta=1 needs nvdspreprocess")


def _beside(path, name):
    """Resolve a path as nvinfer does: relative to the config file's folder."""
    return path.parent / name


def _model_file(path, values):
    name = values["onnx-file"] or values["tlt-encoded-model"]
    if not name:
        raise DeepStreamError(f"{path}: neither onnx-file nor tlt-encoded-model in [property]")
    model = _beside(path, name)
    if not model.is_file():
        raise DeepStreamError(f"{path}: model {model} does not exist")
    return model


def _calibration(path, values):
    name = values["int8-calib-file"]
    return _beside(path, name) if name and _beside(path, name).is_file() else None


def _network_mode(path, values):
    mode = values["network-mode"]
    if mode == 1 and _calibration(path, values) is None:
        log.warning(
            "%s: network-mode=1 without a readable int8-calib-file: devices fall back to FP16",
            path,
        )
    if mode != 0:
        log.info("%s: network-mode=%d (%s) runs in FP32 here", path, mode, _PRECISION[mode])
    return mode


def _dims(group, values):
    for key, length in (("infer-dims", 3), ("input-dims", 4), ("uff-input-dims", 4)):
        dims = values[key]
        if dims is None:
            continue
        if len(dims) != length or any(size < 1 for size in dims[:3]):
            raise group.error(
                key, f"{length} sizes, channels;height;width{';order' * (length - 3)}"
            )
        if length == 4 and dims[3] != 0:
            raise group.error(key, "an NCHW shape (order 0)")
        return tuple(dims[:3])
    return None


def _cluster_mode(path, values):
    mode = values["cluster-mode"]
    if values["enable-dbscan"]:
        mode = DBSCAN
    if mode == GROUP_RECTANGLES:
        log.warning(
            "%s: cluster-mode 0 (also the default) needs an OpenCV build; since DeepStream 6.0 it "
            "becomes NMS with topk=20 and nms-iou-threshold=0.5 for every class",
            path,
        )
    return mode


def _class_attributes(path, groups, count, values):
    merged = [{} for _ in range(count)]
    named = {}
    for name, group in groups.items():
        if not name.startswith("class-attrs-"):
            continue
        suffix = name.removeprefix("class-attrs-")
        if suffix == "all":
            continue
        if not suffix.isdigit():
            raise DeepStreamError(f"{path}: [{name}]: expected class-attrs-all or a class id")
        if int(suffix) >= count:
            raise DeepStreamError(f"{path}: [{name}]: num-detected-classes is {count}")
        named[int(suffix)] = group
    for class_id, attributes in enumerate(merged):
        attributes.update({key.name: key.default for key in keys.CLASS_ATTRIBUTES.values()})
        for group in (groups.get("class-attrs-all"), named.get(class_id)):
            if group is not None:
                attributes.update(_present(group))
    fixed = {}
    if _resolved_to_nms(values):
        fixed = {"topk": 20, "nms-iou-threshold": 0.5}
    return tuple(_attributes({**attributes, **fixed}) for attributes in merged)


def _resolved_to_nms(values):
    return values["cluster-mode"] == GROUP_RECTANGLES and not values["enable-dbscan"]


def _present(group):
    found = {name: typed(group, keys.CLASS_ATTRIBUTES[name]) for name in _known(group)}
    if "threshold" in found:
        found.setdefault("pre-cluster-threshold", found["threshold"])
    return found


def _known(group):
    return [name for name in group.values if name in keys.CLASS_ATTRIBUTES]


def _attributes(values):
    return ClassAttributes(
        pre_cluster_threshold=values["pre-cluster-threshold"],
        post_cluster_threshold=values["post-cluster-threshold"],
        eps=values["eps"],
        min_boxes=values["minBoxes"],
        dbscan_min_score=values["dbscan-min-score"],
        group_threshold=values["group-threshold"],
        nms_iou_threshold=values["nms-iou-threshold"],
        topk=values["topk"],
        roi_top_offset=values["roi-top-offset"],
        roi_bottom_offset=values["roi-bottom-offset"],
        min_width=values["detected-min-w"],
        min_height=values["detected-min-h"],
        max_width=values["detected-max-w"],
        max_height=values["detected-max-h"],
    )
