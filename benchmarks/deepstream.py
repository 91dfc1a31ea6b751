"""Frame rate of the desk deepstream-app against the bare ONNX Runtime session of the same model.

Both run the same network on this machine, one after the other, for several rounds; the table gives
the median of each and of the ratio of neighbours, so that other load on the machine falls on both.
The processor time a frame depends on other load far less.
The application decodes H.264, scales, converts, runs the network, decodes and clusters the boxes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from deepstream import appconfig, devices
from deepstream.pipeline import Pipeline
from deepstream.render import BENCHMARK, Video, read_model, render, write_release
from deploy_local import versions
from detectnet_v2.model import DetectNetV2
from detectnet_v2.onnx_graph import onnx_model

CLASSES = ["mask", "no-mask"]
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Speed:
    """Frames per second, and milliseconds of processor time a frame on all cores together."""

    rate: float
    cpu_ms: float

    @classmethod
    def of(cls, frames: int, begun: float, spent: float) -> "Speed":
        """Take the speed of so many frames since perf_counter `begun` and process_time `spent`."""
        elapsed, used = time.perf_counter() - begun, time.process_time() - spent
        return cls(frames / elapsed, 1000 * used / max(frames, 1))


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="ONNX; default: a network made up for this")
    parser.add_argument(
        "--width-factor",
        type=float,
        default=0.35,
        help="share of ResNet18's filters in the made-up network (%(default)s, as after pruning)",
    )
    parser.add_argument("--clip", type=Path, help="video; default: 300 noisy frames, 960 x 544")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--seconds", type=float, default=10, help="a measurement (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or make_model(Path(folder) / "model.onnx", arguments.width_factor)
        clip = arguments.clip or make_clip(Path(folder) / "clip.mp4", 960, 544)
        app = make_release(Path(folder) / "release", model, clip)
        rounds = [
            (bare(model, arguments.seconds), pipeline(app, arguments.seconds))
            for _ in range(arguments.rounds)
        ]
    print(f"{versions()['machine']}; {' '.join(sys.argv)}")
    print(f"{'':<28}{'frames/s':>10}{'min':>8}{'max':>8}{'CPU ms/frame':>14}")
    for title, values in (
        ("ONNX Runtime, bare session", [theirs for theirs, _ in rounds]),
        ("deepstream-app", [ours for _, ours in rounds]),
    ):
        row([value.rate for value in values], title, ".2f", [value.cpu_ms for value in values])
    rates = [ours.rate / theirs.rate for theirs, ours in rounds]
    times = [theirs.cpu_ms / ours.cpu_ms for theirs, ours in rounds]
    row(rates, "ratio", ".3f", times)


def row(values: list[float], title: str, form: str, cpu: list[float]) -> None:
    """Print one line of the table: median, least and most, and the median of the last column."""
    middle, least, most = statistics.median(values), min(values), max(values)
    numbers = f"{middle:>10{form}}{least:>8{form}}{most:>8{form}}{statistics.median(cpu):>14{form}}"
    print(f"{title:<28}{numbers}")


def make_model(path: Path, factor: float) -> Path:
    """Write a DetectNet_v2 ResNet18 with narrowed layers and random weights as ONNX."""
    torch.manual_seed(0)
    model = DetectNetV2(18, 2, input_height=544, input_width=960)
    widths = {
        name: width if name.startswith("output") else max(16, int(width * factor) // 8 * 8)
        for name, width in model.widths.items()
    }
    model = DetectNetV2(18, 2, widths=widths, input_height=544, input_width=960).eval()
    with torch.inference_mode():
        _, coverage = model(torch.rand(1, 3, 544, 960))
        # A trained network covers few cells: 20 of the 2040 of each class get past one half.
        logits = torch.logit(coverage).flatten(2)
        model.output_cov.bias -= logits.kthvalue(logits.shape[2] - 20, dim=2).values[0]
    onnx.save(onnx_model(model), path)
    return path


def make_clip(path: Path, width: int, height: int, frames: int = 300) -> Path:
    """Encode a picture with texture that moves, so that decoding is as dear as in a real video."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (height // 8, 2 * width // 8, 3), np.uint8)
    picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    picture = (picture * 0.8 + random.integers(0, 50, picture.shape)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 3_000_000
        for index in range(frames):
            view = np.ascontiguousarray(picture[:, 3 * index % width :][:, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())
    return path


def make_release(folder: Path, model: Path, clip: Path) -> Path:
    """Lay out a release whose benchmark config is run, and return that config."""
    with av.open(str(clip)) as container:
        context = container.streams.video[0].codec_context
        width, height = context.width, context.height
    numbers = {
        "pre-cluster-threshold": 0.5,
        "post-cluster-threshold": 0.5,
        "nms-iou-threshold": 0.5,
        "topk": 100,
    }
    texts = render(
        devices.resolve("local"),
        engine="gpu",
        model=read_model(model, "benchmark", shipped="model.onnx"),
        classes=CLASSES,
        clustering={"classes": dict.fromkeys(CLASSES, numbers)},
        video=Video(f"file://{clip.name}", width, height),
        templates=ROOT / "ds_configs",
    )
    write_release(folder, texts, {"model.onnx": model, clip.name: clip})
    return folder / BENCHMARK


def bare(model: Path, seconds: float) -> Speed:
    """Speed of session.run on one ready tensor, with ONNX Runtime's own settings."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[1:]
    tensor = {session.get_inputs()[0].name: np.random.default_rng(0).random((1, *size), np.float32)}
    session.run(None, tensor)
    frames, begun, spent = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        session.run(None, tensor)
        frames += 1
    return Speed.of(frames, begun, spent)


def pipeline(app: Path, seconds: float) -> Speed:
    """Speed of the whole pipeline after its first frames."""
    running = Pipeline(appconfig.load(app))
    running.start()
    while sum(running.perf.frames) < 4:
        time.sleep(0.01)
    before, begun, spent = sum(running.perf.frames), time.perf_counter(), time.process_time()
    time.sleep(seconds)
    speed = Speed.of(sum(running.perf.frames) - before, begun, spent)
    running.quit()
    running.close()
    return speed


if __name__ == "__main__":
    main()
