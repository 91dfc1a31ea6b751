"""The parts of a training step: optimiser, moving average, distillation, scaling, idle biases."""

import copy
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectnet_v2 import precision, spec_pb2
from detectnet_v2.cost import Targets
from detectnet_v2.distillation import Teacher
from detectnet_v2.loader import Batch
from detectnet_v2.model import DetectNetV2, freeze
from detectnet_v2.optimizer import MovingAverage, TensorFlowAdam
from detectnet_v2.precision import Precision, choose_precision, requested_precision, set_threads
from detectnet_v2.trainer import Trainer, skip_idle_biases
from detectnet_v2.training_setup import build_model

CPU = torch.device("cpu")


def small_model(seed=0):
    torch.manual_seed(seed)
    names = [f"block_{block}a_conv_{part}" for block in range(1, 5) for part in (1, 2, "shortcut")]
    return DetectNetV2(
        10, 1, widths=dict.fromkeys([*names, "conv1"], 8), input_height=32, input_width=48
    ).train()


def experiment(**training):
    result = spec_pb2.Experiment()
    target = result.cost_function_config.target_classes.add(
        name="mask", class_weight=1, coverage_foreground_weight=0.5
    )
    target.objectives.add(name="cov", initial_weight=1, weight_target=1)
    target.objectives.add(name="bbox", initial_weight=1, weight_target=1)
    config = result.training_config
    config.num_epochs = 2
    schedule = config.learning_rate.soft_start_annealing_schedule
    schedule.min_learning_rate = schedule.max_learning_rate = 1e-3
    schedule.annealing = 0.5
    config.optimizer.adam.epsilon = 1e-8
    config.optimizer.adam.beta1, config.optimizer.adam.beta2 = 0.9, 0.999
    for name, value in training.items():
        setattr(config.cost_scaling, name, value)
    return result


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        torch.from_numpy(rng.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)),
        Targets(
            torch.from_numpy(rng.random((2, 1, 2, 3), dtype=np.float32)),
            torch.from_numpy(rng.random((2, 1, 2, 3), dtype=np.float32)),
            torch.from_numpy(rng.random((2, 4, 2, 3), dtype=np.float32)),
            torch.ones(2),
        ),
        (0, 1),
    )


def make_trainer(spec=None, model=None):
    return Trainer(
        spec or experiment(),
        model or small_model(),
        precision=Precision("float32", CPU),
        steps_per_epoch=5,
    )


def test_adam_adds_epsilon_as_tensorflow_does():
    rng = np.random.default_rng(0)
    start = rng.normal(size=5)
    epsilon, beta1, beta2, rate = 1e-2, 0.9, 0.999, 0.1
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    optimizer = TensorFlowAdam([parameter], epsilon=epsilon, betas=(beta1, beta2))
    theta, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for t in range(1, 8):
        gradient = rng.normal(size=5) * 0.01
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        theta -= rate * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + epsilon)
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.update(rate)
        np.testing.assert_allclose(parameter.detach(), theta, rtol=1e-5)
        if t == 4:
            resumed = TensorFlowAdam([parameter], epsilon=epsilon, betas=(beta1, beta2))
            resumed.load_state_dict(optimizer.state_dict())
            optimizer = resumed


def test_moving_average_warms_up_and_is_exact():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = MovingAverage(model, 0.5)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, -4.0, 8.0, 1.0, 5.0, 3.0, 2.0, 9.0, 4.0), start=1):
        model.weight.data.fill_(value)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    target = torch.nn.Linear(1, 1, bias=False)
    average.copy_to(target)
    assert target.weight.item() == pytest.approx(expected, rel=1e-6)
    assert decay == 0.5


def test_the_evaluated_model_has_the_average_and_training_goes_on_without():
    spec = experiment()
    spec.native.ema_decay = 0.9
    trainer = make_trainer(spec)
    trainer.run_step(batch())
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with trainer.evaluated_model() as model:
        assert not model.training
        assert not torch.equal(model.state_dict()["conv1.weight"], before["conv1.weight"])
    assert trainer.model.training
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_biases_before_a_batch_norm_are_idle():
    model, reference = small_model(), small_model()
    skip_idle_biases(model)
    images = torch.rand(2, 3, 32, 48)
    gradients = []
    for each in (model, reference):
        bbox, cov = each(images)
        (bbox.square().sum() + cov.sum()).backward()
        gradients.append({name: p.grad for name, p in each.named_parameters()})
    skipped = {name for name, gradient in gradients[0].items() if gradient is None}
    assert "conv1.bias" in skipped
    assert "output_bbox.bias" not in skipped
    assert all(name.endswith("bias") and "bn" not in name for name in skipped)
    for name, gradient in gradients[1].items():
        if name in skipped:
            assert gradient.abs().max() < 1e-4 * gradients[1]["bn_conv1.bias"].abs().max()
        else:
            torch.testing.assert_close(gradients[0][name], gradient)


