"""`train --gpus 2` on a CPU: two processes that meet in gloo."""

import json
import multiprocessing
import operator
import os
import signal
import struct
import subprocess
import textwrap
import time

import psutil
import pytest
import torch
from detectnet_v2 import cli, launch
from detectnet_v2.interruption import Stop
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import save_model

from .training_runs import (
    HEIGHT,
    WIDTH,
    assert_equal_weights,
    command,
    table,
    without_speed,
)


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(spec, tmp_path, environment):
    """Batch norms must be frozen for that: each process has the statistics of its own batch."""
    torch.manual_seed(1)
    pretrained = tmp_path / "pretrained.hdf5"
    save_model(DetectNetV2(10, 2, input_height=HEIGHT, input_width=WIDTH), pretrained)
    config = f'pretrained_model_file: "{pretrained}" freeze_bn: true'
    for name, batch, gpus in (("one", 8, "1"), ("two", 4, "2")):
        path = spec(model_config=config, epochs=3, batch=batch, rate=1e-4)
        subprocess.run(
            command(path, tmp_path / name, "--gpus", gpus),
            env=environment,
            check=True,
            capture_output=True,
        )
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    for row, other in zip(one, two, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)
    assert float(one[-1]["loss"]) < float(one[0]["loss"])
    assert_equal_weights(tmp_path / "one", tmp_path / "two", tolerance=2e-4)


@pytest.fixture
def patched(environment, tmp_path):
    """A function that returns the environment in which a text of Python runs in each process.

    `RANK` in the text is the process's number, and `wrap(class, name)` decorates a function that
    takes the place of a method: it gets the method, then what that would get.
    """

    def make(text: str) -> dict[str, str]:
        folder = tmp_path / "patch"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            "import functools, sys, time\n"
            "if '--multiprocessing-fork' in sys.argv:\n"
            "    import torch\n"
            "    from detectnet_v2 import checkpoint, loader, trainer\n"
            "    RANK = torch.distributed.get_rank\n"
            "    def wrap(kind, name):\n"
            "        method = getattr(kind, name)\n"
            "        def decorate(function):\n"
            "            setattr(kind, name, lambda *a: function(method, *a))\n"
            "        return decorate\n" + textwrap.indent(text, "    ")
        )
        path = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
        return environment | {"PYTHONPATH": path}

    return make


