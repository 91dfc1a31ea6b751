"""Device, number type and threads of a training, chosen from the spec and from what is there."""

import logging
import time
from dataclasses import dataclass

import torch

from detectnet_v2 import spec_pb2
from detectnet_v2.convolution import choose_gradients
from detectnet_v2.cores import job_threads
from detectnet_v2.model import DetectNetV2

_LOG = logging.getLogger(__name__)
_NAMES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# bfloat16 must win clearly: it costs a little precision, and timings vary.
_WORTHWHILE = 0.9
_PROBE_IMAGES = 2
_PROBE_REPEATS = 3


@dataclass(frozen=True)
class Precision:
    """Number type of activations: ``dtype`` is None for float32 throughout."""

    name: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        """Type that autocast uses; None when there is no autocast."""
        return _NAMES[self.name]

    def autocast(self) -> torch.autocast:
        """A context for the forward pass."""
        # The cache would keep low-precision copies of weights that are used once a step.
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not None, cache_enabled=False
        )


def requested_precision(experiment: spec_pb2.Experiment, use_amp: bool) -> str:
    """'auto' or a type's name, from ``native``, else --use_amp, else ``model_config``."""
    name = experiment.native.precision
    if name:
        return name
    if use_amp:
        return "auto"
    half = spec_pb2.ModelConfig.TrainingPrecision.FLOAT16
    is_half = experiment.model_config.training_precision.backend_floatx == half
    return "float16" if is_half else "float32"


def choose_precision(name: str, model: DetectNetV2, device: torch.device) -> Precision:
    """The precision for ``name``; 'auto' tries on a CPU that has bfloat16 whether it is faster.

    A CPU computes float16 as bfloat16, which needs no loss scaling; a GPU older than bfloat16
    computes that as float16, since PyTorch only emulates it there.
    """
    if device.type == "cpu":
        if name == "float16":
            name = "bfloat16"
        if name == "auto" and not _has_bfloat16():
            name = "float32"
        elif name == "auto":
            choose_gradients(model, device)
            times = {
                candidate: _step_time(model, Precision(candidate, device))
                for candidate in ("float32", "bfloat16")
            }
            faster = times["bfloat16"] < _WORTHWHILE * times["float32"]
            name = "bfloat16" if faster else "float32"
            _LOG.info(
                "one thread trains on an image in %.0f ms as float32, %.0f ms as bfloat16: %s",
                1e3 * times["float32"] / _PROBE_IMAGES,
                1e3 * times["bfloat16"] / _PROBE_IMAGES,
                name,
            )
    elif name in ("auto", "bfloat16"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bfloat16" if native else "float16"
    return Precision(name, device)


def _has_bfloat16() -> bool:
    """Whether the processor computes with bfloat16; others emulate it many times slower."""
    mkldnn = torch.backends.mkldnn.is_available()
    return mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _step_time(model: DetectNetV2, precision: Precision) -> float:
    """Least CPU seconds of a forward and backward pass on one thread.

    One thread's CPU time, unlike the clock's, is the same on a busy machine. Weights and
    statistics stay as they are.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    images = torch.zeros(_PROBE_IMAGES, 3, model.input_height, model.input_width)
    images = images.to(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = float("inf")
    for _ in range(_PROBE_REPEATS):
        started = time.thread_time()
        with precision.autocast():
            bbox, cov = model(images)
        (bbox.sum() + cov.sum()).backward()
        best = min(best, time.thread_time() - started)
        model.zero_grad(set_to_none=True)
    torch.set_num_threads(threads)
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return best


def set_threads(requested: int, processes: int) -> int:
    """Set PyTorch's threads and return their number.

    ``requested`` (``native.threads``) wins; else OMP_NUM_THREADS, or the available cores, are
    shared among the ``processes`` of this training.
    """
    threads = requested
    if not threads:
        threads = max(1, job_threads() // processes)
    torch.set_num_threads(threads)
    return threads