@pytest.mark.parametrize(("kind", "power"), [("L1", 1), ("L2", 2)])
def test_idle_biases_count_in_the_regulariser_and_decay_by_it(kind, power):
    weight = 1e-8
    spec = experiment()
    spec.training_config.regularizer.type = spec_pb2.RegularizerConfig.RegularizationType.Value(
        kind
    )
    spec.training_config.regularizer.weight = weight
    model = small_model()
    torch.nn.init.constant_(model.conv1.bias, 0.5)
    # The same data without a regulariser: the difference of the losses is the regulariser's cost.
    plain = make_trainer(model=copy.deepcopy(model)).run_step(batch()).read().loss
    spec.training_config.regularizer.weight = 1e-3
    regularized = make_trainer(spec, copy.deepcopy(model)).run_step(batch()).read().loss
    terms = sum(
        (p.detach().abs() ** power).sum().item()
        for module in model.modules()
        if isinstance(module, torch.nn.Conv2d)
        for p in (module.weight, module.bias)
    )
    assert regularized - plain == pytest.approx(1e-3 * terms, rel=1e-4)

    spec.training_config.regularizer.weight = weight
    trainer = make_trainer(spec, model)
    bias, m, v = 0.5, 0.0, 0.0
    for t in range(1, 4):
        trainer.run_step(batch(t))
        gradient = weight * (1 if power == 1 else 2 * bias)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = 1e-3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        bias -= rate * m / (math.sqrt(v) + 1e-8)
        np.testing.assert_allclose(model.conv1.bias.detach(), bias, rtol=1e-5)
    assert bias < 0.5
    assert not model.conv1.bias.requires_grad


def test_without_a_regulariser_idle_biases_stay():
    model = small_model()
    torch.nn.init.constant_(model.conv1.bias, 0.5)
    make_trainer(model=model).run_step(batch())
    assert (model.conv1.bias == 0.5).all()


