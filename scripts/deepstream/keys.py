"""Every key of nvinfer's and deepstream-app's configs: kind, default and the versions that know it.

This is the only place that holds those facts: the renderer drops what a version does not know, the
reader warns about what none knows and fills in the defaults from here.

Sources: NVIDIA's Apache-2.0 DeepStream 9.1 parsers and the plugin manuals 5.0 to 9.1. Where a first
version could not be established the table says the newest that is possible, which only means that
an older device does not get the key.
"""

from dataclasses import dataclass
from typing import Any

from deepstream.releases import version_order

INTEGER, NUMBER, TEXT, PATH, BOOLEAN = "integer", "number", "text", "path", "boolean"
INTEGERS, NUMBERS, TEXTS = "integers", "numbers", "texts"


@dataclass(frozen=True)
class Key:
    """One key: `since` and `until` are the first and last DeepStream in which it has an effect.

    `desk` is false for keys that the desk program reads past, because they only concern hardware,
    closed libraries or plugins that are not here. `instead` names the key that replaced it.
    """

    name: str
    kind: str
    default: Any = None
    since: str = "5.0"
    until: str | None = None
    low: float | None = None
    high: float | None = None
    desk: bool = True
    instead: str | None = None

    def known_to(self, version: str) -> bool:
        """Tell whether a DeepStream version knows the key and acts on it."""
        order = version_order(version)
        if order < version_order(self.since):
            return False
        return self.until is None or order <= version_order(self.until)


