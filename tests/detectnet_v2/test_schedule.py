import math

import pytest
from detectnet_v2 import schedule, spec_pb2
from detectnet_v2.errors import DetectNetError


def training_config(**rates):
    config = spec_pb2.TrainingConfig(num_epochs=10)
    settings = config.learning_rate.soft_start_annealing_schedule
    for name, value in rates.items():
        setattr(settings, name, value)
    return config


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (1, 0.10471285),
        (200, 1.0),
        (400, 1.0),
        (600, 0.63095725),
        (800, 0.25118864),
        (999, 0.100461565),
    ],
)
def test_reference_rates(step, rate):
    config = training_config(
        min_learning_rate=0.1, max_learning_rate=1, soft_start=0.05, annealing=0.5
    )
    assert schedule.from_spec(config, 100).learning_rate(step) == pytest.approx(rate, rel=1e-5)


def test_the_recipes_rates():
    config = training_config(
        min_learning_rate=5e-6, max_learning_rate=5e-4, soft_start=0.1, annealing=0.7
    )
    rates = schedule.from_spec(config, 100)
    for step, rate in ((0, 5e-6), (50, 5e-5), (100, 5e-4), (699, 5e-4), (850, 5e-5), (1000, 5e-6)):
        assert rates.learning_rate(step) == pytest.approx(rate, rel=1e-4)


def test_no_soft_start_begins_at_the_top():
    config = training_config(
        min_learning_rate=0.1, max_learning_rate=1, soft_start=0, annealing=0.5
    )
    assert schedule.from_spec(config, 10).learning_rate(0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"min_learning_rate": 1, "max_learning_rate": 0.1}, "0 < min <= max"),
        (
            {
                "min_learning_rate": 0.1,
                "max_learning_rate": 1,
                "soft_start": 0.8,
                "annealing": 0.3,
            },
            "soft_start 0.8 and annealing 0.3",
        ),
    ],
)
def test_impossible_schedules_are_refused(rates, message):
    with pytest.raises(DetectNetError, match=message):
        schedule.from_spec(training_config(**rates), 10)


def early_stopping(**changes):
    settings = {
        "steps_per_epoch": 10,
        "num_epochs": 20,
        "min_learning_rate": 0.01,
        "max_learning_rate": 1.0,
        "soft_start_epochs": 2,
        "annealing_epochs": 4,
        "patience_steps": 2,
    }
    return schedule.EarlyStoppingAnnealing(**(settings | changes))


def test_early_stopping_holds_the_rate_while_validation_improves():
    rates = early_stopping()
    for step, cost in ((20, 3.0), (30, 2.0), (40, 1.5)):
        rates.validated(step, cost)
    assert rates.learning_rate(0) == pytest.approx(0.01)
    assert rates.learning_rate(10) == pytest.approx(0.1)
    assert rates.learning_rate(100) == pytest.approx(1.0)
    # The last annealing_epochs fall in any case.
    assert rates.learning_rate(180) == pytest.approx(0.1)
    assert not rates.finished(199)
    assert rates.finished(200)


def test_early_stopping_anneals_when_validation_no_longer_improves():
    rates = early_stopping()
    for step, cost in ((20, 1.0), (30, 1.1), (40, 1.2)):
        rates.validated(step, cost)
    resumed = early_stopping()
    resumed.load_state_dict(rates.state_dict())
    for schedule_ in (rates, resumed):
        assert schedule_.learning_rate(40) == pytest.approx(1.0)
        assert schedule_.learning_rate(60) == pytest.approx(0.1)
        assert schedule_.learning_rate(80) == pytest.approx(0.01)
        assert not schedule_.finished(79)
        assert schedule_.finished(80)
        assert math.isclose(schedule_.learning_rate(90), 0.01)


def test_early_stopping_without_annealing_ends_at_once():
    rates = early_stopping(annealing_epochs=0)
    assert rates.learning_rate(199) == pytest.approx(1.0)
    assert (rates.finished(199), rates.finished(200)) == (False, True)
    for step, cost in ((20, 1.0), (30, 1.1), (40, 1.2)):
        rates.validated(step, cost)
    assert rates.finished(40)
    assert rates.learning_rate(41) == pytest.approx(0.01)


def test_cosine_annealing_follows_half_a_wave():
    training = spec_pb2.TrainingConfig(num_epochs=10)
    config = training.learning_rate.soft_start_annealing_schedule
    config.min_learning_rate, config.max_learning_rate = 1e-5, 1e-3
    config.soft_start, config.annealing = 0.1, 0.5
    cosine = schedule.from_spec(training, 10, schedule.COSINE)
    plain = schedule.from_spec(training, 10)
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (50, 1.0), (75, 0.5), (100, 0.0)):
        height = (1 - math.cos(math.pi * share)) / 2
        assert cosine.learning_rate(step) == pytest.approx(1e-5 + height * (1e-3 - 1e-5))
    assert plain.learning_rate(75) == pytest.approx(1e-4)
