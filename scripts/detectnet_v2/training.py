"""The course of a training: from samples to a model file, with resume, validation and logs."""

import logging
import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import torch

from detectnet_v2 import curriculum, loader, spec_pb2
from detectnet_v2.allocator import keep_freed_memory
from detectnet_v2.checkpoint import CheckpointFolder, training_digest
from detectnet_v2.cores import job_threads
from detectnet_v2.dataset import target_classes, training_samples, validation_samples
from detectnet_v2.distillation import teacher_from_spec
from detectnet_v2.errors import DetectNetError
from detectnet_v2.image_cache import content_digest
from detectnet_v2.interruption import Stop, stop_signals
from detectnet_v2.model_file import save_model
from detectnet_v2.precision import requested_precision, set_threads
from detectnet_v2.status import StatusLog
from detectnet_v2.trainer import Reading, StepResult, Trainer, Wishes
from detectnet_v2.training_log import TrainingLog
from detectnet_v2.training_setup import (
    agreed_precision,
    batch_maker,
    build_model,
    check_supported,
    largest_size,
    training_device,
)
from detectnet_v2.validation import Validation, Validator

_LOG = logging.getLogger(__name__)
# However long an epoch is, a kill costs at most about this much.
_CHECKPOINT_SECONDS = 300.0
_DEFAULT_CHECKPOINT_INTERVAL = 10
_DEFAULT_SCALARS_PER_EPOCH = 10
# Waiting for images is spoken of when it takes this share of an epoch that is worth the words.
_MUCH_WAITING = 0.2
_LONG_EPOCH_SECONDS = 30.0
# Reading a value of a GPU waits for it, so there a step's result is looked at one step late.
_LAG = {"cpu": 0, "cuda": 1}


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

    def epoch_path(self, epoch: int) -> Path:
        """The model after an epoch, under the name that NVIDIA's train gives it."""
        return self.results_dir / f"model.epoch-{epoch}.hdf5"


@dataclass
class _Epoch:
    """What has happened in the epoch so far; saved with the trainer's state."""

    loss_sum: float = 0.0
    seconds: float = 0.0


def train(run: Run, status: StatusLog) -> Path:
    """Train until the last epoch and write the model; returns its path.

    An interrupt (SIGINT, SIGTERM) saves the state and raises KeyboardInterrupt. Raises
    DetectNetError for unusable input and for a loss that is not finite.
    """
    return _Training(run).run(status)


