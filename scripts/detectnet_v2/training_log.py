"""What a training tells: a progress bar or log lines, a table, TensorBoard events, status.json."""

import csv
import logging
import os
import sys
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detectnet_v2.evaluation_report import precision_table
from detectnet_v2.progress import draws_bars
from detectnet_v2.status import StatusLog
from detectnet_v2.validation import Validation
from detectnet_v2.whole_file import cannot_write, whole_file

_LOG = logging.getLogger(__name__)
_LINE_SECONDS = 30.0


class TrainingLog:
    """All that the leading process writes down about a training's course."""

    def __init__(
        self,
        results_dir: Path,
        status: StatusLog,
        classes: Sequence[str],
        *,
        first_step: int,
        steps_per_epoch: int,
        epochs: int,
        images_per_step: int,
        scalar_steps: int,
        work: Sequence[float] | None = None,
    ) -> None:
        """``work`` says of each epoch what an image costs, relative to the others, for the ETA."""
        self._status = status
        self._classes = list(classes)
        self._steps = steps_per_epoch
        self._epochs = epochs
        self._images = images_per_step
        self._scalar_steps = scalar_steps
        self._work = [0.0, *accumulate(work or [1.0] * epochs)]
        self._table = TrainingTable(
            results_dir / "training.csv",
            self._classes,
            first_epoch=first_step // steps_per_epoch + 1,
        )
        self._events = Events(results_dir / "events", first_step=first_step)
        self._progress = Progress(
            first_step=first_step,
            total_steps=epochs * steps_per_epoch,
            images_per_step=images_per_step,
            work=self._work,
        )

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Note one step, counted from 0."""
        self._progress.update(step + 1, step // self._steps + 1, self._epochs, loss)
        if step % self._scalar_steps == 0:
            self._events.scalars({"loss": loss, "learning_rate": learning_rate}, step)

    def epoch(
        self,
        epoch: int,
        *,
        loss: float,
        learning_rate: float,
        seconds: float,
        validation: Validation | None,
    ) -> None:
        """Note a finished epoch, counted from 1, which trained for so many ``seconds``."""
        speed = self._steps * self._images / max(seconds, 1e-9)
        row = {
            "epoch": epoch,
            "loss": f"{loss:.8g}",
            "learning_rate": f"{learning_rate:.6g}",
            "images_per_second": f"{speed:.2f}",
        }
        text = f"epoch {epoch}/{self._epochs}: loss {loss:.6f}, {speed:.1f} images/s"
        self._status.graphical = {"loss": loss, "learning_rate": learning_rate}
        self._status.kpi = {}
        table = ""
        if validation is not None:
            mean, each = validation.mean_average_precision, validation.average_precision
            row |= {"validation_cost": f"{validation.cost:.8g}", "mAP": f"{mean:.4f}"}
            row |= {f"AP {name}": f"{each[name]:.4f}" for name in self._classes}
            self._status.kpi = {
                "validation cost": validation.cost,
                "mean average precision": mean,
            }
            scalars = {"validation/cost": validation.cost, "validation/mAP": mean}
            scalars |= {f"validation/AP {name}": each[name] for name in self._classes}
            # At the epoch's last step: a resume from its checkpoint removes what is at the next.
            self._events.scalars(scalars, epoch * self._steps - 1)
            text += f", mAP {mean:.2f} %"
            table = f"\nValidation cost: {validation.cost:f}\n{precision_table(each)}"
        self._table.add(row)
        own, rest = self._work[epoch] - self._work[epoch - 1], self._work[-1] - self._work[epoch]
        left = clock(rest / own * seconds)
        self._status.write(
            text, epoch=epoch, max_epoch=self._epochs, time_per_epoch=clock(seconds), eta=left
        )
        self._progress.message(f"{text}, ETA {left}{table}")

    def close(self) -> None:
        """Close the files and the progress bar."""
        self._progress.close()
        self._events.close()


class TrainingTable:
    """``training.csv``: one row an epoch. Rows of epochs that are trained again are replaced.

    DetectNetError says when it cannot be written.
    """

    def __init__(self, path: Path, classes: Sequence[str], *, first_epoch: int) -> None:
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
        with (
            whole_file(path) as part,
            part.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, self._columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def add(self, row: dict[str, object]) -> None:
        """Append the row of one epoch; columns that it lacks stay empty."""
        size = self._path.stat().st_size
        try:
            with self._path.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, self._columns).writerow(row)
        except OSError as error:
            os.truncate(self._path, size)
            raise cannot_write(self._path, error) from error


class Progress:
    """Progress of the steps: a bar on a terminal, a line now and then elsewhere.

    ``work`` is what has been done before each epoch and in the end, in any unit.
    """

    def __init__(
        self, *, first_step: int, total_steps: int, images_per_step: int, work: Sequence[float]
    ) -> None:
        self._work = work
        self._total = total_steps
        self._images = images_per_step
        self._first = first_step
        self._started = self._printed = time.monotonic()
        self._bar = None
        if draws_bars():
            self._bar = tqdm(total=total_steps, initial=first_step, unit="step", smoothing=0.05)

    def update(self, step: int, epoch: int, epochs: int, loss: float) -> None:
        """Report that ``step`` steps are done."""
        rate = self.images_per_second(step)
        text = f"epoch {epoch}/{epochs} loss {loss:.6f}"
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)
            self._bar.set_postfix_str(f"{rate:.1f} images/s", refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._printed >= _LINE_SECONDS:
            self._printed = now
            left = clock(self.seconds_left(step, now - self._started))
            _LOG.info("%s step %d/%d %.1f images/s ETA %s", text, step, self._total, rate, left)

    def seconds_left(self, step: int, elapsed: float) -> float:
        """Seconds from ``step`` to the end when ``elapsed`` seconds brought us there."""
        done = self._done(step) - self._done(self._first)
        return elapsed * (self._work[-1] - self._done(step)) / max(done, 1e-9)

    def _done(self, step: int) -> float:
        epochs = len(self._work) - 1
        return float(np.interp(step / self._total * epochs, range(epochs + 1), self._work))

    def message(self, text: str) -> None:
        """Print a line of its own."""
        self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            _LOG.info("%s", text)

    def images_per_second(self, step: int) -> float:
        """Images trained on per second since the start, validation included."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return max((step - self._first) * self._images / elapsed, 1e-9)

    def close(self) -> None:
        """Leave the terminal's line as it is and go to the next."""
        if self._bar is not None:
            self._bar.close()


class Events:
    """TensorBoard scalars in a folder; those of an earlier training from ``first_step`` on go."""

    def __init__(self, directory: Path, *, first_step: int) -> None:
        # Slow to import, and of use to train only.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._writer = SummaryWriter(str(directory), purge_step=first_step)

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
