"""Reads deepstream-app's config file: sources, mux, detector, drawing and sinks of one pipeline."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepstream import keyfile, keys
from deepstream.errors import DeepStreamError
from deepstream.inferconfig import typed

log = logging.getLogger("deepstream")

V4L2, URI, MULTI_URI, RTSP, CSI = 1, 2, 3, 4, 5
FAKE_SINK, FILE_SINK = 1, 3
_SOURCES = {V4L2: "V4L2", URI: "URI", MULTI_URI: "multi-URI", RTSP: "RTSP", CSI: "CSI"}
_SINKS = {2: "a display", 4: "an RTSP server", 5: "an overlay", 6: "a message broker"}

Color = tuple[float, float, float, float]


@dataclass(frozen=True)
class Source:
    """One stream: `location` is what FFmpeg opens, sizes in pixels, 0 = as the camera likes."""

    type: int
    location: str
    drop_frame_interval: int = 0
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0
    latency_ms: int = 100
    tcp: bool = False
    reconnect_s: int = 0

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace and cannot be waited for."""
        return self.type in (V4L2, RTSP)


@dataclass(frozen=True)
class Mux:
    """streammux: every frame is scaled to width x height, boxes are in these pixels."""

    width: int
    height: int
    batch_size: int
    enable_padding: bool
    timeout_us: int


@dataclass(frozen=True)
class Sink:
    """One sink: type 1 discards, type 3 encodes to `output_file`."""

    type: int
    sync: bool
    source_id: int
    output_file: str | None = None
    container: int = 1
    codec: int = 1
    bitrate: int = 0
    key_interval: int = 0


@dataclass(frozen=True)
class Osd:
    """How boxes and labels are drawn; colours are red, green, blue, alpha from 0 to 1."""

    border_width: int
    text_size: int
    text_color: Color
    text_background: Color
    display_text: bool
    display_box: bool


@dataclass(frozen=True)
class Tiler:
    """tiled-display: all streams in one picture of rows x columns."""

    rows: int
    columns: int
    width: int
    height: int


@dataclass(frozen=True)
class PrimaryGie:
    """The detector: its nvinfer config and the keys that override it."""

    config_file: Path
    overrides: dict[str, Any] = field(default_factory=dict)
    border_colors: dict[int, Color] = field(default_factory=dict)
    border_color: Color = (1.0, 0.0, 0.0, 1.0)
    fill_colors: dict[int, Color] = field(default_factory=dict)


@dataclass(frozen=True)
class AppConfig:
    """One pipeline. `perf_interval_s` is None without performance measurement."""

    path: Path
    sources: tuple[Source, ...]
    mux: Mux
    sinks: tuple[Sink, ...]
    gie: PrimaryGie | None
    osd: Osd | None
    tiler: Tiler | None
    perf_interval_s: int | None
    kitti_dir: Path | None
    file_loop: bool


def load(path: Path, *, uris: tuple[str, ...] = ()) -> AppConfig:
    """Read a deepstream-app config; `uris` (option -i) replace the URIs of the sources in order.

    Raises DeepStreamError for what stops deepstream-app and for what only a device can do.
    """
    if path.suffix != ".txt":
        raise DeepStreamError(f"{path}: the desk program reads .txt configs (INI)")
    groups = keyfile.read(path)
    _warn_about_keys(groups)
    if _values(groups, "tracker")["enable"]:
        log.warning("%s: [tracker] needs NVIDIA's library, nothing is tracked here", path)
    application = _values(groups, "application")
    tests = _values(groups, "tests")
    interval = application["perf-measurement-interval-sec"]
    kitti = application["gie-kitti-output-dir"]
    return AppConfig(
        path=path,
        sources=_sources(path, groups, uris),
        mux=_mux(path, groups),
        sinks=_sinks(path, groups),
        gie=_gie(path, groups),
        osd=_osd(groups),
        tiler=_tiler(groups),
        perf_interval_s=interval if application["enable-perf-measurement"] else None,
        kitti_dir=path.parent / kitti if kitti else None,
        file_loop=bool(tests["file-loop"]),
    )


def _warn_about_keys(groups):
    for name, group in groups.items():
        if keys.app_group(name) is None:
            log.warning("%s: unknown or unsupported group [%s], ignored", group.path, name)
            continue
        for key in group.values:
            if keys.app_key(name, key) is None:
                log.warning("%s: unknown key '%s' for group [%s]", group.place(key), key, name)


def _values(groups, name):
    """Typed values of a group, every default filled in, {} of defaults when it is absent."""
    table = keys.app_group(name)
    group = groups.get(name) or keyfile.Group(name, Path())
    return {key.name: typed(group, key) for key in table.values()}


