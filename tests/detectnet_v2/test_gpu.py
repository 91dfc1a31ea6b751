"""Trainings and evaluations on a real GPU, held against the CPU's: `make test-gpu`.

TEST_DEVICE names the device; on `cpu` the tests rehearse, which shows no more than that they run.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from detectnet_v2 import cli, trainer, training
from detectnet_v2.cost import Targets
from detectnet_v2.device import has_usable_gpu
from detectnet_v2.loader import Batch
from detectnet_v2.model_file import load_model
from detectnet_v2.network import load_network
from detectnet_v2.precision import Precision
from detectnet_v2.training_setup import training_device

from .test_train_steps import batch, experiment, small_model
from .training_runs import (
    CLASSES,
    assert_equal_weights,
    command,
    table,
    train,
    without_speed,
)

WANTED = os.environ.get("TEST_DEVICE", "")
CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not WANTED, reason="needs a GPU: make test-gpu")
on_gpus_only = pytest.mark.skipif(WANTED != "cuda", reason="a rehearsal on the CPU")


@pytest.fixture
def target() -> torch.device:
    device = training_device(0)
    assert device.type == WANTED, f"PyTorch {torch.__version__} computes on {device.type} here"
    return device


@pytest.fixture
def exact():
    """Repeatable and in whole float32, as `--enable_determinism` and an evaluation are."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture
def on_the_cpu(environment) -> dict[str, str]:
    return environment | {"CUDA_VISIBLE_DEVICES": ""}


def interrupt_in_the_middle(path, results, monkeypatch):
    run_step = trainer.Trainer.run_step

    def interrupted(self, *arguments):
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return run_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "run_step", interrupted)
        assert train(path, results) == cli.INTERRUPTED
    assert (results / "checkpoints/state.pt").is_file()


def test_the_gpu_is_used(target):
    assert has_usable_gpu() == (WANTED == "cuda")
    assert torch.zeros(1, device=target).add(1).item() == 1


def test_steps_are_those_of_the_cpu(target, exact):
    losses = []
    for device in (CPU, target):
        model = small_model().to(device, memory_format=torch.channels_last)
        one = trainer.Trainer(
            experiment(), model, precision=Precision("float32", device), steps_per_epoch=5
        )
        losses.append([one.run_step(batch(seed)).read().loss for seed in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@on_gpus_only
def test_a_step_does_not_wait_for_the_gpu(target):
    model = small_model().to(target, memory_format=torch.channels_last)
    one = trainer.Trainer(
        experiment(), model, precision=Precision("float32", target), steps_per_epoch=5
    )
    made = batch()
    targets = Targets(*(value.pin_memory() for value in vars(made.targets).values()))
    pinned = Batch(made.images.pin_memory(), targets, made.indices)
    # What is allocated and chosen in the first steps may wait.
    for _ in range(3):
        one.run_step(pinned)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = one.run_step(pinned)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(result.read().loss)


@pytest.mark.parametrize("name", ["auto", "float32", "bfloat16", "float16"])
def test_every_number_type_learns(target, spec, narrow, tmp_path, name):
    native = (
        f'precision: "{name}" ema_decay: 0.9 gradient_clip_norm: 1 coverage_focal_gamma: 1 '
        "input_scales { until: 0.3 scale: 0.5 } augmentation { mosaic_probability: 0.3 } "
        f'distillation {{ teacher_model_file: "{narrow}" weight: 1 }}'
    )
    assert train(spec(epochs=10, native=native), tmp_path / "results") == 0
    rows = table(tmp_path / "results")
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])


