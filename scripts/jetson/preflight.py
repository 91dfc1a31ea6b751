"""Looks at a device in one round trip and says, a line a problem, what keeps it from the work."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from deepstream import devices, releases
from deepstream.errors import DeepStreamError
from detectnet_v2.calibration_cache import version_number

from jetson.errors import JetsonError
from jetson.session import Session, device_script, facts
from jetson.settings import Remote

# Device tree names of the boards. The first that fits counts, so the longer names come first.
_BOARDS = (
    ("orin_nano", r"orin nano"),
    ("orin_nx", r"orin nx"),
    ("orin", r"agx orin"),
    ("xavier_nx", r"xavier nx"),
    ("xavier", r"agx xavier|jetson-agx$"),
    ("thor", r"thor"),
    ("tx2", r"tx2|quill"),
    ("nano", r"jetson nano"),
)
_DEEPSTREAM = re.compile(r"DeepStreamSDK\s+([\d.]+)", re.I)
_TENSORRT = re.compile(r"TensorRT Version:\s*([\d.]+)", re.I)
_CUDA = re.compile(r"CUDA Runtime Version:\s*([\d.]+)", re.I)
_PACKAGE = re.compile(r"(\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Probe:
    """What a device told about itself; None where it did not."""

    board: str | None
    model: str
    l4t: str | None
    deepstream: str | None
    tensorrt: str | None
    cuda: str | None
    user: str
    root: str
    release: str | None
    free_disk_mb: int | None
    free_memory_mb: int | None
    memory_mb: int | None
    boot_id: str

    def versions(self) -> dict[str, Any]:
        """Return what identifies the device and its software, for receipts and reports."""
        kept = ("board", "model", "l4t", "deepstream", "tensorrt", "cuda", "memory_mb")
        return {key: value for key, value in asdict(self).items() if key in kept}

    def summary(self) -> str:
        """Return one line for a person."""
        free = f"{_gb(self.free_disk_mb)} disk and {_gb(self.free_memory_mb)} memory free"
        return (
            f"{self.model or 'unknown board'}, L4T {self.l4t or '?'}, DeepStream "
            f"{self.deepstream or '?'}, TensorRT {self.tensorrt or '?'}, {free}"
        )


def _gb(megabytes: int | None) -> str:
    return "?" if megabytes is None else f"{megabytes / 1024:.1f} GB"


def probe(session: Session) -> tuple[Probe, dict[str, str]]:
    """Ask the device everything in one round trip; the raw answers come second."""
    remote = session.remote
    found = facts(
        session.run(
            device_script("common", "preflight"),
            remote.folder,
            remote.clip,
            "" if remote.nvpmodel is None else remote.nvpmodel,
            "yes" if remote.jetson_clocks else "no",
        )
    )
    versions = found.get("versions", "")
    return (
        Probe(
            board=board_of(found.get("board", "")),
            model=found.get("board", "").strip(),
            l4t=found.get("l4t") or None,
            deepstream=_first(_DEEPSTREAM, versions),
            # The package knows the patch level, which engines depend on; DeepStream does not.
            tensorrt=_first(_PACKAGE, found.get("tensorrt_package", ""))
            or _first(_TENSORRT, versions),
            cuda=_first(_CUDA, versions),
            user=found.get("user", ""),
            root=found.get("root", ""),
            release=found.get("release", "").rpartition("/")[2] or None,
            free_disk_mb=_megabytes(found.get("disk_kb")),
            free_memory_mb=_megabytes(found.get("memory_kb")),
            memory_mb=_megabytes(found.get("memory_total_kb")),
            boot_id=found.get("boot_id", ""),
        ),
        found,
    )


def board_of(model: str) -> str | None:
    """Return the board's name in this project from its device tree model, None if unknown."""
    for board, pattern in _BOARDS:
        if re.search(pattern, model.strip(), re.I):
            return board
    return None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1].rstrip(".") if found else None


def _megabytes(kilobytes: str | None) -> int | None:
    return int(kilobytes) // 1024 if kilobytes and kilobytes.isdigit() else None


def check(session: Session, expected: devices.Device, *, busy_is_wrong: bool = True) -> Probe:
    """Probe the device and compare it with what the config says about it.

    With `busy_is_wrong` off, a benchmark that runs there is no problem, and what it takes of memory
    and disk is not either: the caller follows it.

    Raises:
        JetsonError: one line a problem, each with its remedy.
    """
    seen, raw = probe(session)
    problems = _program_problems(seen, raw, expected)
    if busy_is_wrong or "benchmark" not in raw:
        problems += [
            *_busy_problems(raw),
            *_room_problems(seen, raw, session.remote),
            *_sudo_problems(raw, session.remote),
        ]
    if problems:
        raise JetsonError("\n".join(f"{session.remote.name}: {line}" for line in problems))
    return seen


