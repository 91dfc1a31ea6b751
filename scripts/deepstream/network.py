"""Runs the detector's ONNX with ONNX Runtime, as nvinfer runs its TensorRT engine."""

import logging
import tempfile
from pathlib import Path

import numpy as np
from etlt.codec import Codec, key_from_environment
from etlt.container import read_header
from etlt.errors import EtltError

from deepstream.errors import DeepStreamError

log = logging.getLogger("deepstream")


def load_model(path: Path, key: str | None) -> bytes | str:
    """Return what ONNX Runtime takes: the path of an .onnx, or the payload of an .etlt.

    The key of an .etlt that its config does not hold comes from the environment (ETLT_KEY).
    Raises DeepStreamError for an .etlt without NVIDIA's codec or its key, or around UFF.
    """
    if path.suffix != ".etlt":
        return str(path)
    try:
        with path.open("rb") as file:
            if read_header(file, str(path)):
                raise DeepStreamError(f"{path}: holds UFF, which only TensorRT up to 8.6 can run")
        with tempfile.TemporaryDirectory(prefix="etlt-") as folder:
            opened = Path(folder) / "model.onnx"
            Codec.from_environment().decrypt(path, opened, key or key_from_environment())
            return opened.read_bytes()
    except EtltError as error:
        raise DeepStreamError(f"{path}: {error}; or run the .onnx that it was made from") from error


class Network:
    """One loaded DetectNet_v2: `dims` (C, H, W) and a thread-safe `run`.

    Tensors are found as nvinfer's parser finds them, by the substrings "bbox" and "cov".
    """

    def __init__(
        self,
        path: Path,
        *,
        dims: tuple[int, int, int] | None = None,
        key: str | None = None,
        threads: int = 0,
        output_names: tuple[str, ...] = (),
    ):
        """Load a model; `dims` are infer-dims, `threads` per call, 0 for one a core.

        Raises DeepStreamError when the file is no model, or does not fit `dims` or the parser.
        """
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        model = load_model(path, key)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers())
        # ONNX Runtime's exceptions have no common base but this one.
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise DeepStreamError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
        self.path = path
        self._input = self._only_input()
        self.dims = self._settle_dims(dims)
        names = [output.name for output in self._session.get_outputs()]
        for name in output_names:
            if name not in names:
                log.warning("%s: output-blob-names: the model has no output %r", path, name)
        self._outputs = [self._find(names, part) for part in ("bbox", "cov")]

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a batch (n, C, H, W) float32: boxes (n, 4K, h, w), coverage (n, K, h, w)."""
        bbox, coverage = self._session.run(self._outputs, {self._input.name: tensor})
        return bbox, coverage

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that is fixed in the model, None when any is accepted."""
        size = self._input.shape[0]
        return size if isinstance(size, int) else None

    def _only_input(self):
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(f"{i.name} {i.shape}" for i in inputs)
            raise DeepStreamError(f"{self.path}: expected one input N,C,H,W, found {shapes}")
        return inputs[0]

    def _settle_dims(self, wanted):
        fixed = self._input.shape[1:]
        if wanted is None:
            if not all(isinstance(size, int) for size in fixed):
                raise DeepStreamError(
                    f"{self.path}: input {self._input.name} has free dimensions {fixed}, "
                    f"the config needs infer-dims"
                )
            return tuple(fixed)
        for size, asked in zip(fixed, wanted, strict=True):
            if isinstance(size, int) and size != asked:
                raise DeepStreamError(
                    f"{self.path}: infer-dims={';'.join(map(str, wanted))} but the model's input "
                    f"is {'x'.join(map(str, fixed))} (channels, height, width): swapped?"
                )
        return tuple(wanted)

    def _find(self, names, part):
        found = [name for name in names if part in name]
        if len(found) != 1:
            raise DeepStreamError(
                f"{self.path}: the parser needs one output with {part!r} in its name, "
                f"found {', '.join(names)}"
            )
        return found[0]


def providers() -> list[str]:
    """ONNX Runtime's providers to try, CUDA first where its package is installed."""
    import onnxruntime  # noqa: PLC0415

    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]
