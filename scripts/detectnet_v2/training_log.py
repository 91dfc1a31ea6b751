"""What a training tells while it runs: a progress bar or log lines, a table, TensorBoard events."""

import csv
import logging
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

_LOG = logging.getLogger(__name__)
_LINE_SECONDS = 30.0


class TrainingTable:
    """``training.csv``: one row an epoch. Rows of epochs that are trained again are replaced."""

    def __init__(self, path: Path, classes: list[str], *, first_epoch: int) -> None:
        self._path = path
        self._columns = [
            "epoch",
            "loss",
            "learning_rate",
            "images_per_second",
            "validation_cost",
            "mAP",
            *(f"AP {name}" for name in classes),
        ]
        rows = []
        if first_epoch > 1 and path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < first_epoch]
        part = path.with_name(f"{path.name}.part")
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self._columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, path)

    def add(self, row: dict[str, object]) -> None:
        """Append the row of one epoch; columns that it lacks stay empty."""
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self._columns).writerow(row)


class Progress:
    """Progress of the steps: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, *, first_step: int, total_steps: int, images_per_step: int) -> None:
        self._total = total_steps
        self._images = images_per_step
        self._first = first_step
        self._started = self._printed = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=first_step, unit="step", smoothing=0.05)

    def update(self, step: int, epoch: int, epochs: int, loss: float) -> None:
        """Report that ``step`` steps are done."""
        text = f"epoch {epoch}/{epochs} loss {loss:.6f}"
        if self._bar is not None:
            self._bar.set_description(text, refresh=False)
            self._bar.set_postfix_str(f"{self.images_per_second(step):.1f} images/s", False)
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._printed >= _LINE_SECONDS:
            self._printed = now
            rate = self.images_per_second(step)
            left = (self._total - step) * self._images / rate
            _LOG.info(
                "%s step %d/%d %.1f images/s ETA %s", text, step, self._total, rate, clock(left)
            )

    def images_per_second(self, step: int) -> float:
        """Images trained on per second since the start, validation included."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return max((step - self._first) * self._images / elapsed, 1e-9)

    def close(self) -> None:
        """Leave the terminal's line as it is and go to the next."""
        if self._bar is not None:
            self._bar.close()


class Events:
    """TensorBoard scalars in a folder."""

    def __init__(self, directory: Path, *, first_step: int) -> None:
        # Slow to import, and of use to train only.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._writer = SummaryWriter(str(directory), purge_step=first_step or None)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write ``values`` at ``step``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def clock(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
