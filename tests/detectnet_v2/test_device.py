"""Which device computes, what is said where a GPU is left unused, and what a GPU waits for."""

import argparse
import logging
import warnings
from multiprocessing import Pipe

import pytest
import torch
from detectnet_v2 import device, launch, train, training
from detectnet_v2.distillation import Teacher
from detectnet_v2.errors import DetectNetError
from detectnet_v2.network import load_network
from detectnet_v2.precision import Precision, choose_precision
from detectnet_v2.trainer import Trainer, Wishes
from detectnet_v2.training_setup import training_device

from . import training_runs as runs
from .pretended_gpu import DEVICE, pretended_gpu
from .test_train_steps import batch, experiment, small_model

TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver by downloading and installing a new version"
)


@pytest.fixture
def machine(monkeypatch):
    """A function that makes a machine with a GPU of which PyTorch says something, or nothing."""

    def make(*, visible=None, built="13.0", available=False, warns="", has_gpu=True):
        def is_available():
            if warns:
                warnings.warn(warns, stacklevel=2)
            return available

        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(device, "_has_nvidia_gpu", lambda: has_gpu)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"warns": TOO_OLD},
            "The NVIDIA driver on your system is too old (found version 11040). C",
        ),
        ({"warns": TOO_OLD, "visible": "0"}, "too old (found version 11040)."),
        ({"built": None}, f"PyTorch {torch.__version__} is built without CUDA"),
        ({"built": None, "visible": "0"}, "is built without CUDA"),
        ({}, "CUDA finds none"),
        ({"visible": ""}, ""),
        ({"visible": "-1"}, ""),
        ({"has_gpu": False, "built": None}, ""),
        ({"has_gpu": False, "visible": "0"}, ""),
    ],
)
def test_a_gpu_that_is_not_used_is_told_of_once(machine, caplog, settings, said):
    machine(**settings)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert training_device(0) == torch.device("cpu")
        # The other processes of a training leave it to the first.
        assert training_device(1) == torch.device("cpu")
    assert len(caplog.messages) == bool(said)
    assert all(said in line and "Computing on the CPU" in line for line in caplog.messages)


def test_a_gpu_that_is_not_there_is_refused(machine):
    machine(visible="7")
    with pytest.raises(DetectNetError, match=r"CUDA_VISIBLE_DEVICES=7: CUDA finds no such GPU"):
        device.has_usable_gpu()


