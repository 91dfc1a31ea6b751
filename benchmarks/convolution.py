"""How fast convolutions train: oneDNN in both memory layouts, and the toolkit's own products.

First single 3x3 layers of ResNet18, then forward and backward pass of the whole network. All run on
one thread in turn, and the least processor time of several rounds counts, which other load hardly
changes.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2 import winograd
from detectnet_v2.convolution import Convolution
from detectnet_v2.model import DetectNetV2
from detectnet_v2.trainer import skip_idle_biases

WIDTH, HEIGHT = 480, 272
# Channels in and out, height and width.
LAYERS = [
    (64, 64, 68, 120),
    (128, 128, 34, 60),
    (256, 256, 17, 30),
    (256, 512, 17, 30),
    (512, 512, 17, 30),
]
NETWORKS = {
    "contiguous, oneDNN": (torch.contiguous_format, False),
    "channels_last, oneDNN": (torch.channels_last, False),
    "channels_last, own products": (torch.channels_last, True),
}


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="%(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument(
        "--width-factor", type=float, default=1.0, help="share of the network's filters"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread;")
    print(" ".join(sys.argv))
    print(f"{'GMAC/s, direct algorithm':34}{'forward':>9}{'Winograd':>9}{'weights':>9}{'own':>9}")
    for layer in LAYERS:
        print(f"{'{} to {}, {} x {}'.format(*layer):34}", end="")
        print("".join(f"{rate:>9.1f}" for rate in layer_rates(*layer, args.batch, args.rounds)))
    print(f"{'ms an image':34}{'forward':>9}{'backward':>9}{'both':>9}")
    for title, seconds in network_times(args.batch, args.rounds, args.width_factor).items():
        milliseconds = [1000 * value / args.batch for value in (*seconds, sum(seconds))]
        print(f"{title:34}" + "".join(f"{value:>9.1f}" for value in milliseconds))


def least(work: Callable[[], object], rounds: int) -> float:
    """Least processor seconds of some work."""
    times = []
    for _ in range(rounds):
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return min(times)


def layer_rates(
    inputs: int, outputs: int, height: int, width: int, batch: int, rounds: int
) -> list[float]:
    """GMAC/s of forward pass and weight gradient, by oneDNN and by the toolkit."""
    images = torch.randn(batch, inputs, height, width).to(memory_format=torch.channels_last)
    kernel = torch.randn(outputs, inputs, 3, 3).to(memory_format=torch.channels_last)
    gradient = torch.randn_like(F.conv2d(images, kernel, padding=1))

    def onednn_weights() -> None:
        torch.ops.aten.convolution_backward(
            *(gradient, images, kernel, None, [1, 1], [1, 1], [1, 1]),
            *(False, [0, 0], 1, [False, True, False]),
        )

    macs = batch * height * width * inputs * outputs * 9
    steps = (
        lambda: F.conv2d(images, kernel, padding=1),
        lambda: winograd.convolve(images, kernel),
        onednn_weights,
        lambda: winograd.weight_gradient(images, gradient),
    )
    return [macs / least(step, rounds) / 1e9 for step in steps]


def network_times(batch: int, rounds: int, factor: float) -> dict[str, tuple[float, float]]:
    """Least seconds of a batch's forward and backward pass, by network."""
    images = torch.rand(batch, 3, HEIGHT, WIDTH)
    models = {name: network(*settings, factor) for name, settings in NETWORKS.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            given = images.to(memory_format=NETWORKS[name][0])
            started = time.thread_time()
            bbox, coverage = model(given)
            loss = bbox.sum() + coverage.sum()
            between = time.thread_time()
            loss.backward()
            times[name].append((between - started, time.thread_time() - between))
            model.zero_grad(set_to_none=True)
    return {name: tuple(map(min, zip(*pairs, strict=True))) for name, pairs in times.items()}


def network(layout: torch.memory_format, by_products: bool, factor: float) -> DetectNetV2:
    """A new ResNet18, as it trains."""
    torch.manual_seed(0)
    widths = {
        name: max(16, int(width * factor) // 8 * 8)
        for name, width in DetectNetV2(18, 2).widths.items()
    }
    model = DetectNetV2(18, 2, widths=widths, input_width=WIDTH, input_height=HEIGHT)
    model = model.train().to(memory_format=layout)
    skip_idle_biases(model)
    for module in model.modules():
        if isinstance(module, Convolution):
            module.by_products = by_products
    return model


if __name__ == "__main__":
    main()
