"""Task `train`: train a DetectNet_v2 on tfrecords, on a CPU or on GPUs."""

import argparse
import logging
import signal
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from detectnet_v2.errors import DetectNetError
from detectnet_v2.spec import load_experiment
from detectnet_v2.status import StatusLog, task_status

_LOG = logging.getLogger(__name__)
# The other processes wait this long while the first one validates.
_PATIENCE = timedelta(hours=6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NVIDIA's flags of this task; --gpus and --use_amp belong to the program."""
    parser.add_argument("-e", "--experiment_spec_file", type=Path, required=True, help="the spec")
    parser.add_argument(
        "-r", "--results_dir", type=Path, required=True, help="folder for the model and the logs"
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
    load_experiment(args.experiment_spec_file)
    if processes == 1:
        _train(args, rank=0, processes=1)
    else:
        _launch(args, processes)
    return 0


def _train(args: argparse.Namespace, *, rank: int, processes: int) -> None:
    import torch  # noqa: PLC0415

    from detectnet_v2.training import Run, train  # noqa: PLC0415

    if getattr(args, "enable_determinism", False):
        torch.use_deterministic_algorithms(True)
    experiment = load_experiment(args.experiment_spec_file)
    run = Run(
        experiment,
        args.results_dir,
        args.model_name,
        rank=rank,
        processes=processes,
        use_amp=getattr(args, "use_amp", False),
    )
    if rank > 0:
        train(run, StatusLog(None))
        return
    args.results_dir.mkdir(parents=True, exist_ok=True)
    with task_status(args.results_dir, "DetectNet_v2 Training", append=True) as status:
        spec = text_format.MessageToString(experiment)
        (args.results_dir / "experiment_spec.txt").write_text(spec, encoding="utf-8")
        _LOG.info("wrote %s", train(run, status))


def _launch(args: argparse.Namespace, processes: int) -> None:
    """Train in several processes, one a GPU, or on CPU cores where there is none."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise DetectNetError(
            f"--gpus {processes}: there are only {torch.cuda.device_count()} GPUs here"
        )
    context = torch.multiprocessing.get_context("spawn")
    failures = context.SimpleQueue()
    interrupt = signal.getsignal(signal.SIGINT)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with tempfile.TemporaryDirectory(prefix="detectnet_v2-") as folder:
            store = f"file://{folder}/store"
            workers = [
                context.Process(target=_work, args=(args, rank, processes, store, failures))
                for rank in range(processes)
            ]
            for worker in workers:
                worker.start()
            # A terminal sends Ctrl-C to all processes, and those that train save and end.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: [worker.terminate() for worker in workers])
            _wait(workers, failures)
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


def _work(args: argparse.Namespace, rank: int, processes: int, store: str, failures: Any) -> None:
    """One process of several; what stops it is put into ``failures`` as (kind, text)."""
    import torch  # noqa: PLC0415

    from detectnet_v2.cli import LOG_FORMAT  # noqa: PLC0415 - the module imports this one

    level = logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(
        format=LOG_FORMAT,
        level=level if rank == 0 else logging.WARNING,
        filename=getattr(args, "log_file", None),
    )
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=store, rank=rank, world_size=processes, timeout=_PATIENCE
    )
    try:
        _train(args, rank=rank, processes=processes)
    except DetectNetError as error:
        failures.put(("user", str(error)))
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        failures.put(("interrupt", ""))
        raise SystemExit(1) from error
    except Exception:
        failures.put(("program", traceback.format_exc()))
        raise
    torch.distributed.destroy_process_group()


def _wait(workers: list, failures: Any) -> None:
    """Wait for all processes; when one fails, stop the others and raise what it raised."""
    waiting = list(workers)
    while waiting:
        for worker in list(waiting):
            worker.join(timeout=0.2)
            if worker.exitcode is None:
                continue
            waiting.remove(worker)
            if worker.exitcode:
                for other in waiting:
                    other.join(timeout=5)
                    other.terminate()
                    other.join()
                _raise(failures, worker.exitcode)


def _raise(failures: Any, exit_code: int) -> None:
    if failures.empty():
        raise DetectNetError(f"a training process ended with exit code {exit_code}")
    kind, text = failures.get()
    if kind == "user":
        raise DetectNetError(text)
    if kind == "interrupt":
        raise KeyboardInterrupt
    raise RuntimeError(f"a training process failed:\n{text}")