def test_a_gpu_that_works_is_used_without_a_word(machine, caplog):
    machine(available=True, warns="something about CUDA")
    assert device.has_usable_gpu()
    assert not caplog.messages


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_computes_in_a_number_type_that_it_has(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    half = "bfloat16" if native else "float16"
    gpu = torch.device("cuda", 0)
    chosen = [
        choose_precision(name, None, gpu).name
        for name in ("auto", "bfloat16", "float16", "float32")
    ]
    assert chosen == [half, half, "float16", "float32"]


def test_a_models_figures_are_those_of_whole_float32(stored):
    allowed = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        load_network(stored[1], ["mask", "no-mask"])
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture
def everything():
    """A spec whose steps have all there is, and what of a trainer it asks for."""
    spec = experiment()
    spec.native.ema_decay, spec.native.weight_decay = 0.9, 0.01
    spec.native.gradient_clip_norm = 1.0
    spec.native.coverage_focal_gamma, spec.native.coverage_positive_weight = 2.0, 2.0
    spec.native.bbox_loss = 1
    spec.training_config.regularizer.type, spec.training_config.regularizer.weight = 1, 1e-4
    spec.cost_function_config.enable_autoweighting = True
    spec.cost_function_config.max_objective_weight = 0.99
    return spec


def trainer_on(target, spec):
    precision = Precision("float32", target)
    teacher = Teacher(small_model(1).to(target), weight=1.0, temperature=2.0, precision=precision)
    model = small_model().to(target, memory_format=torch.channels_last)
    return Trainer(spec, model, precision=precision, steps_per_epoch=5, teacher=teacher)


def test_a_step_does_not_wait_for_the_gpu(everything):
    """The next step's operations are queued while a GPU computes; only reading results waits."""
    with pretended_gpu() as gpu:
        trainer = trainer_on(DEVICE, everything)
        gpu.waits.clear()
        result = trainer.run_step(batch(), Wishes(stop=True))
        trainer.run_step(batch())
        trainer.cost.end_epoch()
        assert gpu.waits == []
        result.read()
        assert len(gpu.waits) == 1


def test_the_wishes_of_a_step_come_back(everything):
    trainer = trainer_on(torch.device("cpu"), everything)
    for wishes in (Wishes(), Wishes(stop=True), Wishes(save=True)):
        reading = trainer.run_step(batch(), wishes).read()
        assert (reading.stop, reading.save, reading.broken) == (wishes.stop, wishes.save, ())


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_a_state_of_one_device_goes_on_on_another(everything):
    """The state of a training is read to the CPU, whatever wrote it."""
    with pretended_gpu():
        trainer = trainer_on(DEVICE, everything)
        trainer.run_step(batch())
        shapes = {name: value.shape for name, value in trainer.model.state_dict().items()}
    other = trainer_on(torch.device("cpu"), everything)
    other.run_step(batch())
    with pretended_gpu():
        trainer.load_state_dict(other.state_dict())
        trainer.run_step(batch())
        assert trainer.step == 2
        assert all(value.is_meta for value in trainer.average.state_dict()["averages"])
        assert all(value.is_meta for value in trainer.cost.state_dict().values())
        assert {k: v.shape for k, v in trainer.model.state_dict().items()} == shapes


@pytest.mark.parametrize(("before", "after"), [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_a_resumed_training_scales_as_its_own_number_type_needs(before, after):
    """float16 is scaled and bfloat16 is not; each device has only one of them."""

    def trainer(name):
        cpu = Precision(name, torch.device("cpu"))
        return Trainer(experiment(), small_model(), precision=cpu, steps_per_epoch=5)

    first = trainer(before)
    first.run_step(batch())
    second, fresh = trainer(after), trainer(after)
    second.load_state_dict(first.state_dict())
    assert second.state_dict()["exponent"] == fresh.state_dict()["exponent"]
    again = trainer(before)
    again.load_state_dict(first.state_dict())
    assert again.state_dict()["exponent"] == first.state_dict()["exponent"]
    # A gradient of which the scale is not taken away again would be 2^15 times as long.
    norms = [one.run_step(batch(1)).read().gradient_norm for one in (second, again)]
    assert norms[0] == pytest.approx(norms[1], rel=0.2)


def test_a_whole_training_keeps_to_its_device(spec, narrow, tmp_path, monkeypatch):
    """Two sizes, validation, averages, a teacher, a saved state: all on the pretended GPU."""
    monkeypatch.setattr(training, "training_device", lambda rank: DEVICE)
    monkeypatch.setitem(training._LAG, DEVICE.type, 1)
    path = spec(
        epochs=2,
        native=f'precision: "float32" ema_decay: 0.9 input_scales {{ until: 0.5 scale: 0.5 }} '
        f'distillation {{ teacher_model_file: "{narrow}" weight: 1 }}',
    )
    with pretended_gpu() as gpu:
        assert runs.train(path, tmp_path / "results") == 0
    assert [row["epoch"] for row in runs.table(tmp_path / "results")] == ["1", "2"]
    # Those of 8 steps.
    assert sum("fetches" in wait and "(5,)" in wait for wait in gpu.waits) == 8


@pytest.mark.parametrize("gpus", [["4", "7"], []])
def test_processes_meet_through_their_own_gpu(monkeypatch, tmp_path, gpus):
    seen = {}
    monkeypatch.setattr(launch, "_end_with_parent", lambda: None)
    monkeypatch.setattr(train, "train_process", lambda *_, **ranks: seen.update(ranks))
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend, **settings: seen.update(settings, backend=backend),
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    args = argparse.Namespace(results_dir=tmp_path, verbose=False)
    received, sender = Pipe(duplex=False)
    launch._work(args, 1, 2, f"file://{tmp_path}/store", gpus, sender)
    assert not received.poll()
    assert (seen["rank"], seen["processes"], seen["world_size"]) == (1, 2, 2)
    if gpus:
        # Each process sees one GPU, which is number 0 there.
        assert launch.os.environ["CUDA_VISIBLE_DEVICES"] == "7"
        assert (seen["backend"], seen["device_id"]) == ("nccl", torch.device("cuda", 0))
    else:
        assert (seen["backend"], seen["device_id"]) == ("gloo", None)


def test_a_gpu_shows_by_what_its_driver_leaves(monkeypatch):
    for sign, has_gpu in (("dev/nul*", True), ("dev/no-such-gpu[0-9]*", False)):
        monkeypatch.setattr(device, "_SIGNS", (sign,))
        assert device._has_nvidia_gpu() == has_gpu
