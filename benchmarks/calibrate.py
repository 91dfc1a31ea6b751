"""Time to calibrate a network for INT8, beside ONNX Runtime's own entropy calibrator.

Both run the same ONNX file over the same photographs on the CPU and find a range for every
activation by the same criterion. The baseline keeps all activations of all its images in memory
(0.3 GB an image of 960 x 544 for ResNet 18), so it gets few of them and is compared by the image.
CPU seconds count beside the clock: they hold on a machine that others use too.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from detectnet_v2.calibrate import collect_histograms, load_onnx, ranges  # noqa: E402
from detectnet_v2.export import export_onnx  # noqa: E402
from detectnet_v2.images import read_image, stretch  # noqa: E402
from detectnet_v2.model import DetectNetV2  # noqa: E402

WIDTH, HEIGHT = 960, 544
SUFFIXES = {".jpg", ".jpeg", ".png"}


def photographs(folder: Path, number: int) -> list[Path]:
    """The first photographs below a folder by name."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < number:
        raise SystemExit(f"{folder}: {len(paths)} images, {number} are needed: lower --images")
    return paths[:number]


def load(path: Path) -> np.ndarray:
    """One image as the network takes it, float32 (3, H, W) in 0..1."""
    pixels = stretch(read_image(path), WIDTH, HEIGHT)
    return pixels.transpose(2, 0, 1).astype(np.float32) / 255


def ours(onnx_path: Path, paths: list[Path]) -> dict[str, float]:
    """Ranges from this project's calibration."""
    model = load_onnx(onnx_path)
    return ranges(model, collect_histograms(model, map(load, paths)))


def baseline(onnx_path: Path, paths: list[Path], folder: Path) -> dict[str, float]:
    """Ranges from onnxruntime.quantization's EntropyCalibrater."""
    from onnxruntime.quantization.calibrate import (  # noqa: PLC0415 - only the baseline needs it
        CalibrationDataReader,
        CalibrationMethod,
        create_calibrator,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = map(load, paths)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"input_1": image[None]}

    calibrator = create_calibrator(
        onnx_path,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Entropy,
    )
    calibrator.collect_data(Reader())
    data = calibrator.compute_data().data
    return {name: float(max(map(abs, values.range_value))) for name, values in data.items()}


def timed(work: Callable[[], dict[str, float]]) -> tuple[float, float, dict[str, float]]:
    """Wall and CPU seconds of some work, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        default=REPOSITORY.parent / "shared" / "data" / "raw",
        help="photographs, found in its folders too",
    )
    parser.add_argument("--model", type=Path, help="ONNX file (a fresh ResNet 18 without it)")
    parser.add_argument("--images", type=int, default=100, help="images to calibrate with (100)")
    parser.add_argument(
        "--baseline_images", type=int, default=4, help="images for the baseline; 0 leaves it out"
    )
    args = parser.parse_args()
    paths = photographs(args.folder, max(args.images, args.baseline_images))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx_path = args.model
        if onnx_path is None:
            onnx_path = folder / "model.onnx"
            export_onnx(DetectNetV2(18, 2).eval(), onnx_path)
        wall, cpu, amax = timed(lambda: ours(onnx_path, paths[: args.images]))
        rows.append((f"calibrate, {len(amax)} tensors", args.images, wall, cpu))
        if args.baseline_images:
            few = paths[: args.baseline_images]
            wall, cpu, amax = timed(lambda: baseline(onnx_path, few, folder))
            rows.append((f"EntropyCalibrater, {len(amax)} tensors", len(few), wall, cpu))
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.processor() or platform.machine()}, {cores} cores, {' '.join(sys.argv)}")
    print(f"{'':34}{'images':>8}{'wall s':>9}{'CPU s':>9}{'CPU s/image':>13}{'ratio':>8}")
    reference = rows[-1][3] / rows[-1][1]
    for label, count, wall, cpu in rows:
        each = cpu / count
        print(f"{label:34}{count:8}{wall:9.1f}{cpu:9.1f}{each:13.3f}{reference / each:8.2f}")


if __name__ == "__main__":
    main()