def run_two(spec, results, environment, timeout=300):
    return subprocess.run(
        command(spec, results, "--gpus", "2"),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_each_process_gets_a_gpu_of_those_that_are_shown(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launch.visible_gpus(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8")
    assert launch.visible_gpus(2) == ["5", "GPU-8"]


def test_reports_longer_than_a_pipe_holds_arrive():
    """All processes of a large batch may name all of its images."""
    context = multiprocessing.get_context("spawn")
    workers, reports = [], []
    for rank in range(2):
        report, sender = context.Pipe(duplex=False)
        send = operator.methodcaller("send", ("user", str(rank) * 300_000))
        workers.append(context.Process(target=send, args=(sender,), daemon=True))
        workers[-1].start()
        sender.close()
        reports.append(report)
    said, failed = launch._wait(workers, reports, Stop())
    assert failed is None
    assert sorted(said) == [("user", "0" * 300_000), ("user", "1" * 300_000)]


def test_half_a_report_is_none():
    report, sender = multiprocessing.Pipe(duplex=False)
    # The length comes first.
    os.write(sender.fileno(), struct.pack("!i", 1000) + b"half")
    sender.close()
    silent = [report]
    assert launch._receive(silent) == []
    assert silent == []


def test_a_process_that_fails_alone_does_not_leave_the_other_waiting(spec, tmp_path, patched):
    """NCCL tells nobody that a peer is gone, so the other process here waits deaf to signals."""
    environment = patched(
        """
@wrap(trainer.Trainer, "run_step")
def run_step(method, self, *arguments):
    if self.step == 2:
        if RANK() == 1:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        while True:
            time.sleep(1)
    return method(self, *arguments)
"""
    )
    done = run_two(spec(), tmp_path / "results", environment, timeout=300)
    assert done.returncode == cli.FAILED
    assert f"detectnet_v2 train: {cli.OUT_OF_MEMORY}\n" in done.stderr
    assert "Traceback" not in done.stderr
    last = json.loads((tmp_path / "results/status.json").read_text().splitlines()[-1])
    assert (last["status"], last["message"]) == ("FAILURE", cli.OUT_OF_MEMORY)


def test_a_loss_that_is_not_finite_names_the_batch_of_its_process(spec, tmp_path, patched):
    environment = patched(
        """
@wrap(loader.BatchMaker, "training")
def training(method, self, epoch, first, indices):
    batch = method(self, epoch, first, indices)
    if RANK() == 1 and epoch == 1:
        batch.targets.weight[0] = float("nan")
        print("spoilt:", *(self._samples[i].frame_id for i in indices), flush=True)
    return batch
"""
    )
    done = run_two(spec(), tmp_path / "results", environment)
    assert done.returncode == cli.FAILED
    spoilt = next(line for line in done.stdout.splitlines() if line.startswith("spoilt:"))
    names = ", ".join(spoilt.split()[1:])
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("detectnet_v2")]
    assert f"step 2 (epoch 2): the loss is not finite; images of its batch: {names}. " in line


@pytest.mark.slow
def test_ctrl_c_waits_for_the_state_however_long_that_takes(spec, tmp_path, patched, environment):
    """A terminal sends the signal to all processes, and the launching one passes it on."""
    slow = patched(
        """
@wrap(checkpoint.CheckpointFolder, "save")
def save(method, *arguments):
    time.sleep(9)
    method(*arguments)

@wrap(trainer.Trainer, "run_step")
def run_step(method, self, *arguments):
    time.sleep(0.3)
    return method(self, *arguments)
"""
    )
    path = spec(epochs=12, training="checkpoint_interval: 100")
    results = tmp_path / "results"
    process = subprocess.Popen(
        command(path, results, "--gpus", "2"),
        env=slow,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (results / "training.csv").is_file() or not table(results):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == cli.INTERRUPTED
    assert [path.name for path in (results / "checkpoints").iterdir()] == ["state.pt"]
    done = run_two(path, results, environment)
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stderr
    assert [row["epoch"] for row in table(results)] == [str(epoch) for epoch in range(1, 13)]
    last = json.loads((results / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    assert last["kpi"]["mean average precision"] == pytest.approx(
        float(table(results)[-1]["mAP"]), abs=1e-3
    )
    assert run_two(path, tmp_path / "whole", environment).returncode == 0
    assert_equal_weights(results, tmp_path / "whole", tolerance=1e-6)
    assert without_speed(table(results)) == without_speed(table(tmp_path / "whole"))


@pytest.mark.parametrize("gpus", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_sigterm_saves_the_state_and_is_no_success(spec, tmp_path, environment, gpus):
    """As a cluster's scheduler ends a job, and tells only the process that it started."""
    results = tmp_path / "results"
    process = subprocess.Popen(
        command(spec(epochs=1000, training="checkpoint_interval: 5000"), results, "--gpus", gpus),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not (results / "training.csv").is_file() or not table(results):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    assert not (results / "checkpoints/state.pt").exists()
    process.terminate()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED
    assert output.splitlines()[-1] == "Execution status: FAIL"
    assert errors.splitlines()[-1] == "detectnet_v2 train: interrupted"
    assert "Traceback" not in errors
    assert [path.name for path in (results / "checkpoints").iterdir()] == ["state.pt"]
    assert not (results / "weights").exists()
    last = json.loads((results / "status.json").read_text().splitlines()[-1])
    assert (last["status"], last["message"]) == (
        "FAILURE",
        "DetectNet_v2 Training was interrupted",
    )


@pytest.mark.slow
def test_processes_end_with_the_one_that_launched_them(spec, tmp_path, environment):
    results = tmp_path / "results"
    process = subprocess.Popen(
        command(spec(epochs=1000), results, "--gpus", "2"),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not (results / "training.csv").is_file() or not table(results):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not alive


@pytest.mark.slow
def test_an_error_in_several_processes_is_one_line(spec, tmp_path, environment):
    done = subprocess.run(
        command(spec(batch=64), tmp_path / "results", "--gpus", "2"),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == cli.FAILED
    assert "detectnet_v2 train: training_config.batch_size_per_gpu is 64" in done.stderr
    assert "Traceback" not in done.stderr
