"""How many processor cores a process may use, and should."""

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time, or "max", and the period they are for; containers have it."""


def available_cores(quota: Path = QUOTA) -> int:
    """Cores that this process may use: its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if quota.is_file():
        limit, period = quota.read_text(encoding="ascii").split()
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return cores


def job_threads() -> int:
    """Threads to use: OMP_NUM_THREADS, which Snakemake sets to a job's, or the available cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return (int(given) if given.isdigit() else 0) or available_cores()
