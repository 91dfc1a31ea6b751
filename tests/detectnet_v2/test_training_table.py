"""Table and events of a training: what is trained again is replaced, and no row is in part."""

import csv

import pytest
from detectnet_v2.errors import DetectNetError
from detectnet_v2.status import StatusLog
from detectnet_v2.training_log import Events, TrainingLog, TrainingTable
from detectnet_v2.validation import Validation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def epochs(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return [(row["epoch"], row["loss"], row["AP mask"]) for row in csv.DictReader(stream)]


def row(epoch):
    return {"epoch": epoch, "loss": 0.5, "AP mask": 80.0}


def test_a_resumed_training_replaces_the_epochs_that_it_trains_again(tmp_path):
    path = tmp_path / "training.csv"
    table = TrainingTable(path, ["mask"], first_epoch=1)
    for epoch in (1, 2, 3):
        table.add(row(epoch))
    TrainingTable(path, ["mask"], first_epoch=3).add(row(3) | {"loss": 0.25})
    assert epochs(path) == [("1", "0.5", "80.0"), ("2", "0.5", "80.0"), ("3", "0.25", "80.0")]


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path, short_files):
    path = tmp_path / "training.csv"
    table = TrainingTable(path, ["mask"], first_epoch=1)
    table.add(row(1))
    before = path.read_bytes()
    with short_files(len(before) + 5), pytest.raises(DetectNetError) as caught:
        table.add(row(2))
    assert str(caught.value) == f"cannot write {path}: File too large"
    assert path.read_bytes() == before
    with short_files(10), pytest.raises(DetectNetError, match="cannot write"):
        TrainingTable(path, ["mask"], first_epoch=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("first_step", "kept"), [(0, []), (2, [0.0, 1.0])])
def test_events_of_steps_that_are_trained_again_are_replaced(tmp_path, first_step, kept):
    for start, steps, offset in ((0, range(5), 0), (first_step, range(first_step, 3), 100)):
        events = Events(tmp_path, first_step=start)
        for step in steps:
            events.scalars({"loss": step + offset}, step)
        events.close()
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [event.value for event in shown] == kept + [100.0 + s for s in range(first_step, 3)]


def test_a_resume_keeps_the_validations_before_its_checkpoint(tmp_path):
    settings = {"steps_per_epoch": 4, "epochs": 3, "images_per_step": 2, "scalar_steps": 1}
    for first_epoch, epochs, precision in ((1, 2, 50.0), (2, 3, 70.0)):
        log = TrainingLog(
            tmp_path, StatusLog(None), ["mask"], first_step=4 * (first_epoch - 1), **settings
        )
        for epoch in range(first_epoch, epochs + 1):
            for step in range(4 * (epoch - 1), 4 * epoch):
                log.step(step, 0.5, 0.1)
            found = Validation(0.25, precision + epoch, {"mask": precision + epoch})
            log.epoch(epoch, loss=0.5, learning_rate=0.1, seconds=1.0, validation=found)
        log.close()
    shown = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in shown.Scalars("loss")] == list(range(12))
    for name in ("validation/mAP", "validation/AP mask"):
        measured = [(event.step, event.value) for event in shown.Scalars(name)]
        assert measured == [(3, 51.0), (7, 72.0), (11, 73.0)]
