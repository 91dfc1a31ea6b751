"""The table of a training: rows of epochs, replaced on a resumed one, never in part."""

import csv

import pytest
from detectnet_v2.errors import DetectNetError
from detectnet_v2.training_log import TrainingTable


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
