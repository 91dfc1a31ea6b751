"""Which model is chosen, and what is said of it."""

import pytest
from choose_model import choose_model


def metrics(average_precision, parameters):
    return {
        "mAP": average_precision,
        "average_precision": {"mask": average_precision + 1, "no-mask": average_precision - 1},
        "coco": {"AP": average_precision / 2, "AP50": average_precision},
        "model": {"parameters": parameters, "macs": parameters * 100},
    }


RUNS = {
    "unpruned": metrics(80.0, 1000),
    "retrained/0.3": metrics(80.5, 600),
    "retrained/0.5": metrics(79.5, 200),
    "retrained/0.7": metrics(70.0, 50),
}


@pytest.mark.parametrize(
    ("max_map_drop", "expected"),
    [
        (0.0, "retrained/0.3"),
        (0.5, "retrained/0.5"),
        (0.49, "retrained/0.3"),
        (10.0, "retrained/0.7"),
    ],
)
def test_smallest_model_within_the_drop(max_map_drop, expected):
    choice, table = choose_model(RUNS, max_map_drop)
    assert choice["run"] == expected
    assert list(table.loc[table["chosen"], "run"]) == [expected]


def test_unpruned_model_when_none_holds_and_it_says_so():
    runs = {"unpruned": metrics(80.0, 1000), "retrained/0.7": metrics(70.0, 50)}
    choice, _ = choose_model(runs, 0.6)
    assert choice["run"] == "unpruned"
    assert "no pruned model holds prune.max_map_drop 0.6" in choice["reason"]
    assert "loses 10.00 points" in choice["reason"]


def test_a_pruned_model_that_is_no_smaller_is_not_said_to_lose_too_much():
    runs = {"unpruned": metrics(80.0, 1000), "retrained/0": metrics(79.5, 1000)}
    choice, _ = choose_model(runs, 1.0)
    assert choice["run"] == "unpruned"
    assert choice["reason"] == "no pruned model within prune.max_map_drop 1 is smaller"


def test_models_that_find_nothing_are_not_said_to_be_as_good_as_each_other():
    runs = {"unpruned": metrics(0.0, 1000), "retrained/0.3": metrics(0.0, 600)}
    choice, _ = choose_model(runs, 0.6)
    assert choice["reason"].startswith("the mAP of the unpruned model is 0, so nothing")


def test_table_has_every_run_with_its_share():
    _, table = choose_model(RUNS, 0.6)
    assert list(table["run"]) == list(RUNS)
    assert list(table["share of parameters"]) == [1.0, 0.6, 0.2, 0.05]


def test_of_two_equal_sizes_the_more_accurate_one():
    runs = {
        "unpruned": metrics(80.0, 1000),
        "retrained/0.3": metrics(79.8, 200),
        "retrained/0.4": metrics(79.9, 200),
    }
    assert choose_model(runs, 0.6)[0]["run"] == "retrained/0.4"
