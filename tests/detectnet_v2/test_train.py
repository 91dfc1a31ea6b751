"""The whole task on a set of drawn images, in one process."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import torch
from detectnet_v2 import cli, loader, trainer, training, training_log, validation
from detectnet_v2 import train as task
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_model, save_model
from detectnet_v2.spec import load_experiment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .training_runs import (
    CLASSES,
    HEIGHT,
    WIDTH,
    assert_equal_weights,
    command,
    table,
    train,
    weights,
    without_speed,
)


def test_training_learns_and_leaves_its_results(spec, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(training_log, "_LINE_SECONDS", 0.0)
    results = tmp_path / "results"
    path = spec(epochs=8, training="visualizer { scalar_logging_frequency: 2 }")
    assert train(path, results) == 0
    printed = capfd.readouterr().err
    assert re.search(r"epoch 3/8 loss \S+ step 10/32 \S+ images/s ETA \d", printed)
    assert printed.count("Post-processing of mask: {'mode': 'NVIDIA'") == 1
    rows = table(results)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 9))
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert [int(row["epoch"]) for row in rows if row["mAP"]] == [2, 4, 6, 8]
    average = (float(rows[-1]["AP mask"]) + float(rows[-1]["AP no-mask"])) / 2
    assert float(rows[-1]["mAP"]) == pytest.approx(average, abs=1e-3)
    assert load_model(results / "weights/model.hdf5").class_names == tuple(CLASSES)
    lines = [json.loads(line) for line in (results / "status.json").read_text().splitlines()]
    assert [lines[0]["status"], lines[-1]["status"]] == ["STARTED", "SUCCESS"]
    assert lines[4]["epoch"] == 4
    assert lines[4]["graphical"]["loss"] == pytest.approx(float(rows[3]["loss"]))
    assert lines[4]["kpi"]["mean average precision"] == pytest.approx(
        float(rows[3]["mAP"]), abs=1e-3
    )
    events = EventAccumulator(str(results / "events")).Reload()
    # Two of the four steps of an epoch.
    assert [event.step for event in events.Scalars("loss")] == list(range(0, 32, 2))
    measured = [event.value for event in events.Scalars("validation/mAP")]
    assert measured == pytest.approx([float(row["mAP"]) for row in rows if row["mAP"]], abs=1e-3)
    assert "batch_size_per_gpu: 4" in (results / "experiment_spec.txt").read_text()
    assert not (results / "checkpoints").exists()
    assert not list(results.rglob("*.part"))


@pytest.mark.parametrize(
    ("native", "flags", "expected"),
    [
        ("", [], False),
        ("deterministic: true", [], True),
        ("", ["--enable_determinism"], True),
    ],
)
def test_determinism_by_the_spec_or_the_flag(spec, tmp_path, native, flags, expected):
    try:
        assert train(spec(epochs=1, native=native), tmp_path / "results", *flags) == 0
        assert torch.are_deterministic_algorithms_enabled() == expected
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_model_is_kept_at_every_checkpoint_interval_and_at_the_end(spec, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    # Left by a longer training.
    (results / "model.epoch-9.hdf5").write_text("stale")
    assert train(spec(epochs=5, training="checkpoint_interval: 2"), results) == 0
    assert sorted(path.name for path in results.glob("*.hdf5")) == [
        "model.epoch-2.hdf5",
        "model.epoch-4.hdf5",
        "model.epoch-5.hdf5",
    ]
    second, last = (
        load_model(results / f"model.epoch-{epoch}.hdf5").state_dict() for epoch in (2, 5)
    )
    for name, value in weights(results).items():
        assert torch.equal(value, last[name]), name
    assert not torch.equal(second["conv1.weight"], last["conv1.weight"])


def test_without_flags_the_default_spec_trains_into_experiments(spec, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA_BASE_PATH", str(tmp_path / "datasets"))
    load_experiment(task.DEFAULT_SPEC)
    assert cli.main(["train"]) == cli.FAILED
    pattern = tmp_path / "datasets/kitti/tfrecords/kitti_trainval/*"
    assert f"no tfrecords match {pattern}" in capfd.readouterr().err
    (results,) = (tmp_path / "experiments").iterdir()
    assert re.fullmatch(r"drivenet_\d{8}_\d{6}", results.name)
    assert 'key: "car"' in (results / "experiment_spec.txt").read_text()
    monkeypatch.setattr(task, "DEFAULT_SPEC", spec(epochs=1))
    monkeypatch.setattr(task.time, "strftime", lambda _: "later")
    assert cli.main(["train"]) == 0
    assert (tmp_path / "experiments/later/weights/model.hdf5").is_file()


def test_equal_seeds_repeat_and_others_do_not(spec, tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert train(spec(epochs=2, seed=seed), tmp_path / name) == 0
    assert_equal_weights(tmp_path / "a", tmp_path / "b")
    assert without_speed(table(tmp_path / "a")) == without_speed(table(tmp_path / "b"))
    assert table(tmp_path / "a")[0]["loss"] != table(tmp_path / "c")[0]["loss"]


def test_waiting_for_images_is_told_of_once(spec, tmp_path, monkeypatch, capfd):
    made = loader.BatchMaker.training

    def slowly(self, *arguments):
        time.sleep(0.5)
        return made(self, *arguments)

    line = "% of this epoch went by waiting for images: where cores are idle, more loaders"
    monkeypatch.setattr(loader.BatchMaker, "training", slowly)
    monkeypatch.setattr(training, "_MUCH_WAITING", 0.01)
    for name, seconds, times in (("short", 1000.0, 0), ("long", 0.1, 1)):
        monkeypatch.setattr(training, "_LONG_EPOCH_SECONDS", seconds)
        assert train(spec(epochs=2, batch=8), tmp_path / name) == 0
        assert capfd.readouterr().err.count(line) == times


@pytest.mark.parametrize(("lag", "saved"), [(0, 6), (1, 7)])
def test_an_interrupt_saves_and_the_next_start_resumes_exactly(
    spec, tmp_path, monkeypatch, capfd, lag, saved
):
    """A GPU's results are looked at one step late, which a lag of one shows on the CPU."""
    monkeypatch.setitem(training._LAG, "cpu", lag)
    # Interrupted in the small size; the full one follows after the second epoch.
    path = spec(
        native="ema_decay: 0.9 input_scales { until: 0.5 scale: 0.5 } class_balance: 0.5 "
        "weight_decay: 0.01 augmentation { mosaic_probability: 0.3 mosaic_until: 0.7 }"
    )
    assert train(path, tmp_path / "whole") == 0

    run_step = trainer.Trainer.run_step

    def interrupted(self, *arguments):
        # In the middle of the second epoch.
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return run_step(self, *arguments)

    results = tmp_path / "results"
    monkeypatch.setattr(trainer.Trainer, "run_step", interrupted)
    assert train(path, results) == cli.INTERRUPTED
    assert not (results / "weights" / "model.hdf5").exists()
    assert (results / "checkpoints" / "state.pt").is_file()
    monkeypatch.setattr(trainer.Trainer, "run_step", run_step)
    assert train(path, results) == 0
    assert f"resuming after step {saved} of 16" in capfd.readouterr().err
    assert_equal_weights(results, tmp_path / "whole")
    assert without_speed(table(results)) == without_speed(table(tmp_path / "whole"))
    assert not (results / "checkpoints").exists()