class _Training:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._experiment = experiment = run.experiment
        check_supported(experiment)
        self._config = experiment.training_config
        self._threads = set_threads(experiment.native.threads, run.processes)
        # Each loader thread works on an image of its own.
        cv2.setNumThreads(1)
        # Arithmetic with denormal numbers is many times slower, and moments of Adam become such.
        torch.set_flush_denormal(True)
        device = training_device(run.rank)
        if device.type == "cpu":
            keep_freed_memory()

        self._samples = training_samples(experiment)
        held_out = validation_samples(experiment)
        self._order = loader.TrainingOrder(
            len(self._samples),
            self._config.batch_size_per_gpu,
            seed=experiment.random_seed,
            rank=run.rank,
            processes=run.processes,
            weights=loader.sampling_weights(self._samples, experiment),
        )
        self._curriculum = curriculum.from_spec(experiment)
        canvas = largest_size([*self._samples, *held_out])
        digest = content_digest([sample.image for sample in self._samples])
        self._maker = batch_maker(
            experiment,
            self._samples,
            digest=digest,
            canvas=canvas,
            pin_memory=device.type == "cuda",
        )
        self._workers = experiment.native.workers or max(1, job_threads() // run.processes // 2)

        files = [
            experiment.model_config.pretrained_model_file,
            experiment.native.distillation.teacher_model_file,
        ]
        precision_name = requested_precision(experiment, run.use_amp)
        self._folder = CheckpointFolder(
            run.results_dir / "checkpoints",
            training_digest(
                experiment,
                self._samples,
                digest,
                [Path(file) for file in files if file],
                processes=run.processes,
                precision=precision_name,
            ),
        )
        saved = self._folder.load()
        torch.manual_seed(experiment.random_seed)
        model = build_model(experiment).to(device, memory_format=torch.channels_last)
        # A probe may turn out otherwise on a busy machine; a training keeps what it began with.
        self._precision = agreed_precision(
            saved["precision"] if saved else precision_name, model, device
        )
        self._trainer = Trainer(
            experiment,
            model,
            precision=self._precision,
            steps_per_epoch=self._order.steps,
            teacher=teacher_from_spec(experiment, model, self._precision),
        )
        self._epoch = _Epoch()
        if saved:
            self._trainer.load_state_dict(saved["trainer"])
            self._epoch = _Epoch(**saved["epoch"])
            _LOG.info("resuming after step %d of %d", self._trainer.step, self._total_steps)
        self._saved_at = time.monotonic()
        self._log: TrainingLog | None = None
        self._validates = bool(held_out)
        self._validator: Validator | None = None
        if held_out and self._leads:
            digest = content_digest([sample.image for sample in held_out])
            self._validator = Validator(
                experiment,
                held_out,
                batch_maker(experiment, held_out, digest=digest, canvas=canvas),
                self._precision,
                self._trainer.cost,
            )

    @property
    def _total_steps(self) -> int:
        return self._config.num_epochs * self._order.steps

    @property
    def _leads(self) -> bool:
        return self._run.rank == 0

    def run(self, status: StatusLog) -> Path:
        if self._leads:
            _LOG.info(
                "training on %d images, %d steps an epoch, %d epochs; "
                "%d x %s, %s, %d threads, %d loaders",
                len(self._samples),
                self._order.steps,
                self._config.num_epochs,
                self._run.processes,
                self._precision.device.type,
                self._precision.name,
                self._threads,
                self._workers,
            )
            if self._curriculum.scales:
                _LOG.info("images: %s", self._curriculum.describe())
            visualizer = self._config.visualizer
            self._log = TrainingLog(
                self._run.results_dir,
                status,
                target_classes(self._experiment),
                first_step=self._trainer.step,
                steps_per_epoch=self._order.steps,
                epochs=self._config.num_epochs,
                images_per_step=self._config.batch_size_per_gpu * self._run.processes,
                work=self._curriculum.work(),
                scalar_steps=max(
                    self._order.steps
                    // (visualizer.scalar_logging_frequency or _DEFAULT_SCALARS_PER_EPOCH),
                    1,
                ),
            )
        first = last = self._trainer.step
        # It may have been interrupted just then.
        if not self._trainer.schedule.finished(first):
            last = self._total_steps
        work = self._order.batches(first, last)
        try:
            with (
                stop_signals() as stop,
                loader.Prefetcher(self._maker.training, work, workers=self._workers) as batches,
            ):
                self._steps(batches, stop)
        finally:
            if self._log:
                self._log.close()
        if self._leads:
            with self._trainer.evaluated_model() as model:
                save_model(model, self._run.model_path)
            self._remove_stale()
            self._folder.remove()
        return self._run.model_path

    def _remove_stale(self) -> None:
        """Remove the models of later epochs, which a longer training has left in this folder."""
        last = self._trainer.step // self._order.steps
        for path in self._run.results_dir.glob("model.epoch-*.hdf5"):
            number = path.stem.removeprefix("model.epoch-")
            if number.isdecimal() and int(number) > last:
                path.unlink()

    def _steps(self, batches: loader.Prefetcher, stop: Stop) -> None:
        lag = _LAG[self._precision.device.type]
        results: deque[StepResult] = deque()
        waited = 0.0
        tells = self._leads
        started = time.monotonic()
        for batch in batches:
            wishes = Wishes(stop.requested, self._leads and self._is_overdue())
            results.append(self._trainer.run_step(batch, wishes))
            ends_epoch = self._trainer.step % self._order.steps == 0
            # All processes must do the same after the same step, so only what the step's values
            # say counts from here on.
            stopping, saving = self._look_at(results, 0 if ends_epoch else lag)
            if stopping or saving:
                stopping |= self._look_at(results, 0)[0]
            self._epoch.seconds += time.monotonic() - started
            finished = False
            if ends_epoch:
                tells = tells and not self._has_waited(batches.waited - waited)
                waited = batches.waited
                saving |= self._end_epoch()
                finished = self._trainer.schedule.finished(self._trainer.step)
            if stopping or saving:
                self._save()
            if stopping:
                raise KeyboardInterrupt
            if finished:
                _LOG.info("the schedule ends the training after %d steps", self._trainer.step)
                break
            started = time.monotonic()

    def _has_waited(self, seconds: float) -> bool:
        """Say it when an epoch has waited long for its images, as beside a GPU; returns whether."""
        share = seconds / max(self._epoch.seconds, 1e-9)
        is_much = share > _MUCH_WAITING and self._epoch.seconds > _LONG_EPOCH_SECONDS
        if is_much:
            _LOG.info(
                "%.0f %% of this epoch went by waiting for images: where cores are idle, more "
                "loaders (native.workers, here %d) make it shorter",
                100 * share,
                self._workers,
            )
        return is_much

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS

    def _look_at(self, results: deque[StepResult], left: int) -> tuple[bool, bool]:
        """Check and log all but the last ``left``; returns whether to stop and whether to save."""
        stopping = saving = False
        while len(results) > left:
            result = results.popleft()
            reading = result.read()
            if not (math.isfinite(reading.loss) and math.isfinite(reading.gradient_norm)):
                raise DetectNetError(self._not_finite(result.step, reading))
            self._epoch.loss_sum += reading.loss
            if self._log:
                rate = self._trainer.schedule.learning_rate(result.step)
                self._log.step(result.step, reading.loss, rate)
            stopping |= reading.stop
            saving |= reading.save
        return stopping, saving

    def _not_finite(self, step: int, reading: Reading) -> str:
        # Gradients are averaged, so that all processes have those of the one that broke.
        ranks = reading.broken or range(self._run.processes)
        names = [
            self._samples[i].frame_id for rank in ranks for i in self._order.samples(step, rank)
        ]
        what = "gradient" if math.isfinite(reading.loss) else "loss"
        return (
            f"step {step} (epoch {step // self._order.steps + 1}): the {what} is not finite; "
            f"images of its batch: {', '.join(names)}. Lower max_learning_rate, or set "
            "native.gradient_clip_norm"
        )

    def _end_epoch(self) -> bool:
        """Validate, adjust the weights, log, keep the model; returns whether to save the state."""
        epoch = self._trainer.step // self._order.steps
        validation = self._validation() if self._validates and self._is_validated(epoch) else None
        self._trainer.cost.end_epoch()
        if self._log:
            self._log.epoch(
                epoch,
                loss=self._epoch.loss_sum / self._order.steps,
                learning_rate=self._trainer.schedule.learning_rate(self._trainer.step - 1),
                seconds=self._epoch.seconds,
                validation=validation,
            )
        self._epoch = _Epoch()
        interval = self._config.checkpoint_interval or _DEFAULT_CHECKPOINT_INTERVAL
        is_last = epoch == self._config.num_epochs or self._trainer.schedule.finished(
            self._trainer.step
        )
        if self._leads and (epoch % interval == 0 or is_last):
            with self._trainer.evaluated_model() as model:
                save_model(model, self._run.epoch_path(epoch))
        return epoch % interval == 0 and not is_last

    def _validation(self) -> Validation | None:
        """Validate in the leading process, and tell the schedule of every process the cost."""
        validation = None
        cost = torch.zeros((), dtype=torch.float64, device=self._precision.device)
        if self._validator is not None:
            with self._trainer.evaluated_model() as model:
                validation = self._validator.run(model)
            cost.fill_(validation.cost)
        if self._run.processes > 1:
            torch.distributed.broadcast(cost, src=0)
        self._trainer.schedule.validated(self._trainer.step, cost.item())
        return validation

    def _is_validated(self, epoch: int) -> bool:
        config = self._experiment.evaluation_config
        if epoch == self._config.num_epochs or self._trainer.schedule.finished(self._trainer.step):
            return True
        period = config.validation_period_during_training
        first = config.first_validation_epoch
        return epoch >= first and (epoch - first) % period == 0

    def _save(self) -> None:
        """Save the state; every process returns when the leading one has written it."""
        if self._leads:
            self._folder.save(
                {
                    "precision": self._precision.name,
                    "trainer": self._trainer.state_dict(),
                    "epoch": asdict(self._epoch),
                }
            )
            _LOG.debug("saved the state after step %d", self._trainer.step)
        self._saved_at = time.monotonic()
        if self._run.processes > 1:
            torch.distributed.barrier()
