"""The Jetson boards: what each one has, and how a device named in the config settles to them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepstream import releases
from deepstream.errors import DeepStreamError

PRECISIONS = ("fp32", "fp16", "int8")

# TensorRT 10 has no UFF parser and nobody has verified an ONNX payload there.
_FIRST_WITHOUT_ETLT = releases.version_order("7.1")

# Nothing in the network needs an operator newer than opset 11; 17 is what every TensorRT 8.5 reads.
HIGHEST_EXPORTED_OPSET = 17


# NVIDIA's benchmark clip, on every device with DeepStream.
BENCHMARK_CLIP = "/opt/nvidia/deepstream/deepstream/samples/streams/sample_1080p_h265.mp4"
BENCHMARK_CLIP_SIZE = (1920, 1080)


@dataclass(frozen=True)
class Device:
    """One device of the config with the facts of its board.

    `precisions` is what the hardware has, `precision` what was asked for. `max_opset` None means
    "as high as the release's TensorRT reads". `hardware_encoder` is false where video can only be
    encoded on the CPU.
    """

    name: str
    board: str
    title: str
    gpu: str
    compute_capability: str
    precisions: tuple[str, ...]
    dla_cores: int
    deepstream: str
    precision: str = "fp16"
    max_opset: int | None = None
    hardware_encoder: bool = True
    workspace_mb: int | None = None

    @property
    def release(self) -> releases.Release:
        """The DeepStream release on the device."""
        return releases.release(self.deepstream)

    @property
    def tensorrt(self) -> str:
        """TensorRT version of the release."""
        return self.release.tensorrt

    @property
    def opset(self) -> int:
        """Highest ONNX opset that the device reads."""
        return self.max_opset or releases.highest_opset(self.tensorrt)

    @property
    def engines(self) -> tuple[str, ...]:
        """What a model can run on here: "gpu", then "dla0", "dla1" as far as there are cores."""
        return ("gpu", *(f"dla{core}" for core in range(self.dla_cores)))

    @property
    def accepts_etlt(self) -> bool:
        """Whether this DeepStream is known to load an .etlt around an ONNX payload."""
        return self.release.order < _FIRST_WITHOUT_ETLT


_NO_INT8 = ("fp32", "fp16")

BOARDS = {
    board.name: board
    for board in (
        Device(
            name="nano",
            board="nano",
            title="Jetson Nano",
            gpu=releases.MAXWELL,
            compute_capability="5.3",
            precisions=_NO_INT8,
            dla_cores=0,
            deepstream="6.0.1",
            # 4 GB are shared with the desktop: larger workspaces get the engine build killed.
            workspace_mb=256,
        ),
        Device(
            name="tx2",
            board="tx2",
            title="Jetson TX2",
            gpu=releases.PASCAL,
            compute_capability="6.2",
            precisions=_NO_INT8,
            dla_cores=0,
            deepstream="6.0.1",
        ),
        Device(
            name="xavier_nx",
            board="xavier_nx",
            title="Jetson Xavier NX",
            gpu=releases.VOLTA,
            compute_capability="7.2",
            precisions=PRECISIONS,
            dla_cores=2,
            deepstream="6.3",
        ),
        Device(
            name="xavier",
            board="xavier",
            title="Jetson AGX Xavier",
            gpu=releases.VOLTA,
            compute_capability="7.2",
            precisions=PRECISIONS,
            dla_cores=2,
            deepstream="6.3",
        ),
        Device(
            name="orin_nano",
            board="orin_nano",
            title="Jetson Orin Nano",
            gpu=releases.AMPERE,
            compute_capability="8.7",
            precisions=PRECISIONS,
            dla_cores=0,
            deepstream="7.1",
            hardware_encoder=False,
        ),
        Device(
            # The 16 GB module; the 8 GB one has one core: `dla_cores: 1` in the config.
            name="orin_nx",
            board="orin_nx",
            title="Jetson Orin NX",
            gpu=releases.AMPERE,
            compute_capability="8.7",
            precisions=PRECISIONS,
            dla_cores=2,
            deepstream="7.1",
        ),
        Device(
            name="orin",
            board="orin",
            title="Jetson AGX Orin",
            gpu=releases.AMPERE,
            compute_capability="8.7",
            precisions=PRECISIONS,
            dla_cores=2,
            deepstream="7.1",
        ),
        Device(
            name="thor",
            board="thor",
            title="Jetson AGX Thor",
            gpu=releases.BLACKWELL,
            compute_capability="11.0",
            precisions=PRECISIONS,
            dla_cores=0,
            deepstream="8.0",
        ),
        Device(
            # The desk program of this project: ONNX Runtime, FP32, no calibration.
            name="local",
            board="local",
            title="this computer",
            gpu=releases.DESK,
            compute_capability="",
            precisions=("fp32",),
            dla_cores=0,
            deepstream="9.1",
            precision="fp32",
            max_opset=HIGHEST_EXPORTED_OPSET,
            hardware_encoder=False,
        ),
    )
}

_FACTS = (
    "title",
    "gpu",
    "compute_capability",
    "precisions",
    "dla_cores",
    "deepstream",
    "precision",
    "max_opset",
    "hardware_encoder",
    "workspace_mb",
)


def resolve(name: str, settings: Mapping[str, Any] | None = None) -> Device:
    """Settle one entry of `deploy.devices` to a Device.

    `settings` may name a `board` (default: the entry's own name) and override any of the board's
    facts; keys that belong to the SSH session are left to others. Raises DeepStreamError when the
    board is unknown, when the release does not run on it, or when the precision is not there.
    """
    settings = dict(settings or {})
    board_name = settings.get("board", name)
    board = BOARDS.get(board_name)
    if board is None:
        raise DeepStreamError(
            f"deploy.devices.{name}: unknown board {board_name!r}, known: {', '.join(BOARDS)}; "
            f"give `board: one of them` and override its facts"
        )
    facts = {key: settings[key] for key in _FACTS if settings.get(key) is not None}
    if "precisions" in facts:
        facts["precisions"] = tuple(facts["precisions"])
    if "deepstream" in facts:
        facts["deepstream"] = releases.release(facts["deepstream"]).deepstream
    device = replace(board, name=name, **facts)
    _check(device)
    return device


def _check(device: Device) -> None:
    where = f"deploy.devices.{device.name}"
    unknown = sorted(set(device.precisions) - set(PRECISIONS))
    if unknown:
        raise DeepStreamError(
            f"{where}.precisions: {', '.join(unknown)} unknown, known: {', '.join(PRECISIONS)}"
        )
    if device.gpu not in device.release.gpus:
        fitting = [r.deepstream for r in releases.RELEASES.values() if device.gpu in r.gpus]
        raise DeepStreamError(
            f"{where}.deepstream: {device.deepstream} does not run on {device.title}, "
            f"these do: {', '.join(fitting)}"
        )
    check_precision(device, device.precision)


def check_precision(device: Device, precision: str) -> None:
    """Raise DeepStreamError when the device cannot run a precision."""
    where = f"deploy.devices.{device.name}.precision"
    if precision not in device.precisions:
        raise DeepStreamError(
            f"{where}: {device.title} has no {precision}, it has {', '.join(device.precisions)}; "
            f"set {device.precisions[-1]}"
        )
    if precision == "int8" and not device.release.takes_calibration:
        raise DeepStreamError(
            f"{where}: DeepStream {device.deepstream} (TensorRT {device.tensorrt}) takes no INT8 "
            f"calibration cache for this model any more, use fp16"
        )


def dla_core(device: Device, engine: str, precision: str) -> int | None:
    """Return the DLA core of an engine ("gpu" -> None, "dla1" -> 1), checked against the device.

    Raises DeepStreamError for a core that the board lacks and for FP32, which no DLA computes.
    """
    if engine not in device.engines:
        raise DeepStreamError(
            f"deploy.devices.{device.name}.engines: {device.title} has no {engine!r}, "
            f"it has {', '.join(device.engines)}; take {engine} out of the list"
        )
    if engine == "gpu":
        return None
    if precision == "fp32":
        raise DeepStreamError(
            f"deploy.devices.{device.name}.precision: a DLA runs fp16 or int8, not fp32; "
            "set fp16 or take its cores out of engines"
        )
    return int(engine.removeprefix("dla"))


def lowest_opset(devices: Mapping[str, Mapping[str, Any] | None]) -> int:
    """Return the highest ONNX opset that every configured device reads.

    `devices` is `deploy.devices` of the config; with none of them the project's own limit holds.
    """
    opsets = [resolve(name, settings).opset for name, settings in devices.items()]
    return min([HIGHEST_EXPORTED_OPSET, *opsets])
