"""The course of a training: from samples to a model file, with resume, validation and logs."""

import logging
import math
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from detectnet_v2 import loader, objectives, spec_pb2
from detectnet_v2.augmentation import Augmenter
from detectnet_v2.checkpoint import CheckpointFolder, training_digest
from detectnet_v2.dataset import Sample, target_classes, training_samples, validation_samples
from detectnet_v2.distillation import teacher_from_spec
from detectnet_v2.errors import DetectNetError
from detectnet_v2.image_cache import content_digest, default_directory, open_images
from detectnet_v2.model import DetectNetV2, freeze
from detectnet_v2.model_file import load_model, load_pretrained, save_model
from detectnet_v2.precision import (
    available_cores,
    choose_precision,
    requested_precision,
    set_threads,
)
from detectnet_v2.status import StatusLog
from detectnet_v2.trainer import StepResult, Trainer
from detectnet_v2.training_log import Events, Progress, TrainingTable, clock
from detectnet_v2.validation import Validation, Validator

_LOG = logging.getLogger(__name__)
_CHECKPOINT_SECONDS = 300.0
_DEFAULT_CHECKPOINT_INTERVAL = 10


@dataclass(frozen=True)
class Run:
    """What to train and where; ``rank`` numbers the ``processes`` of a distributed training."""

    experiment: spec_pb2.Experiment
    results_dir: Path
    name: str
    rank: int = 0
    processes: int = 1
    use_amp: bool = False

    @property
    def model_path(self) -> Path:
        """The file that is written in the end."""
        return self.results_dir / "weights" / f"{self.name}.hdf5"


@dataclass
class _State:
    """Where a training stands within its epoch, saved beside the trainer's state."""

    loss_sum: float = 0.0
    seconds: float = 0.0


def train(run: Run, status: StatusLog) -> Path:
    """Train until the last epoch and write the model; returns its path.

    An interrupt (SIGINT, SIGTERM) saves the state and raises KeyboardInterrupt. Raises
    DetectNetError for unusable input and for a loss that is not finite.
    """
    return _Training(run, status).run()


def build_model(experiment: spec_pb2.Experiment) -> DetectNetV2:
    """The network of ``model_config`` with its initial, pretrained or loaded weights.

    Raises DetectNetError when it cannot be built, or a loaded graph has another input size.
    """
    config = experiment.model_config
    size = experiment.augmentation_config.preprocessing
    width, height = size.output_image_width, size.output_image_height
    classes = target_classes(experiment)
    pretrained = config.pretrained_model_file
    if config.arch not in ("", "resnet"):
        raise DetectNetError(f"model_config.arch: {config.arch!r}: only resnet is supported")
    if size.output_image_channel not in (0, 3):
        raise DetectNetError(
            f"augmentation_config.preprocessing.output_image_channel: "
            f"{size.output_image_channel}: only 3 is supported"
        )
    if config.load_graph:
        if not pretrained:
            raise DetectNetError("model_config.load_graph needs a pretrained_model_file")
        model = load_model(pretrained, classes=classes)
        if (model.input_width, model.input_height) != (width, height):
            raise DetectNetError(
                f"{pretrained} takes {model.input_width} x {model.input_height} images, "
                f"augmentation_config.preprocessing makes {width} x {height}: set the model's size"
            )
        if config.freeze_blocks or config.freeze_bn:
            _LOG.warning("model_config: freezing has no effect with load_graph")
        return model.train()
    model = DetectNetV2(
        config.num_layers or 18,
        len(classes),
        use_pooling=config.use_pooling,
        all_projections=config.all_projections,
        use_batch_norm=config.use_batch_norm,
        input_height=height,
        input_width=width,
        class_names=classes,
    )
    if pretrained:
        _LOG.info("%s", load_pretrained(model, pretrained))
    elif config.freeze_blocks:
        raise DetectNetError("model_config.freeze_blocks needs a pretrained_model_file")
    freeze(model, config.freeze_blocks, config.freeze_bn)
    return model.train()


