"""The cases of a release, one per rendered config folder: what will run and what it needs."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepstream import keyfile
from deepstream.errors import DeepStreamError
from deepstream.render import engine_file
from file_digest import sha256

from jetson.errors import JetsonError

APP_CONFIG = "app.txt"
_PRECISIONS = {0: "fp32", 1: "int8", 2: "fp16"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Case:
    """One model on one engine: paths are relative to the release."""

    name: str
    model: str
    engine: str
    app: str
    infer: str
    model_file: str
    precision: str
    batch: int
    streams: int
    perf_interval_s: int
    model_sha256: str
    calibration_sha256: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the case as the receipt holds it."""
        return asdict(self)

    def engine_on(self, board: str | None, tensorrt: str | None) -> tuple[str, str, str, str]:
        """Return what tells this case's engine from others on a device.

        Its name in the cache, sha256 of the model, of the calibration ("-" for none), and the name
        of the file that nvinfer writes.
        """
        return (
            self.engine_key(board or "unknown", tensorrt or "unknown"),
            self.model_sha256,
            self.calibration_sha256 or "-",
            self.engine_name(self.precision),
        )

    def engine_name(self, precision: str) -> str:
        """Return the name of the file that nvinfer writes for a precision."""
        return engine_file(posixpath.basename(self.model_file), self.batch, self.engine, precision)

    def engine_key(self, board: str, tensorrt: str) -> str:
        """Name the TensorRT engine of this case: everything that makes it another one.

        Engines do not move between boards or TensorRT versions, and an INT8 engine also follows
        from its calibration.
        """
        parts = [self.model_sha256[:16], self.precision, f"b{self.batch}", self.engine]
        if self.precision == "int8" and self.calibration_sha256:
            parts.append(f"cal{self.calibration_sha256[:8]}")
        parts += [f"trt{tensorrt}", board]
        return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part) for part in parts)


def clips(folder: Path) -> set[str]:
    """Name the clips of the app config that lie in its folder instead of on the device."""
    uris = [group.values.get("uri", "") for group in keyfile.read(folder / APP_CONFIG).values()]
    names = {uri.removeprefix("file://") for uri in uris if uri.startswith("file://")}
    return {name for name in names if "/" not in name and (folder / name).is_file()}


def read(name: str, folder: Path, files: Mapping[str, Path]) -> Case:
    """Read a case from its rendered configs.

    Args:
        name: `{model}-{engine}`, the case's folder in the release.
        folder: the rendered config folder on the desk.
        files: every file of the release by its path there.

    Raises:
        JetsonError: a config cannot be measured, or names a file that the release lacks.
    """
    if not _NAME.fullmatch(name) or "-" not in name:
        raise JetsonError(f"{name!r} is no name of a case; it must be MODEL-ENGINE, as chosen-gpu")
    try:
        return _read(name, folder, files)
    except DeepStreamError as error:
        raise JetsonError(str(error)) from error
    except KeyError as error:
        raise JetsonError(
            f"{folder}: key or group {error} is missing in its configs; render them again"
        ) from error


def _read(name: str, folder: Path, files: Mapping[str, Path]) -> Case:
    model, engine = name.rsplit("-", 1)
    app = keyfile.read(folder / APP_CONFIG)
    application, primary = app["application"], app["primary-gie"]
    if not application.boolean("enable-perf-measurement"):
        raise application.error("enable-perf-measurement", "1, and nothing would be measured")
    infer_file = primary.text("config-file")
    infer_path = _inside(name, infer_file, folder, files)
    prop = keyfile.parse(files[infer_path].read_text(), files[infer_path])["property"]
    where = posixpath.dirname(infer_path)
    model_key = "tlt-encoded-model" if "tlt-encoded-model" in prop else "onnx-file"
    model_file = _inside(where, prop.text(model_key), folder, files)
    calibration = None
    if "int8-calib-file" in prop:
        calibration = _inside(where, prop.text("int8-calib-file"), folder, files)
    if "labelfile-path" in prop:
        _inside(where, prop.text("labelfile-path"), folder, files)
    mode = prop.integer("network-mode")
    if mode not in _PRECISIONS:
        raise prop.error("network-mode", "0 (fp32), 1 (int8) or 2 (fp16)")
    batch = primary if "batch-size" in primary else prop
    interval = "perf-measurement-interval-sec"
    return Case(
        name=name,
        model=model,
        engine=engine,
        app=f"{name}/{APP_CONFIG}",
        infer=infer_path,
        model_file=model_file,
        precision=_PRECISIONS[mode],
        batch=batch.integer("batch-size"),
        streams=_streams(app),
        perf_interval_s=application.integer(interval) if interval in application else 5,
        model_sha256=sha256(files[model_file]),
        calibration_sha256=sha256(files[calibration]) if calibration else None,
    )


def _inside(where: str, named: str, folder: Path, files: Mapping[str, Path]) -> str:
    """Return the release's path of a file that a config in `where` names."""
    path = posixpath.normpath(posixpath.join(where, named))
    if path not in files:
        raise JetsonError(f"{folder}: its configs name {named!r}, which is not pushed with them")
    return path


def _streams(app: Mapping[str, keyfile.Group]) -> int:
    streams = 0
    for name, group in app.items():
        if re.fullmatch(r"source\d+", name) and "enable" in group and group.boolean("enable"):
            # Only type 3, multi-URI, opens its clip several times.
            many = group.integer("type") == 3 and "num-sources" in group
            streams += group.integer("num-sources") if many else 1
    if streams == 0:
        raise JetsonError("no [sourceN] is enabled in app.txt; enable one")
    return streams
