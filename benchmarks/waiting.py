"""Training steps a second by how often OpenMP's waiting threads look again before they sleep.

OpenMP's threads meet after every operation. By default the first one there spins for long, and
on a machine that does anything else it may hold the core that the last one needs; a thread that
sleeps has to be woken. `detectnet_v2` sets a count between (GOMP_SPINCOUNT). This compares on an
idle machine and beside programs that keep every core busy, with a ResNet10 as the demo trains it
and with one of an eighth of the filters, whose operations are short. All run in turns; the table
has medians.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SETTINGS = {
    "OpenMP's default": {},
    **{f"{count:,}": {"GOMP_SPINCOUNT": str(count)} for count in (60_000, 30_000, 10_000)},
    "no spinning": {"OMP_WAIT_POLICY": "PASSIVE"},
}
WIDTHS = {"whole": 1.0, "an eighth": 0.125}


def main() -> None:
    """Parse the command line, measure and print the table; or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="%(default)s")
    parser.add_argument("--seconds", type=float, default=6, help="a measurement (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (%(default)s)")
    parser.add_argument("--step", choices=WIDTHS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(steps_per_second(WIDTHS[arguments.step], arguments.batch, arguments.seconds))
        return
    cores = len(os.sched_getaffinity(0))
    titles = ("filters", "other programs", *(f"{name}, steps/s" for name in SETTINGS))
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for filters in WIDTHS:
        for others in (0, cores):
            rates = {name: [] for name in SETTINGS}
            with busy(others):
                for _ in range(arguments.rounds):
                    for name, setting in SETTINGS.items():
                        rates[name].append(measured(filters, setting, arguments))
            medians = [statistics.median(values) for values in rates.values()]
            cells = [f"{value:.2f} ({value / medians[0]:.2f}x)" for value in medians]
            print(f"| {' | '.join([filters, str(others), *cells])} |", flush=True)


def measured(filters: str, setting: dict[str, str], arguments: argparse.Namespace) -> float:
    """Steps a second of a new process with this setting of OpenMP."""
    command = [sys.executable, __file__, "--step", filters, "--batch", str(arguments.batch)]
    command += ["--seconds", str(arguments.seconds)]
    environment = os.environ | setting
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def steps_per_second(share: float, batch: int, seconds: float) -> float:
    """Forward and backward passes a second of a ResNet10 with a share of its filters, at 160x96."""
    sys.path.insert(0, str(SCRIPTS))
    import torch  # noqa: PLC0415 - before the package, which makes a choice of its own
    from detectnet_v2.model import DetectNetV2  # noqa: PLC0415

    whole = DetectNetV2(10, 2, input_height=96, input_width=160)
    widths = {name: max(8, round(width * share)) for name, width in whole.widths.items()}
    model = DetectNetV2(10, 2, widths=widths, input_height=96, input_width=160)
    model = model.to(memory_format=torch.channels_last).train()
    images = torch.rand(batch, 3, 96, 160).to(memory_format=torch.channels_last)

    def step() -> None:
        bbox, cov = model(images)
        (bbox.mean() + cov.mean()).backward()
        model.zero_grad(set_to_none=True)

    step()
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        step()
        count += 1
    return count / (time.monotonic() - started)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """For a while, let so many processes do nothing but count."""
    counting = [multiprocessing.Process(target=_count, daemon=True) for _ in range(processes)]
    for process in counting:
        process.start()
    try:
        yield
    finally:
        for process in counting:
            process.terminate()
            process.join()


def _count() -> None:
    number = 0
    while True:
        number += 1


if __name__ == "__main__":
    main()