def _enabled(groups, prefix):
    """Numbered groups that are switched on, in number order; the others are not even read."""
    names = [name for name in groups if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    for name in sorted(names, key=lambda name: int(name[len(prefix) :])):
        group = groups[name]
        if "enable" in group and group.integer("enable"):
            yield name, _values(groups, name)


def _sources(path, groups, uris):
    sources = []
    pending = list(uris)
    for name, values in _enabled(groups, "source"):
        if pending and values["type"] in (URI, MULTI_URI, RTSP):
            values["uri"] = pending.pop(0)
        sources += _expand(path, name, values)
    if not sources:
        raise DeepStreamError(f"{path}: no [sourceN] group is enabled")
    return tuple(sources)


def _expand(path, name, values):
    kind = values["type"]
    if kind not in _SOURCES:
        known = ", ".join(f"{number} {what}" for number, what in _SOURCES.items())
        raise DeepStreamError(f"{path}: [{name}] type={kind}: known are {known}")
    if kind == CSI:
        raise DeepStreamError(f"{path}: [{name}] type=5: a CSI camera needs a Jetson")
    common = {
        "type": kind,
        "drop_frame_interval": values["drop-frame-interval"],
        "width": values["camera-width"],
        "height": values["camera-height"],
        "frame_rate": values["camera-fps-n"] / values["camera-fps-d"],
        "latency_ms": values["latency"],
        "tcp": values["select-rtp-protocol"] == 4,
        "reconnect_s": values["rtsp-reconnect-interval-sec"],
    }
    if kind == V4L2:
        return [Source(location=f"/dev/video{values['camera-v4l2-dev-node']}", **common)]
    uri = values["uri"]
    if not uri:
        raise DeepStreamError(f"{path}: [{name}] type={kind} needs uri")
    count = max(1, values["num-sources"]) if kind == MULTI_URI else 1
    # As in deepstream-app, a %d in the URI is the number of the stream.
    uris = [uri.replace("%d", str(index)) for index in range(count)]
    return [Source(location=_location(path, one), **common) for one in uris]


def _location(path, uri):
    """Turn file:// URIs into paths; relative ones start at the config's folder, as on a device."""
    if uri.startswith("file://"):
        return str(path.parent / uri.removeprefix("file://"))
    if "://" not in uri:
        raise DeepStreamError(f"{path}: uri={uri} has no scheme, a file needs file://")
    return uri


def _mux(path, groups):
    values = _values(groups, "streammux")
    for key in ("width", "height"):
        if values[key] is None:
            raise DeepStreamError(f"{path}: [streammux] needs {key}")
        if values[key] % 2:
            raise DeepStreamError(f"{path}: [streammux] {key}={values[key]} must be even")
    return Mux(
        width=values["width"],
        height=values["height"],
        batch_size=values["batch-size"],
        enable_padding=bool(values["enable-padding"]),
        timeout_us=values["batched-push-timeout"],
    )


def _sinks(path, groups):
    sinks = []
    for name, values in _enabled(groups, "sink"):
        kind = values["type"]
        if kind not in (FAKE_SINK, FILE_SINK):
            what = _SINKS.get(kind, "unknown")
            raise DeepStreamError(
                f"{path}: [{name}] type={kind} ({what}) is not here: use 1 (discard) or 3 (file)"
            )
        if kind == FILE_SINK and not values["output-file"]:
            raise DeepStreamError(f"{path}: [{name}] type=3 needs output-file")
        sinks.append(
            Sink(
                type=kind,
                sync=bool(values["sync"]),
                source_id=values["source-id"],
                output_file=values["output-file"],
                container=values["container"],
                codec=values["codec"],
                bitrate=values["bitrate"],
                key_interval=values["iframeinterval"],
            )
        )
    if not sinks:
        raise DeepStreamError(f"{path}: no [sinkN] group is enabled")
    return tuple(sinks)


def _gie(path, groups):
    values = _values(groups, "primary-gie")
    if "primary-gie" not in groups or not values["enable"]:
        return None
    if values["plugin-type"] != 0:
        raise DeepStreamError(f"{path}: [primary-gie] plugin-type: only nvinfer (0) runs here")
    if not values["config-file"]:
        raise DeepStreamError(f"{path}: [primary-gie] needs config-file")
    group = groups["primary-gie"]
    borders, fills = {}, {}
    border = (1.0, 0.0, 0.0, 1.0)
    for key in group.values:
        for prefix, colors in (("bbox-border-color", borders), ("bbox-bg-color", fills)):
            if not key.startswith(prefix):
                continue
            number = key.removeprefix(prefix)
            if number.isdigit():
                colors[int(number)] = _color(group, key)
            elif not number and prefix == "bbox-border-color":
                border = _color(group, key)
    labels = values["labelfile-path"]
    return PrimaryGie(
        config_file=path.parent / values["config-file"],
        overrides={
            "batch-size": values["batch-size"],
            "interval": values["interval"],
            "gie-unique-id": values["gie-unique-id"],
            # Resolved here: the app resolves it against its own file, nvinfer against nvinfer's.
            "labelfile-path": str((path.parent / labels).resolve()) if labels else None,
        },
        border_colors=borders,
        border_color=border,
        fill_colors=fills,
    )


def _color(group, key):
    color = group.numbers(key)
    if len(color) != 4 or not all(0 <= part <= 1 for part in color):
        raise group.error(key, "four numbers from 0 to 1: red;green;blue;alpha")
    return tuple(color)


def _osd(groups):
    values = _values(groups, "osd")
    if not values["enable"]:
        return None
    return Osd(
        border_width=values["border-width"],
        text_size=values["text-size"],
        text_color=tuple(values["text-color"]),
        text_background=tuple(values["text-bg-color"]),
        display_text=bool(values["display-text"]),
        display_box=bool(values["display-bbox"]),
    )


def _tiler(groups):
    values = _values(groups, "tiled-display")
    if not values["enable"]:
        return None
    return Tiler(
        rows=values["rows"],
        columns=values["columns"],
        width=values["width"],
        height=values["height"],
    )
