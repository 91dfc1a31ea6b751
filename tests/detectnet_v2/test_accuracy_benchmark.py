"""The accuracy benchmark: stored detections give their figures again, intervals, tables."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from detectnet_v2 import cli, dataset_convert, metrics, spec
from detectnet_v2.dataset import Sample

from .benchmark_modules import benchmark_module

CLASSES = ["mask", "no-mask"]


@pytest.fixture(scope="module")
def bootstrap(repository):
    yield benchmark_module(repository, "bootstrap")
    del sys.modules["bootstrap"]


@pytest.fixture(scope="module")
def accuracy(repository, bootstrap):
    return benchmark_module(repository, "accuracy")


@pytest.fixture
def experiment(repository):
    return spec.load_experiment(repository / "tests/detectnet_v2/specs/tlt2_train.txt")


def scene(seed, images=60, noise=4.0, missed=0.1):
    """Samples with three faces each, and detections that are off by ``noise`` pixels."""
    rng = np.random.default_rng(seed)
    truth_rng = np.random.default_rng(0)
    samples, found = [], []
    for number in range(images):
        corner = truth_rng.uniform(0, 400, (3, 2))
        sides = truth_rng.uniform(30, 90, (3, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
        classes = truth_rng.integers(0, 2, 3).astype(np.int32)
        samples.append(Sample(None, f"{number}", 960, 544, boxes, classes, 1.0))
        guesses = (boxes + rng.normal(0, noise, boxes.shape)).astype(np.float32)
        kept = rng.random(3) > missed
        found.append(
            [
                (
                    guesses[kept & (classes == c)],
                    rng.uniform(0.1, 1, int((kept & (classes == c)).sum())).astype(np.float32),
                )
                for c in range(2)
            ]
        )
    return samples, found


def truth_of(samples):
    return [(sample.boxes, sample.classes) for sample in samples]


def test_ranked_detections_give_the_toolkits_figures(bootstrap, experiment):
    samples, found = scene(1)
    told = metrics.evaluate_detections(truth_of(samples), found, experiment, coco=False)
    model = bootstrap.rank(samples, found, experiment)
    mode = experiment.evaluation_config.average_precision_mode
    values = bootstrap.figures(model, np.ones(len(samples), int), mode)
    assert values[:2].tolist() == pytest.approx([told.average_precision[c] for c in CLASSES])
    assert values[2] == pytest.approx(told.mean_average_precision)
    assert 20 < values[2] < 100


def test_a_resample_is_an_evaluation_of_the_drawn_images(bootstrap, experiment):
    samples, found = scene(1)
    drawn = np.random.default_rng(3).integers(60, size=60)
    told = metrics.evaluate_detections(
        [truth_of(samples)[i] for i in drawn], [found[i] for i in drawn], experiment, coco=False
    )
    model = bootstrap.rank(samples, found, experiment)
    counts = np.bincount(drawn, minlength=60)
    mode = experiment.evaluation_config.average_precision_mode
    assert bootstrap.figures(model, counts, mode)[2] == pytest.approx(told.mean_average_precision)


def test_the_interval_holds_the_difference_and_pairs_the_images(bootstrap, experiment):
    samples, good = scene(1, noise=3)
    _, worse = scene(2, noise=9, missed=0.3)
    mode = experiment.evaluation_config.average_precision_mode
    models = [bootstrap.rank(samples, found, experiment) for found in (good, worse, worse)]
    lost = bootstrap.paired_difference(models[0], models[1:], mode, resamples=300)
    assert list(lost) == ["mask", "no-mask", "mAP"]
    for interval in lost.values():
        assert 0 < interval.low < interval.value < interval.high
    ones = np.ones(60, int)
    apart = bootstrap.figures(models[0], ones, mode) - bootstrap.figures(models[1], ones, mode)
    assert lost["mAP"].value == pytest.approx(apart[2])
    # The very same detections do not differ in any resample, whatever the images' own spread.
    same = bootstrap.paired_difference(models[0], models[:1], mode, resamples=50)
    assert all((i.low, i.value, i.high) == (0, 0, 0) for i in same.values())
    again = bootstrap.paired_difference(models[0], models[1:], mode, resamples=300)
    assert again == lost


@pytest.fixture
def finished(tmp_path, paint, label, tfrecords_spec, small_spec, color_detector, monkeypatch):
    """A results folder of a tiny run: a detector of colours in the place of every model."""
    for number in range(5):
        stem = f"{number:06d}"
        cells = {"mask": [(1, 1), (4, 2), (7, 1)], "no-mask": [(1, 4), (5, 4)]}
        paint(tmp_path / "data/images" / f"{stem}.png", cells)
        path = tmp_path / "data/labels" / f"{stem}.txt"
        path.parent.mkdir(exist_ok=True)
        # One cell is no face, one face is black.
        cells["mask"][0] = (8, 5)
        lines = [label(name, *cell) for name, places in cells.items() for cell in places]
        path.write_text("".join(f"{line}\n" for line in lines))
    dataset_convert.convert(spec.load_dataset_export(tfrecords_spec), tmp_path / "data/tfrecords/k")
    results = tmp_path / "results"
    (results / "evaluate").mkdir(parents=True)
    experiment = small_spec(("batch_size_per_gpu: 24", "batch_size_per_gpu: 3"))
    shutil.copy(experiment, results / "evaluate/fold0_spec.txt")
    for run in ("unpruned", "retrained/0.5", "seeds/7/0.5"):
        folder = results / run
        folder.mkdir(parents=True)
        shutil.copy(experiment, folder / "train_spec.txt")
        command = ["-e", experiment, "-m", color_detector, "-r", folder / "evaluation/fold0"]
        assert cli.main(["evaluate", *map(str, command)]) == 0
    (results / "chosen").mkdir()
    (results / "chosen/choice.json").write_text(json.dumps({"run": "retrained/0.5"}))
    return results


def test_tables_of_a_finished_run(finished, accuracy, capsys):
    (finished / "benchmarks/train").mkdir(parents=True)
    (finished / "benchmarks/train/unpruned.tsv").write_text("s\th:m:s\n90.0\t0:01:30\n")
    effect = {
        "mAP": 71.5,
        "precision": dict.fromkeys(CLASSES, 0.9),
        "recall": dict.fromkeys(CLASSES, 0.8),
    }
    (finished / "export/chosen").mkdir(parents=True)
    (finished / "export/chosen/clustering.json").write_text(
        json.dumps({"fold0": {"tuned": effect}})
    )
    capsys.readouterr()
    own = spec.load_experiment(finished / "retrained/0.5/train_spec.txt").random_seed
    arguments = [finished, "--seeds", own, 7, "--no-train", "--resamples", 50]
    arguments += ["--ungrouped", finished]
    assert accuracy.main(list(map(str, arguments))) == 0
    text = capsys.readouterr().out
    told = json.loads((finished / "unpruned/evaluation/fold0/metrics.json").read_text())
    figure = f"{told['mAP']:.2f} (mask {told['average_precision']['mask']:.2f}, no-mask "
    assert f"| unpruned | 40 | {figure}" in text
    assert f"| retrained/0.5, seed {own} | 40 (100.0 %) | {figure}" in text
    assert f"| **mean of 2** |  | {figure}" in text
    assert "mean of 2 retrainings (95 % interval, paired bootstrap over 2 images" in text
    assert "| +0.00 (+0.00 to +0.00) | +0.00 (+0.00 to +0.00) | +0.00 (+0.00 to +0.00) |" in text
    assert "Training of the unpruned model: 1.5 min." in text
    assert "| chosen | tuned | mAP 71.50; precision / recall mask 90 % / 80 %" in text
    assert f"| left to chance | {figure}" in text


def test_another_seed_is_trained_once_and_evaluated(finished, accuracy, monkeypatch):
    calls = []

    def toolkit(task, *flags):
        calls.append(task)
        target = flags[flags.index("-r") + 1]
        if task == "train":
            (target / "weights").mkdir(parents=True)
            (target / "weights/model.hdf5").write_bytes(b"")
        else:
            shutil.copytree(finished / "unpruned/evaluation/fold0", target, dirs_exist_ok=True)

    monkeypatch.setattr(accuracy, "toolkit", toolkit)
    for _ in range(2):
        found = accuracy.retrainings(finished, "retrained/0.5", [42, 9], train=True)
        assert found == {
            42: finished / "retrained/0.5",
            9: finished / "seeds/9/0.5",
        }
    assert calls == ["train", "evaluate"]
    trained = spec.load_experiment(finished / "seeds/9/0.5/train_spec.txt")
    own = spec.load_experiment(finished / "retrained/0.5/train_spec.txt")
    assert trained.random_seed == 9
    trained.random_seed = own.random_seed
    assert trained == own


def test_a_seed_is_evaluated_again_by_another_spec_only(finished, accuracy, monkeypatch):
    evaluated, folder = finished / "evaluate/fold0_spec.txt", finished / "seeds/7/0.5"
    metrics_file = folder / "evaluation/fold0/metrics.json"
    (folder / "weights").mkdir()
    (folder / "weights/model.hdf5").write_bytes(b"")
    text = (folder / "train_spec.txt").read_text()
    calls = []

    def toolkit(task, *flags):
        calls.append((task, metrics_file.exists()))
        metrics_file.write_text("{}")

    def dated(path, seconds):
        os.utime(path, (seconds, seconds))

    monkeypatch.setattr(accuracy, "toolkit", toolkit)
    # Without a copy of the spec the dates tell.
    dated(evaluated, 1000)
    dated(metrics_file, 2000)
    accuracy.retrain(finished, folder, text)
    assert calls == []
    # From now on its content does.
    dated(evaluated, 3000)
    accuracy.retrain(finished, folder, text)
    assert calls == []
    evaluated.write_text(evaluated.read_text() + "# other\n")
    dated(evaluated, 1000)
    for _ in range(2):
        accuracy.retrain(finished, folder, text)
    assert calls == [("evaluate", False)]
    (metrics_file.parent / accuracy.EVALUATED_SPEC).unlink()
    dated(metrics_file, 500)
    accuracy.retrain(finished, folder, text)
    assert len(calls) == 2


def test_detections_of_other_data_are_refused(finished, accuracy, capsys):
    stored = finished / "retrained/0.5/evaluation/fold0/detections.csv"
    lines = stored.read_text().splitlines()
    stored.write_text("\n".join([lines[0], *lines[3:]]) + "\n")
    assert accuracy.main([str(finished), "--no-train"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "detections.csv: gives a mAP of" in message
    stored.write_text("\n".join([lines[0], "images/none.png,mask,1,1,2,2,0.5"]) + "\n")
    assert accuracy.main([str(finished), "--no-train"]) == 1
    assert "does not belong to these 2 images" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_line(tmp_path, accuracy, capsys):
    assert accuracy.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
