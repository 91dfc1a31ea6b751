"""What NVIDIA's programs really printed, shortened, and what is read from it."""

from pathlib import Path

import pytest
from toolkits.errors import ToolkitError
from toolkits.outputs import (
    check_status,
    parse_evaluation,
    parse_pruning_ratio,
    read_status,
)

CAPTURED = Path(__file__).parent / "captured"
FACES = ["mask", "no-mask"]


def captured(name):
    return (CAPTURED / name).read_text(encoding="utf-8")


def test_evaluation_of_tlt2():
    assert parse_evaluation(captured("tlt2_evaluate.txt"), FACES) == {
        "mAP": 56.0311,
        "average_precision": {"mask": 81.023, "no-mask": 31.0392},
        "validation_cost": 0.000340,
        "median_inference_time_s": 0.011910,
    }


def test_evaluation_of_tao5_with_bars_in_its_table():
    found = parse_evaluation(captured("tao5_evaluate.txt"), ["person", "traffic_light", "animal"])
    assert found["mAP"] == 23.394
    assert found["average_precision"] == {
        "person": 37.32320131347138,
        "traffic_light": 0.0,
        "animal": 1.4912280701754386,
    }
    assert list(found["average_precision"]) == ["person", "traffic_light", "animal"]


def test_last_evaluation_of_a_training_counts_zeros_and_a_negative_cost_included():
    found = parse_evaluation(captured("tlt2_train.txt"), FACES)
    assert found["mAP"] == 0.0
    assert found["average_precision"] == {"mask": 0.0, "no-mask": 0.0}
    assert found["validation_cost"] == -0.000009


def test_returns_and_colours_do_not_matter():
    text = (
        captured("tlt2_evaluate.txt").replace("\n", "\r\n").replace("mask", "\x1b[32mmask\x1b[0m")
    )
    assert parse_evaluation(text, FACES)["average_precision"]["mask"] == 81.023


def test_missing_class_is_named():
    with pytest.raises(ToolkitError, match="has no class mask, only person"):
        parse_evaluation(captured("tao5_evaluate.txt"), ["person", "mask"])


def test_output_without_an_evaluation():
    with pytest.raises(ToolkitError, match="no line"):
        parse_evaluation(captured("tao5_prune.txt"), FACES)


@pytest.mark.parametrize(
    ("name", "ratio"), [("tao5_prune.txt", 0.9953842932430587), ("tlt2_prune.txt", 0.12184797)]
)
def test_pruning_ratio(name, ratio):
    assert parse_pruning_ratio(captured(name)) == ratio


def test_output_without_a_ratio():
    with pytest.raises(ToolkitError, match="no line"):
        parse_pruning_ratio("")


def test_status_of_a_finished_training():
    last = read_status(CAPTURED / "tao5_status.json")
    assert last["status"] == "SUCCESS"
    check_status(CAPTURED / "tao5_status.json", "training")


def test_interrupted_training_is_no_model(tmp_path):
    path = tmp_path / "status.json"
    started = captured("tao5_status.json").splitlines()[:2]
    path.write_text(
        "\n".join(
            [*started, '{"status": "FAILURE", "message": "Training was interrupted"}', '{"da']
        )
    )
    with pytest.raises(ToolkitError, match="training ended with FAILURE: Training was interrupted"):
        check_status(path, "training")


def test_toolkit_without_a_status_file(tmp_path):
    check_status(tmp_path / "status.json", "training")
