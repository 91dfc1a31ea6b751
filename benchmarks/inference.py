"""Frame rate of the unpruned and of a pruned network under ONNX Runtime, in FP32 and in INT8.

The pruned network is what the task `prune --target_ratio` makes of the unpruned one; the INT8 ones
are `calibrate` and `quantize` of both. Weights and pictures do not change the speed, widths do:
--model takes a trained model, for the widths that its training leads to. All sessions of a size
take turns for several rounds, so that other load on the machine falls on all. The table gives
medians, and the median over the rounds of each ratio. One thread is compared by its processor time,
which other load hardly changes; several by the clock, since threads that wait count as busy.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2.calibrate import STEPS, collect_histograms, ranges
from detectnet_v2.calibration_cache import ALGORITHM, CalibrationCache
from detectnet_v2.model import DetectNetV2, count_macs, count_parameters
from detectnet_v2.model_file import load_model
from detectnet_v2.onnx_graph import onnx_model
from detectnet_v2.prune import PruneSettings, prune, threshold_for_ratio
from detectnet_v2.quantize import quantize

# What the recipe's authors publish of a Jetson Nano at FP16, pruned / unpruned.
PUBLISHED = 3.27
MATRIX = 1024


@dataclass(frozen=True)
class Case:
    """A network to time: `name` of its row, and its multiply-accumulates a frame."""

    name: str
    model: onnx.ModelProto
    macs: int


@dataclass(frozen=True)
class Speed:
    """Seconds a frame by the clock, and on the processor."""

    wall: float
    cpu: float


def main() -> None:
    """Parse the command line, measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="trained .hdf5; default: a new ResNet18")
    parser.add_argument(
        "--ratio", type=float, default=0.12, help="of the parameters kept at most (%(default)s)"
    )
    parser.add_argument("--sizes", nargs="+", default=["960x544", "480x272"], help="%(default)s")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="%(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--seconds", type=float, default=1.5, help="a measurement (%(default)s)")
    arguments = parser.parse_args()
    model = unpruned(arguments.model)
    settings = PruneSettings()
    threshold = threshold_for_ratio(model, settings, arguments.ratio)
    pruned = prune(model, replace(settings, threshold=threshold))
    share = count_parameters(pruned) / count_parameters(model)
    print(
        f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, onnxruntime",
        end=" ",
    )
    print(f"{onnxruntime.__version__}; {' '.join(sys.argv)}")
    print(f"pruned at {threshold:.4f}: {100 * share:.1f} % of {count_parameters(model)} parameters")
    caches = {name: calibrated(m) for name, m in (("unpruned", model), ("pruned", pruned))}
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        cases = []
        for name, network in (("unpruned", model), ("pruned", pruned)):
            resize(network, width, height)
            graph = onnx_model(network, batch_size=1)
            macs = count_macs(network)
            cases += [
                Case(f"{name} FP32", graph, macs),
                Case(f"{name} INT8", quantize(graph, caches[name]), macs),
            ]
        for threads in arguments.threads:
            print()
            report(size, threads, cases, measure(cases, threads, arguments))


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def unpruned(path: Path | None) -> DetectNetV2:
    """The trained model, or a new one."""
    torch.manual_seed(0)
    return (load_model(path) if path else DetectNetV2(18, 2)).eval()


def resize(model: DetectNetV2, width: int, height: int) -> None:
    """Set the size of the model's input: it is convolutions throughout, no weight depends on it."""
    model.input_width, model.input_height = width, height


def calibrated(model: DetectNetV2) -> CalibrationCache:
    """Scales from a few pictures of smooth noise at a small size; their values cost no time."""
    resize(model, 480, 272)
    graph = onnx_model(model, batch_size=1)
    rng = np.random.default_rng(0)
    coarse = [rng.random((3, 17, 30), np.float32) for _ in range(4)]
    images = [values.repeat(16, axis=1).repeat(16, axis=2) for values in coarse]
    amax = ranges(graph, collect_histograms(graph, images), method="max")
    return CalibrationCache(0, ALGORITHM, {name: value / STEPS for name, value in amax.items()})


def measure(
    cases: list[Case], threads: int, arguments: argparse.Namespace
) -> Mapping[str, list[Speed]]:
    """Speeds of each case, one a round."""
    sessions = {case.name: session(case.model, threads) for case in cases}
    for running in sessions.values():
        timed(running, 0)
    speeds: dict[str, list[Speed]] = {name: [] for name in sessions}
    for _ in range(arguments.rounds):
        for name, running in sessions.items():
            speeds[name].append(timed(running, arguments.seconds))
    return speeds


def session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session with ONNX Runtime's own settings on a number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def timed(running: onnxruntime.InferenceSession, seconds: float) -> Speed:
    """Run frames, at least two, for so long."""
    value = running.get_inputs()[0]
    inputs = {value.name: np.random.default_rng(0).random(value.shape, np.float32)}
    frames, began, spent = 0, time.perf_counter(), time.process_time()
    while frames < 2 or time.perf_counter() - began < seconds:
        running.run(None, inputs)
        frames += 1
    elapsed, used = time.perf_counter() - began, time.process_time() - spent
    return Speed(elapsed / frames, used / frames)


def matrix_rate(threads: int) -> float:
    """Multiply-accumulates a second of a big float32 matrix product: what the processor can do."""
    torch.set_num_threads(threads)
    a = torch.rand(MATRIX, MATRIX)
    torch.mm(a, a)
    best = float("inf")
    clock = time.process_time if threads == 1 else time.perf_counter
    for _ in range(8):
        began = clock()
        torch.mm(a, a)
        best = min(best, clock() - began)
    return MATRIX**3 / best


def report(size: str, threads: int, cases: list[Case], speeds: Mapping[str, list[Speed]]) -> None:
    """Print the table of a size and a number of threads."""
    peak = matrix_rate(threads)
    kind = "cpu" if threads == 1 else "wall"
    print(f"{size}, threads: {threads}; matrix product {peak / 1e9:.0f} GMAC/s")
    print(
        f"{'':16}{'GMAC':>7}{'frames/s':>10}{'CPU ms':>8}{'GMAC/s':>8}{'of matrix':>10}"
        f"{'x unpruned':>12}{'x FP32':>8}"
    )
    by_name = {case.name: [getattr(speed, kind) for speed in speeds[case.name]] for case in cases}
    for case in cases:
        values = speeds[case.name]
        wall = statistics.median(speed.wall for speed in values)
        cpu = statistics.median(speed.cpu for speed in values)
        seconds = statistics.median(by_name[case.name])
        kind_of = case.name.split()[1]
        faster = ratio(by_name[f"unpruned {kind_of}"], by_name[case.name])
        eight = ratio(by_name[f"{case.name.split()[0]} FP32"], by_name[case.name])
        print(
            f"{case.name:16}{case.macs / 1e9:>7.2f}{1 / wall:>10.2f}{1000 * cpu:>8.1f}"
            f"{case.macs / seconds / 1e9:>8.1f}{case.macs / seconds / peak:>10.2f}"
            f"{faster:>12.2f}{eight:>8.2f}"
        )
    print(
        f"multiply-accumulates, unpruned / pruned: {cases[0].macs / cases[2].macs:.2f};"
        f" published ratio of frame rates on a Nano: {PUBLISHED}"
    )


def ratio(base: list[float], own: list[float]) -> float:
    """Median over the rounds of how many times less time `own` takes."""
    return statistics.median(b / o for b, o in zip(base, own, strict=True))


if __name__ == "__main__":
    main()
