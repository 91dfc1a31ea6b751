"""The command line `detectnet_v2 <task> ...`: NVIDIA's tasks and flags, run by this package.

Exit status, as that of NVIDIA's wrapper: 0 when the task passed, 255 (-1) when it failed for
whatever reason, 2 for a command line that argparse refuses, 1 for the wrapper's flags (--gpus,
--use_amp) that the task does not take. One differs: an interrupt gives 130, where NVIDIA's wrapper
ends with 0, by which a workflow takes half a model for a whole one.
"""

import argparse
import contextlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from datasets.program import REMEDIES, describe

from detectnet_v2.errors import DetectNetError
from detectnet_v2.status import task_status

TASKS = {
    "calibrate": ("calibrate", "find the INT8 scales of an ONNX model (this toolkit only)"),
    "calibration_tensorfile": ("tensorfile", "write training images for INT8 calibration"),
    "dataset_convert": ("dataset_convert", "convert KITTI labels to tfrecords"),
    "evaluate": ("evaluate", "measure the average precision of a model"),
    "export": ("export", "write a model as ONNX"),
    "inference": ("inference", "detect in images, folders and videos"),
    "prune": ("prune", "remove the weakest filters of a model"),
    "quantize": ("quantize", "simulate INT8 in an ONNX model (this toolkit only)"),
    "train": ("train", "train a model"),
}
FAILED = 255
MISUSED = 1
INTERRUPTED = 130
LOG_FORMAT = "%(asctime)s [%(levelname)s] %(name)s: %(message)s"
OUT_OF_MEMORY = (
    "ran out of GPU memory: lower the batch size, end what else runs on the GPU (nvidia-smi lists "
    "it), use a smaller input or a smaller backbone, or compute on the CPU: CUDA_VISIBLE_DEVICES= "
    "in front of the command"
)
# What CUDA, cuDNN and NCCL say in errors of several types, as regular expressions.
GPU_LIMITS = {
    "(?is)cuda.*out of memory|STATUS_ALLOC_FAILED": OUT_OF_MEMORY,
    "no kernel image is available": (
        "this build of PyTorch has no code for this GPU: install one that has (docs/gpu.md), or "
        "compute on the CPU: CUDA_VISIBLE_DEVICES= in front of the command"
    ),
    "busy or unavailable": (
        "another program has the GPU for itself: end it (nvidia-smi lists it), or choose another "
        "with --gpu_index"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one task and return the exit status of the program."""
    argv = sys.argv[1:] if argv is None else list(argv)
    task = next((word for before, word in pairwise(["", *argv]) if _is_task(before, word)), None)
    args = build_parser(task).parse_args(argv)
    module = _task_module(args.task)
    if getattr(args, "gpu_index", None):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, args.gpu_index))
    if getattr(args, "launch_cuda_blocking", False):
        os.environ["CUDA_LAUNCH_BLOCKING"] = "1"
    status = FAILED
    try:
        with _output(getattr(args, "log_file", None)):
            status = _run(module, args)
    except DetectNetError as error:
        print(f"detectnet_v2 {args.task}: {error}", file=sys.stderr, flush=True)
    finally:
        print(f"Execution status: {'FAIL' if status else 'PASS'}", flush=True)
    return status


def _is_task(before: str, word: str) -> bool:
    """Is a word of the command line a task, and not the value of one of the wrapper's flags?"""
    return word in TASKS and before not in ("--log_file", "--mpirun-arg")


def build_parser(task: str | None) -> argparse.ArgumentParser:
    """Return the parser; only the module of `task` is imported, for the flags of that task."""
    flags = _wrapper_flags()
    # A flag cut short would hide from main() which word is the task.
    parser = argparse.ArgumentParser(
        "detectnet_v2",
        parents=[flags],
        description="DetectNet_v2 without a GPU or a container.",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(title="tasks", dest="task", metavar="task", required=True)
    for name, (_, summary) in TASKS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary, parents=[flags])
        if name == task:
            _task_module(name).add_arguments(subparser)
    return parser


def _wrapper_flags() -> argparse.ArgumentParser:
    """Return the flags that NVIDIA's wrapper takes before or after the name of the task."""
    # No defaults: those of the task's parser would overwrite what was given before its name.
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--gpus", type=int, help="number of GPUs (1)")
    parser.add_argument("--gpu_index", type=int, nargs="+", help="which GPUs")
    parser.add_argument("--use_amp", action="store_true", help="mixed precision (train only)")
    parser.add_argument("--log_file", type=Path, help="append to this file instead of printing")
    parser.add_argument("--num_processes", "-np", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--mpirun-arg", help=argparse.SUPPRESS)
    parser.add_argument("--multi-node", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--launch_cuda_blocking", action="store_true", help=argparse.SUPPRESS)
    return parser


def _task_module(task: str):
    return importlib.import_module(f"detectnet_v2.{TASKS[task][0]}")


def _run(module, args: argparse.Namespace) -> int:
    """Run the task; what a user can put right becomes one line a problem, else a traceback."""
    verbose = getattr(args, "verbose", False)
    logging.basicConfig(
        format=getattr(module, "LOG_FORMAT", LOG_FORMAT),
        level=logging.DEBUG if verbose else logging.INFO,
        stream=sys.stderr,
        force=True,
    )
    if verbose:
        for chatty in ("PIL", "matplotlib", "h5py", "torch"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        if problem := _wrapper_problem(args):
            folder, name = getattr(args, "results_dir", None), f"DetectNet_v2 {args.task}"
            with task_status(folder, name, append=args.task == "train"):
                raise DetectNetError(problem)
        return module.run(args)
    except DetectNetError as error:
        problems = str(error).splitlines()
    except KeyboardInterrupt:
        print(f"detectnet_v2 {args.task}: interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    except Exception as error:
        problems = [what_to_do(error)]
        if not all(problems):
            logging.getLogger(__name__).exception("an error of the program")
            return FAILED
    for line in problems:
        print(f"detectnet_v2 {args.task}: {line}", file=sys.stderr, flush=True)
    return MISUSED if problem else FAILED


def what_to_do(error: Exception) -> str:
    """One line where the machine is at its limits; nothing for an error of the program."""
    # torch.OutOfMemoryError by its name: importing torch here would slow every task down.
    if type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError):
        for sign, remedy in GPU_LIMITS.items():
            if re.search(sign, str(error)):
                return remedy
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return describe(error)
    return ""


def _wrapper_problem(args: argparse.Namespace) -> str:
    """Return what is wrong with the wrapper's flags; nothing where they fit the task."""
    gpus = getattr(args, "gpus", 1)
    if gpus < 1:
        return f"--gpus {gpus}: at least 1 is needed (it counts CPUs as one, too)"
    if gpus > 1 and args.task != "train":
        return f"--gpus {gpus}: only train runs on several GPUs, use --gpus 1"
    if getattr(args, "use_amp", False) and args.task != "train":
        return "--use_amp: only train has mixed precision, leave the flag away"
    return ""


@contextlib.contextmanager
def _output(log_file: Path | None) -> Iterator[None]:
    """Send what is printed to `log_file` for a while, if there is one.

    Raises:
        DetectNetError: the file cannot be opened.
    """
    if log_file is None:
        yield
        return
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        # Names of files can hold bytes that are no UTF-8.
        opened = log_file.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise DetectNetError(
            f"--log_file {log_file}: cannot be written ({error.strerror}): name another file"
        ) from error
    with (
        opened as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield
