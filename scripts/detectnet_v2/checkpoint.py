"""The state of an unfinished training, kept beside its results until it is finished."""

import hashlib
import io
import logging
import os
import pickle
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import Sample
from detectnet_v2.errors import DetectNetError
from detectnet_v2.options import EVALUATION_OPTIONS, SPEED_OPTIONS
from detectnet_v2.whole_file import whole_file

_LOG = logging.getLogger(__name__)
# Raised whenever a change to this package makes an older state continue differently.
_FORMAT = 2
_FILE = "state.pt"


def training_digest(
    experiment: spec_pb2.Experiment,
    samples: Sequence[Sample],
    image_digest: str,
    model_files: Iterable[Path],
    *,
    processes: int,
    precision: str,
) -> str:
    """Digest of everything that decides a training's result, in hexadecimal.

    Left out is what only decides where or how fast it runs, or what an evaluation says; of
    ``evaluation_config`` only early stopping asks. ``precision`` is the one that was asked for.
    """
    spec = spec_pb2.Experiment()
    spec.CopyFrom(experiment)
    for name in SPEED_OPTIONS + EVALUATION_OPTIONS:
        spec.native.ClearField(name)
    if spec.native == spec_pb2.NativeConfig():
        spec.ClearField("native")
    spec.training_config.ClearField("visualizer")
    spec.training_config.ClearField("checkpoint_interval")
    spec.ClearField("postprocessing_config")
    if not spec.training_config.learning_rate.HasField("early_stopping_annealing_schedule"):
        spec.ClearField("evaluation_config")
    digest = hashlib.sha256(f"{_FORMAT} {processes} {precision} {image_digest}\n".encode())
    digest.update(spec.SerializeToString(deterministic=True))
    for sample in samples:
        digest.update(
            f"{sample.frame_id} {sample.width} {sample.height} {sample.source_weight}\n".encode()
        )
        digest.update(sample.boxes.tobytes())
        digest.update(sample.classes.tobytes())
    for path in model_files:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DetectNetError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


class CheckpointFolder:
    """The folder of one training's resume state; ``digest`` is its ``training_digest``."""

    def __init__(self, directory: Path, digest: str) -> None:
        self._directory = directory
        self._digest = digest

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state by ``state``, whole or not at all.

        Raises:
            DetectNetError: it cannot be written.
        """
        # Made in memory: torch.save hides what is wrong with a disk.
        content = io.BytesIO()
        torch.save({"digest": self._digest, "state": state}, content)
        with whole_file(self._directory / _FILE) as part, part.open("wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None when there is none that this training can continue."""
        path = self._directory / _FILE
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            _LOG.warning("%s cannot be read (%s): training starts afresh", path, error)
            return None
        if content["digest"] != self._digest:
            _LOG.warning(
                "%s belongs to another training (the spec, the samples, the images, a pretrained "
                "model, the precision or the number of processes differs): training starts afresh",
                path,
            )
            return None
        return content["state"]

    def remove(self) -> None:
        """Delete the folder, once the training is finished."""
        shutil.rmtree(self._directory, ignore_errors=True)
