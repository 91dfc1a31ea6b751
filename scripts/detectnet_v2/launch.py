"""`train --gpus N`: one process a GPU, or on CPU cores where there is none, and who watches them.

The processes meet in collective operations, where one waits for ever when another is gone. So the
launching process ends all of them once one has failed, and they end when it is killed itself.
"""

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
import traceback
from datetime import timedelta
from multiprocessing import connection, parent_process
from typing import Any

from detectnet_v2.errors import DetectNetError
from detectnet_v2.interruption import Stop, stop_signals
from detectnet_v2.status import StatusLog

# The other processes wait this long while the first one validates.
_PATIENCE = timedelta(hours=6)
# What a process may still say after another one has failed: gloo tells it, NCCL does not.
_GRACE_SECONDS = 5.0
# A traceback must fit into a pipe that nobody reads before the process has ended.
_LONGEST_TEXT = 20_000
_FINISHED, _USER, _INTERRUPT, _PROGRAM = "finished", "user", "interrupt", "program"


def launch(args: argparse.Namespace, processes: int, status: StatusLog) -> None:
    """Train in several processes; ``status`` gets the figures of the last line.

    Raises:
        DetectNetError: there are too few GPUs, or a process found bad input.
        KeyboardInterrupt: SIGINT or SIGTERM came; by then the state is saved.
        RuntimeError: a process failed; the message holds its traceback.
    """
    import torch  # noqa: PLC0415

    gpus: list[str] = []
    if torch.cuda.is_available():
        if torch.cuda.device_count() < processes:
            raise DetectNetError(
                f"--gpus {processes}: there are only {torch.cuda.device_count()} GPUs here"
            )
        gpus = visible_gpus(torch.cuda.device_count())
    context = torch.multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()
    with (
        stop_signals() as stop,
        tempfile.TemporaryDirectory(prefix="detectnet_v2-") as folder,
    ):
        store = f"file://{folder}/store"
        workers = [
            context.Process(target=_work, args=(args, rank, processes, store, gpus, reports))
            for rank in range(processes)
        ]
        try:
            for worker in workers:
                worker.start()
            failed = _wait(workers, stop)
        finally:
            for worker in workers:
                if worker.pid is not None:
                    worker.kill()
                    worker.join()
    found = []
    while not reports.empty():
        found.append(reports.get())
    if failed is not None:
        _raise(found, failed, stop)
    for kind, content in found:
        if kind == _FINISHED:
            status.graphical, status.kpi = content


def visible_gpus(count: int) -> list[str]:
    """Names of the GPUs that CUDA shows here, for CUDA_VISIBLE_DEVICES of a process with one."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(number) for number in range(count)]


def _work(
    args: argparse.Namespace,
    rank: int,
    processes: int,
    store: str,
    gpus: list[str],
    reports: Any,
) -> None:
    """One process of several; what stops it is put into ``reports`` as (kind, text)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpus:
        # Before CUDA starts: no thread can then take memory of another process's GPU by mistake.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[rank]
    import torch  # noqa: PLC0415

    from detectnet_v2.cli import LOG_FORMAT  # noqa: PLC0415 - the module imports this one
    from detectnet_v2.train import train_process  # noqa: PLC0415 - as well

    level = logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(
        format=LOG_FORMAT,
        level=level if rank == 0 else logging.WARNING,
        filename=getattr(args, "log_file", None),
    )
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    status = StatusLog(args.results_dir / "status.json" if rank == 0 else None, append=True)
    try:
        torch.distributed.init_process_group(
            backend, init_method=store, rank=rank, world_size=processes, timeout=_PATIENCE
        )
        train_process(args, status, rank=rank, processes=processes)
        torch.distributed.destroy_process_group()
        report = _FINISHED, (status.graphical, status.kpi)
    except DetectNetError as error:
        report = _USER, str(error)
    except KeyboardInterrupt:
        report = _INTERRUPT, ""
    except Exception:  # noqa: BLE001 - the launching process raises it
        report = _PROGRAM, traceback.format_exc()[-_LONGEST_TEXT:]
    if report[0] == _FINISHED:
        if rank == 0:
            reports.put(report)
        return
    reports.put(report)
    logging.shutdown()
    # Not by an exit: taking down the process group would wait for the others.
    os._exit(1)


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _wait(workers: list, stop: Stop) -> int | None:
    """Wait for all processes, or until one fails; returns the exit code of that one.

    A request to stop is passed on once. A terminal has sent it to the processes already, which
    take both for one.
    """
    waiting = list(workers)
    told = False
    while waiting:
        connection.wait([worker.sentinel for worker in waiting], timeout=0.2)
        if stop.requested and not told:
            told = True
            for worker in waiting:
                if worker.is_alive():
                    os.kill(worker.pid, signal.SIGINT)
        ended = [worker for worker in waiting if worker.exitcode is not None]
        waiting = [worker for worker in waiting if worker not in ended]
        failed = [worker.exitcode for worker in ended if worker.exitcode]
        if failed:
            deadline = time.monotonic() + _GRACE_SECONDS
            for worker in waiting:
                worker.join(max(deadline - time.monotonic(), 0))
            return failed[0]
    return None


def _raise(reports: list[tuple[str, Any]], exit_code: int, stop: Stop) -> None:
    """Raise what stopped the first process; what follows is often only that its peer is gone."""
    texts = {kind: text for kind, text in reversed(reports)}
    if _USER in texts:
        raise DetectNetError(texts[_USER])
    if _INTERRUPT in texts or stop.requested:
        raise KeyboardInterrupt
    if _PROGRAM in texts:
        raise RuntimeError(f"a training process failed:\n{texts[_PROGRAM]}")
    raise DetectNetError(
        f"a training process ended with exit code {exit_code} and said nothing: was it killed, "
        "for want of memory perhaps? Lower batch_size_per_gpu or --gpus"
    )