def test_frozen_convolutions_count_in_the_regulariser_and_stay():
    spec = experiment()
    spec.training_config.regularizer.type = spec_pb2.RegularizerConfig.L1
    spec.training_config.regularizer.weight = 1e-3
    losses = []
    for blocks in ((), (0,)):
        model = small_model()
        torch.nn.init.constant_(model.conv1.bias, 0.5)
        freeze(model, blocks)
        losses.append(make_trainer(spec, model).run_step(batch()).read().loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert (model.conv1.bias == 0.5).all()
    assert torch.equal(model.conv1.weight, small_model().conv1.weight)


def test_biases_before_a_frozen_batch_norm_learn():
    model = small_model()
    model.freeze_batch_norm()
    skip_idle_biases(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_cost_scaling_skips_steps_that_overflow():
    spec = experiment(enabled=True, initial_exponent=300, increment=0.5, decrement=100)
    trainer = make_trainer(spec)
    before = trainer.model.state_dict()["conv1.weight"].clone()
    result = trainer.run_step(batch())
    assert torch.equal(trainer.model.state_dict()["conv1.weight"], before)
    assert trainer.state_dict()["exponent"] == 200
    assert torch.isfinite(result.values).all()
    trainer.run_step(batch())
    trainer.run_step(batch())
    assert trainer.state_dict()["exponent"] == pytest.approx(100.5)
    assert not torch.equal(trainer.model.state_dict()["conv1.weight"], before)


def test_cost_scaling_by_a_power_of_two_changes_nothing():
    scaled = make_trainer(experiment(enabled=True, initial_exponent=8, increment=1, decrement=1))
    plain = make_trainer()
    for trainer in (scaled, plain):
        for seed in range(3):
            trainer.run_step(batch(seed))
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(scaled.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_finite_shows_in_the_result():
    trainer = make_trainer()
    trainer.model.conv1.weight.data[0, 0, 0, 0] = math.inf
    reading = trainer.run_step(batch()).read()
    assert not (math.isfinite(reading.loss) and math.isfinite(reading.gradient_norm))
    assert reading.broken == (() if math.isfinite(reading.loss) else (0,))


def test_a_teacher_costs_nothing_where_the_student_agrees():
    model = small_model().eval()
    teacher = Teacher(model, weight=2.0, temperature=2.0, precision=Precision("float32", CPU))
    images = torch.rand(2, 3, 32, 48)
    bbox, cov = (value.detach() for value in model(images))
    assert teacher.cost(images, bbox, cov).item() == pytest.approx(0, abs=1e-6)
    worse = (cov * 0.5).requires_grad_()
    cost = teacher.cost(images, bbox + 0.1, worse)
    cost.backward()
    assert cost.item() > 0
    # Less cost lies towards more coverage, which is where the teacher is.
    assert (worse.grad < 0).all()


def test_precision_is_the_specs_unless_native_or_amp_say_otherwise():
    spec = spec_pb2.Experiment()
    assert requested_precision(spec, False) == "float32"
    assert requested_precision(spec, True) == "auto"
    spec.model_config.training_precision.backend_floatx = 1
    assert requested_precision(spec, False) == "float16"
    spec.native.precision = "bfloat16"
    assert requested_precision(spec, True) == "bfloat16"


def test_a_probe_chooses_and_leaves_the_model_alone(monkeypatch):
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: True)
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = choose_precision("auto", model, CPU)
    assert chosen.name in ("float32", "bfloat16")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert choose_precision("float16", model, CPU).name == "bfloat16"


def test_a_processor_without_bfloat16_is_not_asked_for_it(monkeypatch):
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: False)
    monkeypatch.setattr(precision, "_step_time", None)
    assert choose_precision("auto", small_model(), CPU).name == "float32"


def test_threads_spin_for_a_short_time_unless_the_user_says_how_long():
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    program = "import os, detectnet_v2; print(os.environ.get('GOMP_SPINCOUNT'))"
    for own, expected in (
        ({}, "30000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ):
        environment = {k: v for k, v in os.environ.items() if k not in names} | own
        environment["PYTHONPATH"] = str(Path(precision.__file__).parents[1])
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_float16_is_scaled_without_being_asked():
    trainer = Trainer(
        experiment(), small_model(), precision=Precision("float16", CPU), steps_per_epoch=5
    )
    assert trainer.state_dict()["exponent"] == 15
    assert make_trainer().state_dict()["exponent"] is None


def test_threads_follow_the_spec_then_the_environment(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert set_threads(2, 1) == 2
        assert set_threads(0, 1) == 3
        # Snakemake's cores are those of all processes of a training.
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        assert [set_threads(0, processes) for processes in (2, 3, 16)] == [4, 2, 1]
        assert set_threads(2, 2) == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert set_threads(0, 1000) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")
def test_freed_memory_stays_with_the_process():
    """A large block that is allocated again must not be filled with zeros by the system again."""
    program = """
import resource, torch
from detectnet_v2.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        activations = [torch.ones((40 << 20) + i, dtype=torch.uint8) for i in range(4)]
        del activations
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
faults()
print(given_back, faults())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10


def test_weight_decay_shrinks_kernels_apart_from_the_gradient():
    plain, decayed = small_model(), small_model()
    spec = experiment()
    make_trainer(spec, plain).run_step(batch())
    spec.native.weight_decay = 0.5
    make_trainer(spec, decayed).run_step(batch())
    start = small_model().state_dict()
    for name, value in plain.state_dict().items():
        is_kernel = value.ndim == 4
        shrunk = value - 1e-3 * 0.5 * start[name] if is_kernel else value
        torch.testing.assert_close(decayed.state_dict()[name], shrunk, rtol=0, atol=1e-6, msg=name)


def test_batch_norm_momentum_is_the_share_that_is_kept():
    spec = experiment()
    spec.model_config.num_layers = 10
    spec.model_config.use_batch_norm = True
    size = spec.augmentation_config.preprocessing
    size.output_image_width, size.output_image_height = 48, 32

    def momenta():
        model = build_model(spec)
        assert model.training
        return {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}

    assert momenta() == {0.01}
    spec.native.batch_norm_momentum = 0.9
    (momentum,) = momenta()
    assert momentum == pytest.approx(0.1)