class _Training:
    def __init__(self, run: Run, status: StatusLog) -> None:
        self._run = run
        self._status = status
        self._experiment = experiment = run.experiment
        self._epochs = experiment.training_config.num_epochs
        self._batch_size = experiment.training_config.batch_size_per_gpu
        self._samples = training_samples(experiment)
        held_out = validation_samples(experiment)
        self._order = loader.TrainingOrder(
            len(self._samples),
            self._batch_size,
            seed=experiment.random_seed,
            rank=run.rank,
            processes=run.processes,
        )
        self._threads = set_threads(experiment.native.threads, run.processes)
        torch.set_flush_denormal(True)
        self._workers = experiment.native.workers or max(1, available_cores() // run.processes // 2)
        digest = content_digest([sample.image for sample in self._samples])
        self._maker = self._batch_maker(self._samples, held_out, digest)

        config = experiment.model_config
        files = [config.pretrained_model_file, experiment.native.distillation.teacher_model_file]
        requested = requested_precision(experiment, run.use_amp)
        self._folder = CheckpointFolder(
            run.results_dir / "checkpoints",
            training_digest(
                experiment,
                self._samples,
                digest,
                [Path(file) for file in files if file],
                processes=run.processes,
                precision=requested,
            ),
        )
        saved = self._folder.load()
        torch.manual_seed(experiment.random_seed)
        model = build_model(experiment)
        device = _device(run.rank)
        model = model.to(device, memory_format=torch.channels_last)
        # A probe may decide otherwise on a busy machine; a training keeps what it began with.
        self._precision = choose_precision(
            saved["precision"] if saved else requested, model, device
        )
        self._trainer = Trainer(
            experiment,
            model,
            precision=self._precision,
            steps_per_epoch=self._order.steps,
            teacher=teacher_from_spec(experiment, model, self._precision),
        )
        self._state = _State()
        if saved:
            self._trainer.load_state_dict(saved["trainer"])
            self._state = _State(**saved["state"])
            _LOG.info("resuming after step %d of %d", self._trainer.step, self._total_steps)
        self._validator = None
        if held_out and run.rank == 0:
            self._validator = Validator(
                experiment,
                held_out,
                self._batch_maker(held_out, self._samples, None),
                self._precision,
                self._trainer.cost,
            )

    @property
    def _total_steps(self) -> int:
        return self._epochs * self._order.steps

    @property
    def _leads(self) -> bool:
        return self._run.rank == 0

    def run(self) -> Path:
        if self._leads:
            self._describe()
        start = self._trainer.step
        self._saved_at = time.monotonic()
        logs = _Logs(self) if self._leads else None
        work = self._order.batches(start, self._total_steps)
        try:
            with (
                _stop_signals() as stop,
                loader.Prefetcher(self._maker.training, work, workers=self._workers) as batches,
            ):
                self._steps(batches, stop, logs)
        finally:
            if logs:
                logs.close()
        if self._leads:
            with self._trainer.evaluated_model() as model:
                save_model(model, self._run.model_path)
            self._folder.remove()
        return self._run.model_path

    def _steps(self, batches: loader.Prefetcher, stop: "_Stop", logs: "_Logs | None") -> None:
        # Reading a value of a GPU waits for it, so there results are looked at one step late.
        lag = 1 if self._precision.device.type == "cuda" else 0
        results: deque[StepResult] = deque()
        started = time.monotonic()
        for batch in batches:
            results.append(self._trainer.run_step(batch, stop_requested=stop.requested))
            ends_epoch = self._trainer.step % self._order.steps == 0
            while len(results) > (0 if ends_epoch else lag):
                stopping = self._look_at(results.popleft(), logs)
            self._state.seconds += time.monotonic() - started
            if ends_epoch:
                self._end_epoch(logs)
            if stopping:
                self._save()
                raise KeyboardInterrupt
            if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
                while results:
                    self._look_at(results.popleft(), logs)
                self._save()
            if ends_epoch and self._trainer.schedule.finished(self._trainer.step):
                _LOG.info("the schedule ends the training after %d steps", self._trainer.step)
                break
            started = time.monotonic()

    def _look_at(self, result: StepResult, logs: "_Logs | None") -> bool:
        """Check and log a step; returns whether a process was asked to stop."""
        loss, gradient_norm, stopping = result.values[-3:].tolist()
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            what = "loss" if not math.isfinite(loss) else "gradient"
            names = ", ".join(self._samples[i].frame_id for i in result.batch.indices)
            raise DetectNetError(
                f"step {result.step} (epoch {result.step // self._order.steps + 1}): the {what} "
                f"is not finite; images of its batch: {names}. Lower max_learning_rate, or set "
                "native.gradient_clip_norm"
            )
        self._state.loss_sum += loss
        if logs:
            logs.step(result.step, loss)
        return stopping > 0

    def _end_epoch(self, logs: "_Logs | None") -> None:
        epoch = self._trainer.step // self._order.steps
        validation = None
        if self._validator is not None and self._validates(epoch):
            with self._trainer.evaluated_model() as model:
                validation = self._validator.run(model)
            if self._run.processes == 1:
                self._trainer.schedule.validated(self._trainer.step, validation.cost)
        self._trainer.cost.end_epoch()
        if logs:
            logs.epoch(epoch, validation)
        self._state = _State()
        interval = (
            self._experiment.training_config.checkpoint_interval or _DEFAULT_CHECKPOINT_INTERVAL
        )
        if epoch % interval == 0 and epoch < self._epochs:
            self._save()

    def _validates(self, epoch: int) -> bool:
        config = self._experiment.evaluation_config
        if epoch == self._epochs:
            return True
        period = config.validation_period_during_training
        first = config.first_validation_epoch
        return bool(period) and epoch >= first and (epoch - first) % period == 0

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._leads:
            self._folder.save(
                {
                    "precision": self._precision.name,
                    "trainer": self._trainer.state_dict(),
                    "state": vars(self._state).copy(),
                }
            )
            _LOG.debug("saved the state after step %d", self._trainer.step)

    def _batch_maker(
        self, samples: list[Sample], others: list[Sample], digest: str | None
    ) -> loader.BatchMaker:
        config = self._experiment.augmentation_config
        size = config.preprocessing.output_image_width, config.preprocessing.output_image_height
        stretched = config.preprocessing.enable_auto_resize
        paths = [sample.image for sample in samples]
        folder = self._experiment.native.cache_directory
        images = open_images(
            paths,
            directory=Path(folder) if folder else default_directory(),
            digest=digest or content_digest(paths),
            size=size if stretched else None,
        )
        everything = [*samples, *others]
        canvas = (
            size
            if stretched
            else (max(s.width for s in everything), max(s.height for s in everything))
        )
        box = self._experiment.model_config.objective_set.bbox
        return loader.BatchMaker(
            samples,
            images,
            augmenter=Augmenter(config, self._experiment.native.augmentation, canvas=canvas),
            ellipses=loader.ellipse_configs(self._experiment),
            seed=self._experiment.random_seed,
            box_scale=box.scale or objectives.SCALE,
            box_offset=box.offset or objectives.OFFSET,
            stretched=stretched,
        )

    def _describe(self) -> None:
        _LOG.info(
            "training on %d images, %d steps an epoch, %d epochs; %s, %s, %d threads, %d loaders",
            len(self._samples),
            self._order.steps,
            self._epochs,
            self._precision.device,
            self._precision.name,
            self._threads,
            self._workers,
        )


class _Logs:
    """All that the leading process writes down about a training's course."""

    def __init__(self, training: _Training) -> None:
        run = training._run
        self._training = training
        self._status = training._status
        self._steps = training._order.steps
        self._epochs = training._epochs
        self._images = training._batch_size * run.processes
        start = training._trainer.step
        self._classes = target_classes(run.experiment)
        self._table = TrainingTable(
            run.results_dir / "training.csv", self._classes, first_epoch=start // self._steps + 1
        )
        self._events = Events(run.results_dir / "events", first_step=start)
        self._every = run.experiment.training_config.visualizer.scalar_logging_frequency or 10
        self._progress = Progress(
            first_step=start, total_steps=training._total_steps, images_per_step=self._images
        )

    def step(self, step: int, loss: float) -> None:
        """Note one step, counted from 0."""
        self._progress.update(step + 1, step // self._steps + 1, self._epochs, loss)
        if step % self._every == 0:
            rate = self._training._trainer.schedule.learning_rate(step)
            self._events.scalars({"loss": loss, "learning_rate": rate}, step)

    def epoch(self, epoch: int, validation: Validation | None) -> None:
        """Note a finished epoch, counted from 1."""
        state = self._training._state
        step = epoch * self._steps
        loss = state.loss_sum / self._steps
        rate = self._training._trainer.schedule.learning_rate(step - 1)
        speed = self._steps * self._images / max(state.seconds, 1e-9)
        row = {
            "epoch": epoch,
            "loss": f"{loss:.8g}",
            "learning_rate": f"{rate:.6g}",
            "images_per_second": f"{speed:.2f}",
        }
        self._status.graphical = {"loss": loss, "learning_rate": rate}
        self._status.kpi = {}
        text = f"epoch {epoch}/{self._epochs}: loss {loss:.6f}, {speed:.1f} images/s"
        if validation is not None:
            row |= {
                "validation_cost": f"{validation.cost:.8g}",
                "mAP": f"{validation.mean_average_precision:.4f}",
            }
            row |= {
                f"AP {name}": f"{validation.average_precision[name]:.4f}" for name in self._classes
            }
            self._status.kpi = {
                "validation cost": validation.cost,
                "mean average precision": validation.mean_average_precision,
            }
            self._events.scalars(
                {
                    "validation/cost": validation.cost,
                    "validation/mAP": validation.mean_average_precision,
                    **{
                        f"validation/AP {name}": value
                        for name, value in validation.average_precision.items()
                    },
                },
                step,
            )
            text += f", mAP {validation.mean_average_precision:.2f} %"
        self._table.add(row)
        left = (self._epochs - epoch) * state.seconds
        self._status.write(
            text,
            epoch=epoch,
            max_epoch=self._epochs,
            time_per_epoch=clock(state.seconds),
            eta=clock(left),
        )
        _LOG.info("%s, ETA %s", text, clock(left))

    def close(self) -> None:
        """Close the files and the progress bar."""
        self._progress.close()
        self._events.close()


class _Stop:
    """Whether a signal has asked the training to stop."""

    requested = False


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; the next one acts."""
    stop = _Stop()
    before = {}

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _device(rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    return device