def test_with_determinism_seeds_repeat_and_a_resumed_training_is_exact(
    target, exact, spec, tmp_path, monkeypatch, capfd
):
    path = spec(native="ema_decay: 0.9 input_scales { until: 0.5 scale: 0.5 }")
    for name in ("one", "two"):
        assert train(path, tmp_path / name) == 0
    assert_equal_weights(tmp_path / "one", tmp_path / "two")
    interrupt_in_the_middle(path, tmp_path / "resumed", monkeypatch)
    assert train(path, tmp_path / "resumed") == 0
    assert "resuming after step" in capfd.readouterr().err
    assert_equal_weights(tmp_path / "one", tmp_path / "resumed")
    assert without_speed(table(tmp_path / "one")) == without_speed(table(tmp_path / "resumed"))


@pytest.mark.parametrize("name", ["float32", "float16", "auto"])
def test_a_training_moves_from_the_gpu_to_the_cpu(
    target, spec, tmp_path, monkeypatch, on_the_cpu, name
):
    path = spec(native=f'precision: "{name}" ema_decay: 0.9')
    interrupt_in_the_middle(path, tmp_path / "results", monkeypatch)
    done = subprocess.run(
        command(path, tmp_path / "results"),
        env=on_the_cpu,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stderr
    assert "1 x cpu" in done.stderr


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_training_moves_from_the_cpu_to_the_gpu(target, spec, tmp_path, monkeypatch, capfd, name):
    path = spec(native=f'precision: "{name}" ema_decay: 0.9')
    with monkeypatch.context() as patch:
        patch.setattr(training, "training_device", lambda rank: CPU)
        interrupt_in_the_middle(path, tmp_path / "results", monkeypatch)
    assert train(path, tmp_path / "results") == 0
    said = capfd.readouterr().err
    assert "resuming after step" in said
    assert f"1 x {WANTED}" in said


def test_a_models_figures_are_those_of_the_cpu(target, spec, narrow, tmp_path, on_the_cpu):
    path = spec(epochs=8)
    assert train(path, tmp_path / "results") == 0
    model = tmp_path / "results/weights/model.hdf5"
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    found = load_network(model, list(CLASSES))(images)
    with torch.inference_mode():
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = load_model(model)(inputs)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    flags = ["evaluate", "-e", str(path), "-m", str(model), "-r"]
    assert cli.main([*flags, str(tmp_path / "gpu")]) == 0
    program = [sys.executable, "-m", "detectnet_v2", *flags, str(tmp_path / "cpu")]
    subprocess.run(program, env=on_the_cpu, check=True, capture_output=True)
    figures = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("gpu", "cpu")
    ]
    assert figures[0]["mAP"] == pytest.approx(figures[1]["mAP"], abs=0.01)


@pytest.mark.timeout(1800)
def test_a_compiled_network_trains_alike(target, spec, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("torch.compile needs a C compiler")
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        path = spec(epochs=2, rate=1e-4, native=f'precision: "float32" compile: {compiled}')
        assert train(path, tmp_path / name) == 0
    for row, other in zip(table(tmp_path / "eager"), table(tmp_path / "compiled"), strict=True):
        assert float(other["loss"]) == pytest.approx(float(row["loss"]), rel=5e-3)


def test_two_gpus_train_together(spec, tmp_path, environment):
    if WANTED == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    done = subprocess.run(
        command(spec(epochs=8), tmp_path / "results", "--gpus", "2"),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert f"2 x {WANTED}" in done.stderr
    # Each process has told NCCL which GPU is its own.
    assert "device" not in "".join(re.findall(r"UserWarning:.*", done.stderr)), done.stderr
    rows = table(tmp_path / "results")
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])


def test_more_gpus_than_there_are_is_one_line(target, spec, tmp_path, capfd):
    if WANTED != "cuda":
        pytest.skip("CPUs are shared")
    count = torch.cuda.device_count()
    flags = ["--gpus", str(count + 1)]
    assert train(spec(), tmp_path / "results", *flags) == cli.FAILED
    assert f"--gpus {count + 1}: there are only {count} GPUs here" in capfd.readouterr().err


@on_gpus_only
def test_a_full_gpu_is_one_line(target):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device=target)
    assert cli.what_to_do(caught.value) == cli.OUT_OF_MEMORY