def _program_problems(seen: Probe, raw: dict[str, str], expected: devices.Device) -> list[str]:
    where = f"deploy.devices.{expected.name}"
    problems = []
    if raw.get("missing_tools"):
        problems.append(
            f"lacks the programs{raw['missing_tools']}; install coreutils, util-linux and mawk"
        )
    if seen.board and expected.board not in ("local", seen.board):
        problems.append(
            f"is a {seen.model}, the config expects a {expected.title}; set {where}.board: "
            f"{seen.board} or {where}.host to the right device"
        )
    if raw.get("gpu") == "no":
        problems.append(
            f"user {seen.user} may not use the GPU (/dev/nvmap); run there: sudo usermod -aG video "
            f"{seen.user}"
        )
    if not raw.get("deepstream_app"):
        elsewhere = raw.get("deepstream_elsewhere")
        remedy = (
            f"link it with: sudo ln -s {elsewhere} /usr/local/bin/"
            if elsewhere
            else f"install DeepStream {expected.deepstream} (JetPack {expected.release.jetpack})"
        )
        return [*problems, f"no deepstream-app on the PATH; {remedy}"]
    if seen.deepstream is None:
        answer = " ".join(raw.get("versions", "").split())[-200:] or "nothing"
        problems.append(
            f"deepstream-app --version-all tells no version but: {answer}; run it there by hand, "
            "often a library is missing or ~/.cache/gstreamer-1.0 is stale"
        )
    elif not _same_generation(seen.deepstream, expected.deepstream):
        problems.append(
            f"has DeepStream {seen.deepstream}, the config expects {expected.deepstream}; "
            f"{_other_release(seen.deepstream, where)}flash JetPack {expected.release.jetpack}"
        )
    if seen.tensorrt is not None:
        problems += _opset_problem(seen.tensorrt, expected)
        problems += _calibration_problem(seen.tensorrt, expected)
    return problems


def _same_generation(seen: str, expected: str) -> bool:
    """Compare versions where both are given: a device that says 6.0 may have 6.0.1."""
    return all(a == b for a, b in zip(seen.split("."), expected.split("."), strict=False))


def _other_release(version: str, where: str) -> str:
    """The remedy of taking the device as it is, where this project knows its release."""
    try:
        known = releases.release(version).deepstream
    except DeepStreamError:
        return ""
    return f"set {where}.deepstream: '{known}' and render the configs again, or "


def _opset_problem(tensorrt: str, expected: devices.Device) -> list[str]:
    try:
        highest = releases.highest_opset(tensorrt)
    except DeepStreamError as error:
        return [str(error)]
    if expected.opset <= highest:
        return []
    return [
        f"its TensorRT {tensorrt} reads ONNX up to opset {highest}, the config allows "
        f"{expected.opset}; set deploy.devices.{expected.name}.max_opset: {highest}"
    ]


def _calibration_problem(tensorrt: str, expected: devices.Device) -> list[str]:
    """Compare with the header of the calibration cache, where the patch level is known."""
    if expected.precision != "int8" or not _PACKAGE.fullmatch(tensorrt):
        return []
    if version_number(tensorrt) == version_number(expected.tensorrt):
        return []
    return [
        f"has TensorRT {tensorrt}, which skips the INT8 calibration cache for the "
        f"{expected.tensorrt} of DeepStream {expected.deepstream} without a word; flash JetPack "
        f"{expected.release.jetpack} or set deploy.devices.{expected.name}.precision: fp16"
    ]


def _room_problems(seen: Probe, raw: dict[str, str], remote: Remote) -> list[str]:
    problems = []
    where = f"deploy.devices.{remote.name}"
    if raw.get("writable") != "yes":
        problems.append(
            f"user {seen.user} cannot write to {seen.root}; set {where}.folder to a folder of "
            f"theirs or run there: sudo install -d -o {seen.user} '{seen.root}'"
        )
    if seen.free_disk_mb is not None and seen.free_disk_mb < remote.min_free_disk_mb:
        problems.append(
            f"only {seen.free_disk_mb} MB of disk free for {seen.root}, {remote.min_free_disk_mb} "
            f"MB wanted; make room, or set {where}.folder (or min_free_disk_mb)"
        )
    if seen.free_memory_mb is not None and seen.free_memory_mb < remote.min_free_memory_mb:
        problems.append(
            f"only {seen.free_memory_mb} MB of memory free, {remote.min_free_memory_mb} MB wanted; "
            "stop the desktop (sudo systemctl isolate multi-user.target) and other programs, or "
            f"set {where}.min_free_memory_mb"
        )
    if raw.get("clip") != "yes":
        problems.append(
            f"the benchmark's clip {remote.clip} is not there; set {where}.clip to a video on the "
            "device"
        )
    return problems


def _busy_problems(raw: dict[str, str]) -> list[str]:
    problems = []
    if "benchmark" in raw:
        problems.append(f"benchmark {raw['benchmark']} is running there; wait for its end")
    if "running" in raw:
        problems.append(
            f"deepstream-app is running there as process {raw['running']}, which would share the "
            f"GPU; end it with: kill -INT {raw['running']}"
        )
    return problems


def _sudo_problems(raw: dict[str, str], remote: Remote) -> list[str]:
    where = f"deploy.devices.{remote.name}"
    programs = {"nvpmodel": "null", "jetson_clocks": "false"}
    return [
        f"{program} cannot be run by sudo without a password; allow it in /etc/sudoers.d, or set "
        f"{where}.{program}: {without}"
        for program, without in programs.items()
        if raw.get(program) == "no"
    ]
