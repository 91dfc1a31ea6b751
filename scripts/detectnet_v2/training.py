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
from detectnet_v2.dataset import target_classes, training_samples, validation_samples
from detectnet_v2.distillation import teacher_from_spec
from detectnet_v2.errors import DetectNetError
from detectnet_v2.image_cache import content_digest
from detectnet_v2.interruption import Stop, stop_signals
from detectnet_v2.model_file import save_model
from detectnet_v2.precision import available_cores, requested_precision, set_threads
from detectnet_v2.status import StatusLog
from detectnet_v2.trainer import StepResult, Trainer
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
_DEFAULT_SCALAR_STEPS = 10


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
            weights=loader.balancing_weights(
                self._samples, len(target_classes(experiment)), experiment.native.class_balance
            ),
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
        self._workers = experiment.native.workers or max(1, available_cores() // run.processes // 2)

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
                scalar_steps=visualizer.scalar_logging_frequency or _DEFAULT_SCALAR_STEPS,
            )
        work = self._order.batches(self._trainer.step, self._total_steps)
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
            self._folder.remove()
        return self._run.model_path

    def _steps(self, batches: loader.Prefetcher, stop: Stop) -> None:
        # Reading a value of a GPU waits for it, so there a result is looked at one step late.
        lag = 1 if self._precision.device.type == "cuda" else 0
        results: deque[StepResult] = deque()
        started = time.monotonic()
        for batch in batches:
            results.append(self._trainer.run_step(batch, stop_requested=stop.requested))
            ends_epoch = self._trainer.step % self._order.steps == 0
            overdue = time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS
            stopping = False
            while len(results) > (0 if ends_epoch or overdue else lag):
                stopping |= self._look_at(results.popleft())
            self._epoch.seconds += time.monotonic() - started
            if ends_epoch:
                overdue |= self._end_epoch()
            if stopping:
                self._save()
                raise KeyboardInterrupt
            if overdue:
                self._save()
            if ends_epoch and self._trainer.schedule.finished(self._trainer.step):
                _LOG.info("the schedule ends the training after %d steps", self._trainer.step)
                break
            started = time.monotonic()

    def _look_at(self, result: StepResult) -> bool:
        """Check and log a step; returns whether a process was asked to stop."""
        loss, gradient_norm, stopping = result.values[-3:].tolist()
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            what = "gradient" if math.isfinite(loss) else "loss"
            names = ", ".join(self._samples[i].frame_id for i in result.batch.indices)
            raise DetectNetError(
                f"step {result.step} (epoch {result.step // self._order.steps + 1}): the {what} "
                f"is not finite; images of its batch: {names}. Lower max_learning_rate, or set "
                "native.gradient_clip_norm"
            )
        self._epoch.loss_sum += loss
        if self._log:
            rate = self._trainer.schedule.learning_rate(result.step)
            self._log.step(result.step, loss, rate)
        return stopping > 0

    def _end_epoch(self) -> bool:
        """Validate, adjust the weights, log; returns whether a checkpoint is due."""
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
        return epoch % interval == 0 and epoch < self._config.num_epochs

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
        if epoch == self._config.num_epochs:
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
                    "epoch": asdict(self._epoch),
                }
            )
            _LOG.debug("saved the state after step %d", self._trainer.step)