def test_early_stopping_ends_validated_and_is_not_taken_up_again(
    spec, tmp_path, monkeypatch, capfd
):
    path = spec(epochs=9)
    text = path.read_text().replace("zoom_min", "vflip_probability: 0.5 zoom_min")
    rates = "min_learning_rate: 1e-4 max_learning_rate: 1e-3 annealing_epochs: 1 patience_steps: 1"
    path.write_text(
        re.sub(
            r"soft_start_annealing_schedule \{.*?\}",
            f"early_stopping_annealing_schedule {{ {rates} }}",
            text,
            flags=re.DOTALL,
        )
    )
    # Never better than in the first validation, that of epoch 2.
    validate = validation.Validator.run
    monkeypatch.setattr(
        validation.Validator, "run", lambda *a: dataclasses.replace(validate(*a), cost=1.0)
    )
    run_step = trainer.Trainer.run_step

    def interrupted(self, *arguments):
        # Seen by the step after it, which is the last one of epoch 5.
        if self.step == 18:
            os.kill(os.getpid(), signal.SIGINT)
        return run_step(self, *arguments)

    results = tmp_path / "results"
    monkeypatch.setattr(trainer.Trainer, "run_step", interrupted)
    assert train(path, results) == cli.INTERRUPTED
    assert "spatial_augmentation.vflip_probability has no effect" in capfd.readouterr().err
    assert train(path, results) == 0
    assert "resuming after step 20 of 36" in capfd.readouterr().err
    rows = table(results)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["epoch"] for row in rows if row["mAP"]] == ["2", "4", "5"]
    assert (results / "model.epoch-5.hdf5").is_file()
    assert (results / "weights/model.hdf5").is_file()


def test_a_changed_spec_starts_afresh_and_says_so(spec, tmp_path, monkeypatch, capfd):
    def stopped(self, *arguments):
        raise RuntimeError("power cut")

    results = tmp_path / "results"
    run_step = trainer.Trainer.run_step
    monkeypatch.setattr(
        trainer.Trainer,
        "run_step",
        lambda self, *a: (stopped if self.step == 9 else run_step)(self, *a),
    )
    assert train(spec(), results) == cli.FAILED
    assert "RuntimeError: power cut" in capfd.readouterr().err
    assert (results / "checkpoints" / "state.pt").is_file()
    monkeypatch.setattr(trainer.Trainer, "run_step", run_step)
    assert train(spec(rate=1e-3), results) == 0
    assert "belongs to another training" in capfd.readouterr().err
    assert [row["epoch"] for row in table(results)] == ["1", "2", "3", "4"]