def _table(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


def _unused(kind: str, *names: str, since: str = "5.0", until: str | None = None) -> list[Key]:
    return [Key(name, kind, since=since, until=until, desk=False) for name in names]


# Caffe and UFF models died with TensorRT 10, which DeepStream 7.1 brought to Jetson.
_LAST_UFF = "7.0"

PROPERTY = _table(
    Key("gpu-id", INTEGER, 0, low=0, desk=False),
    Key("gie-unique-id", INTEGER, 15, low=1),
    Key("process-mode", INTEGER, 1, low=1, high=2),
    Key("network-type", INTEGER, 0, low=0, high=100),
    Key("is-classifier", INTEGER, None, instead="network-type"),
    Key("interval", INTEGER, 0, low=0),
    Key("labelfile-path", PATH),
    Key("onnx-file", PATH),
    Key("tlt-encoded-model", PATH),
    Key("tlt-model-key", TEXT),
    Key("int8-calib-file", PATH),
    Key("model-engine-file", PATH, desk=False),
    Key("batch-size", INTEGER, 1, low=1, high=1024),
    Key("network-mode", INTEGER, 0, low=0, high=3),
    Key("workspace-size", INTEGER, 450, until="9.0", low=0, desk=False),
    Key("infer-dims", INTEGERS),
    Key("input-dims", INTEGERS, None, instead="infer-dims"),
    Key("uff-input-dims", INTEGERS, None, until=_LAST_UFF, instead="infer-dims"),
    Key("uff-input-order", INTEGER, 0, until=_LAST_UFF, low=0, high=2, desk=False),
    Key("uff-input-blob-name", TEXT, None, until=_LAST_UFF, desk=False),
    Key("force-implicit-batch-dim", INTEGER, 0, until=_LAST_UFF, desk=False),
    Key("output-blob-names", TEXTS),
    Key("network-input-order", INTEGER, 0, low=0, high=1),
    Key("net-scale-factor", NUMBER, 1.0, low=0.0),
    Key("offsets", NUMBERS),
    Key("mean-file", PATH),
    Key("model-color-format", INTEGER, 0, low=0, high=2),
    Key("maintain-aspect-ratio", BOOLEAN, False),
    Key("symmetric-padding", BOOLEAN, False, since="5.1"),
    Key("scaling-filter", INTEGER, None, desk=False),
    Key("scaling-compute-hw", INTEGER, None, desk=False),
    Key("num-detected-classes", INTEGER, None, low=1),
    Key("cluster-mode", INTEGER, 0, low=0, high=4),
    Key("enable-dbscan", BOOLEAN, None, instead="cluster-mode"),
    Key("filter-out-class-ids", INTEGERS),
    Key("enable-dla", BOOLEAN, False, desk=False),
    Key("use-dla-core", INTEGER, 0, low=0, desk=False),
    Key("parse-bbox-func-name", TEXT),
    Key("custom-lib-path", PATH),
    Key("engine-create-func-name", TEXT),
    Key("input-tensor-from-meta", BOOLEAN, False, since="6.1"),
    Key("crop-objects-to-roi-boundary", INTEGER, 0, since="6.2", desk=False),
    *_unused(PATH, "model-file", "proto-file", "uff-file", until=_LAST_UFF),
    *_unused(
        TEXT,
        "parse-func",
        "output-io-formats",
        "layer-device-precision",
        "parse-classifier-func-name",
        "parse-segmentation-func-name",
        "parse-bbox-instance-mask-func-name",
        "custom-network-config",
        "classifier-type",
        "operate-on-class-ids",
    ),
    *_unused(
        NUMBER,
        "classifier-threshold",
        "segmentation-threshold",
        "output-instance-mask",
        "output-tensor-meta",
        "classifier-async-mode",
        "segmentation-output-order",
        "secondary-reinfer-interval",
        "input-object-min-width",
        "input-object-min-height",
        "input-object-max-width",
        "input-object-max-height",
        "operate-on-gie-id",
    ),
    *_unused(
        TEXT,
        "auto-inc-mem",
        "max-gpu-mem-per",
        "dump-input-tensor",
        "dump-output-tensor",
        "overwrite-input-tensor",
        "overwrite-output-tensor",
        "ip-tensor-file",
        "op-tensor-files",
        "raw-output-file-write",
        "disable-output-host-copy",
        "tensor-meta-pool-size",
        since="7.1",
    ),
    *_unused(
        TEXT,
        "strongly-typed",
        "dynamic-properties",
        "warmup-engine",
        "stabilize-buffer-count",
        since="9.0",
    ),
)

CLASS_ATTRIBUTES = _table(
    Key("pre-cluster-threshold", NUMBER, 0.2, low=0.0),
    Key("threshold", NUMBER, None, instead="pre-cluster-threshold"),
    Key("post-cluster-threshold", NUMBER, 0.0, low=0.0),
    Key("eps", NUMBER, 0.0, low=0.0),
    Key("minBoxes", INTEGER, 0, low=0),
    Key("dbscan-min-score", NUMBER, 0.0, low=0.0),
    Key("group-threshold", INTEGER, 0, low=0),
    Key("nms-iou-threshold", NUMBER, 0.3, low=0.0, high=1.0),
    Key("topk", INTEGER, -1, low=0),
    Key("roi-top-offset", INTEGER, 0, low=0),
    Key("roi-bottom-offset", INTEGER, 0, low=0),
    Key("detected-min-w", INTEGER, 0, low=0),
    Key("detected-min-h", INTEGER, 0, low=0),
    Key("detected-max-w", INTEGER, 0, low=0),
    Key("detected-max-h", INTEGER, 0, low=0),
    Key("border-color", NUMBERS),
    Key("bg-color", NUMBERS),
)

_ENABLE = Key("enable", INTEGER, 0)
_GPU = Key("gpu-id", INTEGER, 0, desk=False)
_MEMORY = Key("nvbuf-memory-type", INTEGER, 0, desk=False)

APP = {
    "application": _table(
        Key("enable-perf-measurement", INTEGER, 0),
        Key("perf-measurement-interval-sec", INTEGER, 5, low=1),
        Key("gie-kitti-output-dir", PATH),
        *_unused(PATH, "kitti-track-output-dir"),
        *_unused(PATH, "reid-track-output-dir", "terminated-track-output-dir", since="6.2"),
        *_unused(PATH, "global-gpu-id", since="6.2"),
    ),
    "tiled-display": _table(
        _ENABLE,
        _GPU,
        _MEMORY,
        Key("rows", INTEGER, 1, low=1),
        Key("columns", INTEGER, 1, low=1),
        Key("width", INTEGER, 1280, low=1),
        Key("height", INTEGER, 720, low=1),
        *_unused(INTEGER, "compute-hw", "buffer-pool-size", since="6.2"),
        *_unused(INTEGER, "square-seq-grid", since="7.1"),
    ),
    "source": _table(
        _ENABLE,
        _GPU,
        _MEMORY,
        Key("type", INTEGER, None, low=1, high=6),
        Key("uri", TEXT),
        Key("num-sources", INTEGER, 1),
        Key("camera-width", INTEGER, 0, low=0),
        Key("camera-height", INTEGER, 0, low=0),
        Key("camera-fps-n", INTEGER, 0, low=0),
        Key("camera-fps-d", INTEGER, 1, low=1),
        Key("camera-v4l2-dev-node", INTEGER, 0, low=0),
        Key("camera-csi-sensor-id", INTEGER, 0, low=0),
        Key("drop-frame-interval", INTEGER, 0, low=0),
        Key("latency", INTEGER, 100, low=0),
        Key("rtsp-reconnect-interval-sec", INTEGER, 0, low=0),
        Key("select-rtp-protocol", INTEGER, 0),
        *_unused(
            INTEGER,
            "camera-id",
            "source-id",
            "cudadec-memtype",
            "num-decode-surfaces",
            "num-extra-surfaces",
            "intra-decode-enable",
        ),
        *_unused(INTEGER, "smart-record", "smart-rec-start-time", "smart-rec-default-duration"),
        *_unused(INTEGER, "smart-rec-duration", "smart-rec-interval", "smart-rec-container"),
        *_unused(TEXT, "smart-rec-dir-path", "smart-rec-file-prefix", "smart-rec-video-cache"),
        *_unused(INTEGER, "smart-rec-cache", "rtsp-reconnect-attempts", since="6.0"),
        *_unused(INTEGER, "low-latency-decode", "udp-buffer-size", "drop-on-latency", since="6.2"),
        *_unused(TEXT, "alsa-device", "video-format", "sensorID-padID-mapping", since="6.2"),
        *_unused(INTEGER, "init-rtsp-reconnect-interval-sec", "leaky", since="7.1"),
        *_unused(INTEGER, "set-rtp-protocol", "simulate-fps-interval-ms", "copy-hw", since="7.1"),
        *_unused(INTEGER, "max-size-buffers", "buffer-mode", "extract-sei-type5-data", since="7.1"),
    ),
    "streammux": _table(
        _GPU,
        _MEMORY,
        Key("batch-size", INTEGER, 1, low=1, high=1024),
        Key("width", INTEGER, None, low=2),
        Key("height", INTEGER, None, low=2),
        Key("batched-push-timeout", INTEGER, -1),
        Key("live-source", INTEGER, 0),
        Key("enable-padding", INTEGER, 0),
        *_unused(INTEGER, "buffer-pool-size", "num-surfaces-per-frame", "attach-sys-ts-as-ntp"),
        *_unused(INTEGER, "frame-num-reset-on-eos", "frame-num-reset-on-stream-reset", since="6.0"),
        *_unused(INTEGER, "frame-duration", "sync-inputs", "max-latency", since="6.0"),
        *_unused(TEXT, "config-file-path", since="6.0"),
        *_unused(INTEGER, "async-process", "drop-pipeline-eos", "compute-hw", since="6.2"),
        *_unused(INTEGER, "sort-batch", "cache-buffer", "cache-buffer-timeout", since="7.1"),
        *_unused(INTEGER, "sync-inputs-ntp", "extract-sei-type5-data", since="7.1"),
        *_unused(INTEGER, "extract-sei-sim-time", "align-first-buffer", since="7.1"),
        *_unused(INTEGER, "failsafe-flush-count", "drop-backward-sei", since="7.1"),
    ),
    "sink": _table(
        _ENABLE,
        _GPU,
        _MEMORY,
        Key("type", INTEGER, None, low=1, high=7),
        Key("sync", INTEGER, 0),
        Key("source-id", INTEGER, 0, low=0),
        Key("container", INTEGER, 1, low=1, high=2),
        Key("codec", INTEGER, 1, low=1, high=3),
        Key("bitrate", INTEGER, 0, low=0),
        Key("iframeinterval", INTEGER, 0, low=0),
        Key("output-file", TEXT),
        Key("link-to-demux", INTEGER, 0),
        *_unused(INTEGER, "enc-type", "profile", "qos", "width", "height", "rtsp-port", "udp-port"),
        *_unused(INTEGER, "overlay-id", "offset-x", "offset-y", "display-id", until="6.0.1"),
        *_unused(INTEGER, "sw-preset", "copy-meta", "output-io-mode", "color-range", since="6.2"),
        *_unused(INTEGER, "conn-id", "plane-id", "set-mode", "udp-buffer-size", since="6.2"),
        *_unused(INTEGER, "compute-hw", since="6.2"),
        *_unused(INTEGER, "nvdslogger", "show-fps", "show-latency", since="9.0"),
        *_unused(TEXT, "msg-conv-config", "msg-conv-msg2p-lib", "msg-broker-proto-lib"),
        *_unused(TEXT, "msg-conv-payload-type", "msg-conv-comp-id", "msg-broker-comp-id"),
        *_unused(TEXT, "msg-broker-conn-str", "topic", "msg-broker-config", "disable-msgconv"),
    ),
    "osd": _table(
        _ENABLE,
        _GPU,
        _MEMORY,
        Key("border-width", INTEGER, 1, low=0),
        Key("text-size", INTEGER, 0, low=0),
        Key("text-color", NUMBERS, (1.0, 1.0, 1.0, 1.0)),
        Key("text-bg-color", NUMBERS, (0.0, 0.0, 0.0, 0.0)),
        Key("border-color", NUMBERS, (1.0, 0.0, 0.0, 1.0)),
        Key("display-text", INTEGER, 1),
        Key("display-bbox", INTEGER, 1),
        *_unused(TEXT, "font", "process-mode", "show-clock", "clock-x-offset", "clock-y-offset"),
        *_unused(TEXT, "clock-text-size", "clock-color", "hw-blend-color-attr", "display-mask"),
    ),
    "primary-gie": _table(
        _ENABLE,
        Key("gpu-id", INTEGER, None, desk=False),
        _MEMORY,
        Key("plugin-type", INTEGER, 0, low=0, high=2),
        Key("config-file", PATH),
        Key("batch-size", INTEGER, None, low=1, high=1024),
        Key("model-engine-file", PATH, desk=False),
        Key("labelfile-path", PATH),
        Key("gie-unique-id", INTEGER, None, low=1),
        Key("interval", INTEGER, None, low=0),
        *_unused(PATH, "infer-raw-output-dir"),
        *_unused(INTEGER, "input-tensor-meta", since="6.1"),
    ),
    "tracker": _table(
        _ENABLE,
        *_unused(INTEGER, "gpu-id", "tracker-width", "tracker-height", "display-tracking-id"),
        *_unused(PATH, "ll-lib-file", "ll-config-file"),
        *_unused(INTEGER, "tracking-surface-type", "tracker-surface-type"),
        *_unused(INTEGER, "enable-batch-process", "enable-past-frame", until="6.2"),
        *_unused(INTEGER, "tracking-id-reset-mode", "input-tensor-meta", since="6.0"),
        *_unused(INTEGER, "tensor-meta-gie-id", "compute-hw", "user-meta-pool-size", since="6.2"),
        *_unused(TEXT, "sub-batches", "sub-batch-err-recovery-trial-cnt", since="7.0"),
        *_unused(TEXT, "operate-on-class-ids", since="9.0"),
    ),
    "tests": _table(
        Key("file-loop", INTEGER, 0),
        *_unused(INTEGER, "pipeline-recreate-sec", since="6.0"),
    ),
}

# Colours are one key a class: bbox-border-color0, bbox-bg-color1, ...
_COLOURS = {
    "bbox-border-color": Key("bbox-border-color", NUMBERS),
    "bbox-bg-color": Key("bbox-bg-color", NUMBERS),
}
_NUMBERED = ("source", "sink")


def app_group(group: str) -> dict[str, Key] | None:
    """Return the keys of a deepstream-app group (source3: those of a source), None if unknown."""
    for name in _NUMBERED:
        if group.startswith(name) and group[len(name) :].isdigit():
            return APP[name]
    return APP.get(group) if group not in _NUMBERED else None


def app_key(group: str, name: str) -> Key | None:
    """Look up a key of a deepstream-app group, None when no version knows it."""
    table = app_group(group)
    if table is None:
        return None
    if name in table:
        return table[name]
    if group == "primary-gie":
        return _COLOURS.get(name.rstrip("0123456789"))
    return None


def nvinfer_key(group: str, name: str) -> Key | None:
    """Look up a key of an nvinfer config, None when no version knows it."""
    if group == "property":
        return PROPERTY.get(name)
    if group.startswith("class-attrs-"):
        return CLASS_ATTRIBUTES.get(name)
    return None
