"""Train a YOLO from scratch for a number of minutes and export it; runs in the YOLO's environment.

Everything but the input size, the time and the seed is the package's default: what a user gets.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import torch
import torchvision_operators

torchvision_operators.define()

from ultralytics import YOLO  # noqa: E402 - needs the operators
from ultralytics.utils import SETTINGS  # noqa: E402

STRIDE = 32


def main() -> None:
    """Write DIR/model.onnx and DIR/training.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="yolo26n, yolo11n, ...")
    parser.add_argument("--data", type=Path, required=True, help="data.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, required=True, help="of training")
    parser.add_argument("--width", type=int, required=True, help="of the images")
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # No integration with a service, whatever is installed.
    SETTINGS.update({key: False for key in SETTINGS if isinstance(SETTINGS[key], bool)})
    longest = -(-max(args.width, args.height) // STRIDE) * STRIDE
    model = YOLO(f"{args.model}.yaml")
    clock = Clock()
    model.add_callback("on_train_start", clock.start)
    model.add_callback("on_train_epoch_end", clock.stop)
    model.train(
        data=str(args.data),
        time=args.minutes / 60,
        imgsz=longest,
        batch=args.batch,
        seed=args.seed,
        pretrained=False,
        device=None if torch.cuda.is_available() else "cpu",
        project=str(args.output.resolve()),
        name="training",
        exist_ok=True,
        val=False,
        plots=False,
    )
    last = args.output / "training/weights/last.pt"
    trained = YOLO(last)
    size = [-(-side // STRIDE) * STRIDE for side in (args.height, args.width)]
    exported = trained.export(format="onnx", imgsz=size, simplify=False, device="cpu")
    shutil.copyfile(exported, args.output / "model.onnx")
    document = {
        "model": args.model,
        "minutes": clock.seconds / 60,
        "epochs": clock.epochs,
        # Of the exported network, whose batch norms are folded.
        "parameters": sum(p.numel() for p in trained.model.fuse().parameters()),
        "names": [trained.names[i] for i in sorted(trained.names)],
    }
    (args.output / "training.json").write_text(json.dumps(document, indent=2) + "\n")


class Clock:
    """Seconds from the first step to the end of the last epoch, and epochs begun."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.epochs = 0
        self._started = 0.0

    def start(self, trainer) -> None:
        """The first step follows."""
        self._started = time.monotonic()

    def stop(self, trainer) -> None:
        """An epoch is over, or its time was."""
        self.seconds = time.monotonic() - self._started
        self.epochs += 1


if __name__ == "__main__":
    main()