def test_a_loss_that_is_not_finite_names_step_and_images(spec, tmp_path, capfd):
    results = tmp_path / "results"
    assert train(spec(rate=1e30), results) == cli.FAILED
    message = next(
        line for line in capfd.readouterr().err.splitlines() if line.startswith("detectnet_v2")
    )
    assert "(epoch 1): the" in message
    assert message.count("images/0") == 4
    assert not (results / "weights").exists()
    last = json.loads((results / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"


def test_a_batch_larger_than_the_set_is_one_line(spec, tmp_path, capfd):
    assert train(spec(batch=64), tmp_path / "results") == cli.FAILED
    lines = [line for line in capfd.readouterr().err.splitlines() if "batch_size" in line]
    assert lines == [
        "detectnet_v2 train: training_config.batch_size_per_gpu is 64, but there are only 16 "
        "training images: lower it (in the workflow's config: train.batch_size)"
    ]


def test_another_input_size_than_the_loaded_graphs_is_refused(tmp_path, dataset, spec, capfd):
    path = tmp_path / "wide.hdf5"
    save_model(DetectNetV2(10, 2, input_height=HEIGHT, input_width=128), path)
    config = f'load_graph: true pretrained_model_file: "{path}"'
    assert train(spec(model_config=config), tmp_path / "results") == cli.FAILED
    assert "takes 128 x 64 images" in capfd.readouterr().err


def test_frozen_blocks_keep_their_convolutions(tmp_path, spec, capfd):
    path = tmp_path / "pretrained.hdf5"
    torch.manual_seed(1)
    save_model(DetectNetV2(10, 2, input_height=HEIGHT, input_width=WIDTH), path)
    config = f'pretrained_model_file: "{path}" freeze_blocks: 0 freeze_blocks: 1'
    assert train(spec(model_config=config, epochs=1), tmp_path / "results") == 0
    assert "26 of 26 backbone layers loaded" in capfd.readouterr().err
    before, after = load_model(path).state_dict(), weights(tmp_path / "results")
    for name in before:
        frozen = name.startswith(("conv1.", "block_1a_conv"))
        kernel = name.endswith(".weight") and before[name].ndim == 4
        if frozen or kernel:
            assert torch.equal(before[name], after[name]) == frozen, name


def test_bfloat16_and_averaged_weights_train(spec, tmp_path):
    native = 'precision: "bfloat16" ema_decay: 0.9 gradient_clip_norm: 1 coverage_focal_gamma: 1'
    assert train(spec(epochs=10, native=native), tmp_path / "results") == 0
    rows = table(tmp_path / "results")
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])


def test_distillation_adds_a_cost_that_training_lowers(spec, narrow, tmp_path):
    assert train(spec(epochs=1), tmp_path / "plain") == 0
    native = f'distillation {{ teacher_model_file: "{narrow}" weight: 10 }}'
    assert train(spec(epochs=6, native=native), tmp_path / "taught") == 0
    taught = [float(row["loss"]) for row in table(tmp_path / "taught")]
    assert taught[0] > 2 * float(table(tmp_path / "plain")[0]["loss"])
    assert taught[-1] < 0.5 * taught[0]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_result(spec, tmp_path, environment):
    path = spec(epochs=40, native="ema_decay: 0.9")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(path, whole), env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        command(path, killed), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (killed / "training.csv").is_file() or len(table(killed)) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "weights").exists()
    done = subprocess.run(
        command(path, killed), env=environment, check=True, capture_output=True, text=True
    )
    assert "resuming after step" in done.stderr
    assert_equal_weights(killed, whole)
    assert without_speed(table(killed)) == without_speed(table(whole))


@pytest.mark.slow
def test_a_compiled_network_trains_alike_at_every_size(spec, tmp_path):
    """The second size makes the compiler think again; validation does without it."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    native = "input_scales { until: 0.5 scale: 0.5 }"
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        path = spec(epochs=2, rate=1e-4, native=f"{native} compile: {compiled}")
        assert train(path, tmp_path / name) == 0
    eager, compiled = (table(tmp_path / name) for name in ("eager", "compiled"))
    # The order of sums differs, and Adam makes equal steps of the least gradients.
    for row, other in zip(eager, compiled, strict=True):
        assert float(other["loss"]) == pytest.approx(float(row["loss"]), rel=5e-3)
    assert_equal_weights(tmp_path / "eager", tmp_path / "compiled", tolerance=5e-3)


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_one_line(spec, tmp_path, environment):
    done = subprocess.run(
        command(spec(epochs=1, native="compile: true"), tmp_path / "results"),
        env=environment
        | {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == cli.FAILED
    assert "native.compile: PyTorch cannot compile the network here (InvalidCxx" in done.stderr
    assert "Traceback" not in done.stderr
