"""`train --gpus N`: one process a GPU, or on CPU cores where there is none, and who watches them.

The processes meet in collective operations, where one waits for ever when another is gone. So the
launching process ends all of them once one has failed, and they end when it is killed itself.
"""

import argparse
import contextlib
import logging
import math
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing import connection, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from detectnet_v2.errors import DetectNetError
from detectnet_v2.interruption import Stop, stop_signals
from detectnet_v2.status import StatusLog

# The other processes wait this long while the first one validates.
_PATIENCE = timedelta(hours=6)
# What a process may still say after another one has failed: gloo tells it, NCCL does not.
_GRACE_SECONDS = 5.0
_FINISHED, _USER, _INTERRUPT, _PROGRAM = "finished", "user", "interrupt", "program"


def launch(args: argparse.Namespace, processes: int, status: StatusLog) -> None:
    """Train in several processes; ``status`` gets the figures of the last line.

    Raises:
        DetectNetError: there are too few GPUs or not those asked for, or a process found bad input.
        KeyboardInterrupt: SIGINT or SIGTERM came; by then the state is saved.
        RuntimeError: a process failed; the message holds its traceback.
    """
    import torch  # noqa: PLC0415

    from detectnet_v2.device import has_usable_gpu  # noqa: PLC0415

    gpus: list[str] = []
    # Why none is used, the first process tells.
    if has_usable_gpu(tell=False):
        if torch.cuda.device_count() < processes:
            raise DetectNetError(
                f"--gpus {processes}: there are only {torch.cuda.device_count()} GPUs here"
            )
        gpus = visible_gpus(torch.cuda.device_count())
    context = torch.multiprocessing.get_context("spawn")
    workers, reports = [], []
    with (
        stop_signals() as stop,
        tempfile.TemporaryDirectory(prefix="detectnet_v2-") as folder,
    ):
        store = f"file://{folder}/store"
        try:
            for rank in range(processes):
                # One pipe each: a queue's lock stays locked when its holder is killed.
                report, sender = context.Pipe(duplex=False)
                worker = context.Process(
                    target=_work, args=(args, rank, processes, store, gpus, sender)
                )
                worker.start()
                sender.close()
                workers.append(worker)
                reports.append(report)
            said, failed = _wait(workers, reports, stop)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
    if failed is not None:
        _raise(said, failed, stop)
    for kind, content in said:
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
    report_to: connection.Connection,
) -> None:
    """One process of several; ``report_to`` is sent (kind, content) of how it ended, once."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpus:
        # Before CUDA starts: no thread can then take memory of another process's GPU by mistake.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[rank]
    import torch  # noqa: PLC0415

    from detectnet_v2.cli import LOG_FORMAT, what_to_do  # noqa: PLC0415 - it imports this module
    from detectnet_v2.train import train_process  # noqa: PLC0415 - as well

    level = logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(
        format=LOG_FORMAT,
        level=level if rank == 0 else logging.WARNING,
        filename=getattr(args, "log_file", None),
    )
    # The one that this process sees: NCCL would otherwise have to guess which is whose.
    device = torch.device("cuda", 0) if gpus else None
    status = StatusLog(args.results_dir / "status.json" if rank == 0 else None, append=True)
    try:
        torch.distributed.init_process_group(
            "nccl" if gpus else "gloo",
            init_method=store,
            rank=rank,
            world_size=processes,
            timeout=_PATIENCE,
            device_id=device,
        )
        train_process(args, status, rank=rank, processes=processes)
        torch.distributed.destroy_process_group()
        report = _FINISHED, (status.graphical, status.kpi)
    except DetectNetError as error:
        report = _USER, str(error)
    except KeyboardInterrupt:
        report = _INTERRUPT, ""
    except Exception as error:  # noqa: BLE001 - the launching process raises it
        text = what_to_do(error)
        report = (_USER, text) if text else (_PROGRAM, traceback.format_exc())
    if report[0] == _FINISHED:
        if rank == 0:
            report_to.send(report)
        return
    report_to.send(report)
    logging.shutdown()
    # Not by an exit: taking down the process group would wait for the others.
    os._exit(1)


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _wait(
    workers: Sequence[BaseProcess], reports: Sequence[connection.Connection], stop: Stop
) -> tuple[list[tuple[str, Any]], int | None]:
    """Wait for all processes, or until one fails and the others have had time to say why.

    A request to stop is passed on once. A terminal has sent it to the processes already, which
    take both for one.

    Returns:
        What came through ``reports``, in the order of its arrival, and the exit code of the first
        process that failed.
    """
    waiting, silent = list(workers), list(reports)
    said: list[tuple[str, Any]] = []
    failed, deadline = None, math.inf
    told = False
    while waiting and time.monotonic() < deadline:
        # Reports are read as they come: a process cannot end before all of its own is.
        connection.wait([*silent, *(worker.sentinel for worker in waiting)], timeout=0.2)
        if stop.requested and not told:
            told = True
            for worker in waiting:
                if worker.is_alive():
                    os.kill(worker.pid, signal.SIGINT)
        ended = [worker for worker in waiting if worker.exitcode is not None]
        waiting = [worker for worker in waiting if worker not in ended]
        said += _receive(silent)
        for worker in ended:
            if worker.exitcode and failed is None:
                failed, deadline = worker.exitcode, time.monotonic() + _GRACE_SECONDS
    return said, failed


def _receive(silent: list[connection.Connection]) -> list[tuple[str, Any]]:
    """Return the reports that are there, and take their pipes out of ``silent``."""
    said = []
    for report in connection.wait(silent, timeout=0):
        silent.remove(report)
        # A killed process has said nothing, or half of it.
        with contextlib.suppress(EOFError, OSError):
            said.append(report.recv())
    return said


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
