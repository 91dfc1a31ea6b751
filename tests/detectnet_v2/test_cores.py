"""The cores that a process may use."""

import os
import subprocess
import sys

import pytest
from detectnet_v2.cores import available_cores, job_threads


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000\n", 8), ("250000 100000\n", 2), ("20000 100000\n", 1)]
)
def test_a_containers_quota_limits_the_cores(monkeypatch, tmp_path, text, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert available_cores(quota) == expected


def test_a_system_without_affinities_counts_all_cores(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cores(tmp_path / "none") == os.cpu_count()


def test_counting_cores_does_not_load_pytorch(repository):
    code = "import sys, detectnet_v2.cores; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(repository / "scripts")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_job_takes_the_threads_that_it_was_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert job_threads() == 3
    for nothing in ("", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert job_threads() == available_cores()
