"""The benchmark that tells what bounds a model: each kind of error is told from the others."""

import sys

import numpy as np
import pytest
from detectnet_v2 import spec
from detectnet_v2.dataset import Sample
from detectnet_v2.metrics import SAMPLE

from .benchmark_modules import benchmark_module

MASK, BARE = 0, 1


@pytest.fixture(scope="module")
def bounds(repository):
    for name in ("bootstrap", "accuracy"):
        benchmark_module(repository, name)
    yield benchmark_module(repository, "bounds")
    for name in ("bootstrap", "accuracy", "bounds"):
        del sys.modules[name]


@pytest.fixture
def experiment(repository):
    return spec.load_experiment(repository / "tests/detectnet_v2/specs/tlt2_train.txt")


def face(left, top=100, side=80):
    return [left, top, left + side, top + side]


FACES = [(face(100), MASK), (face(400), BARE), (face(600), MASK)]
FOUND = [(face(600), MASK, 0.99), (face(400), BARE, 0.9)]
RIGHT = (face(100), MASK, 0.9)
FAULTS = {
    "box": [(face(140), MASK, 0.9)],
    "class": [(face(100), BARE, 0.95)],
    "again": [(face(602), MASK, 0.95), RIGHT],
    "background": [(face(250), MASK, 0.95), RIGHT],
    "both": [(face(440), MASK, 0.95), RIGHT],
    "missed": [],
}


def scene(found):
    """One image with FACES, and what a detector saw there: (box, class, confidence)."""
    boxes, classes = zip(*FACES, strict=True)
    sample = Sample(
        image=None,
        frame_id="images/0-kaggle-a",
        width=960,
        height=544,
        boxes=np.array(boxes, np.float32),
        classes=np.array(classes, np.int32),
        source_weight=1.0,
    )
    by_class = []
    for label in (MASK, BARE):
        own = [(box, confidence) for box, of, confidence in found if of == label]
        table = np.array([[*box, confidence] for box, confidence in own], np.float32)
        table = table.reshape(-1, 5)
        by_class.append((table[:, :4], table[:, 4]))
    return [sample], [by_class]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_is_put_right_by_its_own_cause_alone(bounds, experiment, fault):
    samples, found = scene(FOUND + FAULTS[fault])
    matched = bounds.outcomes(bounds.counted_faces(samples, experiment), found, experiment)
    causes = [list(bounds.CAUSES)[n] for o in matched.values() for n in o.cause if n >= 0]
    assert causes == ([] if fault == "missed" else [fault])
    for cause in FAULTS:
        values = bounds.precision_without(matched, cause, SAMPLE).values()
        right = [value == pytest.approx(100) for value in values]
        assert all(right) == (cause == fault), cause


def test_the_share_of_found_faces_is_told_by_height(bounds, experiment):
    samples, found = scene([*FOUND, (face(250), MASK, 0.3)])
    faces = bounds.counted_faces(samples, experiment)
    table = bounds.heights_table(faces, bounds.outcomes(faces, found, experiment))
    assert table.splitlines()[-1] == "| from 80 on | 50.0 % of 2 | 100.0 % of 1 |"


def test_a_run_that_is_not_evaluated_is_one_line(bounds, tmp_path, capsys):
    assert bounds.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
