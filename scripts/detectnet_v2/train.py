"""Task `train`: train a DetectNet_v2 on tfrecords, on a CPU or on GPUs."""

import argparse
import logging
import time
from pathlib import Path

from google.protobuf import text_format

from detectnet_v2.launch import launch
from detectnet_v2.spec import load_experiment
from detectnet_v2.status import StatusLog, task_status
from detectnet_v2.whole_file import write_text
from detectnet_v2.without_effect import settings_without_effect

DEFAULT_SPEC = Path(__file__).with_name("default_spec.txt")
"""Taken without -e: one class, cars, from KITTI's object data under $DATA_BASE_PATH."""

_LOG = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NVIDIA's flags of this task; --gpus and --use_amp belong to the program."""
    parser.add_argument(
        "-e",
        "--experiment_spec_file",
        type=Path,
        default=DEFAULT_SPEC,
        help="the spec (one that finds the cars of KITTI)",
    )
    parser.add_argument(
        "-r",
        "--results_dir",
        type=Path,
        default=Path.home() / "experiments" / time.strftime("drivenet_%Y%m%d_%H%M%S"),
        help="folder for the model and the logs (~/experiments/drivenet_<time>)",
    )
    parser.add_argument("-n", "--model_name", default="model", help="name of the model (model)")
    parser.add_argument("-k", "--key", help="accepted and not used: models are not encrypted here")
    parser.add_argument(
        "--enable_determinism", action="store_true", help="repeatable results on a GPU, slower"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print more")


def run(args: argparse.Namespace) -> int:
    """Train; returns 0, or raises DetectNetError or KeyboardInterrupt."""
    processes = getattr(args, "gpus", 1) or 1
    with task_status(args.results_dir, "DetectNet_v2 Training", append=True) as status:
        _LOG.info("spec %s, results in %s", args.experiment_spec_file, args.results_dir)
        experiment = load_experiment(args.experiment_spec_file)
        for line in settings_without_effect(experiment):
            _LOG.warning("%s", line)
        write_text(
            args.results_dir / "experiment_spec.txt", text_format.MessageToString(experiment)
        )
        if processes == 1:
            train_process(args, status)
        else:
            launch(args, processes, status)
    return 0


def train_process(
    args: argparse.Namespace, status: StatusLog, *, rank: int = 0, processes: int = 1
) -> None:
    """Train in this process, the one of number ``rank``; only that of number 0 writes files."""
    import torch  # noqa: PLC0415

    from detectnet_v2.training import Run, train  # noqa: PLC0415

    experiment = load_experiment(args.experiment_spec_file)
    if args.enable_determinism or experiment.native.deterministic:
        torch.use_deterministic_algorithms(True)
    run = Run(
        experiment,
        args.results_dir,
        args.model_name,
        rank=rank,
        processes=processes,
        use_amp=getattr(args, "use_amp", False),
    )
    path = train(run, status)
    if rank == 0:
        _LOG.info("wrote %s", path)
