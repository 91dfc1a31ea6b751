"""The comparison with a YOLO: its data are the workflow's folds, its output becomes detections."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from detectnet_v2 import dataset_convert, spec
from detectnet_v2.dataset import Sample, training_samples, validation_samples
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="module")
def compare(repository):
    """benchmarks/yolo/compare.py as a module, with the path that it has as a program."""
    folder = repository / "benchmarks/yolo"
    before, loaded = list(sys.path), set(sys.modules)
    sys.path.append(str(folder))
    location = importlib.util.spec_from_file_location("compare", folder / "compare.py")
    module = importlib.util.module_from_spec(location)
    sys.modules["compare"] = module
    location.loader.exec_module(module)
    yield module
    sys.path[:] = before
    for name in set(sys.modules) - loaded:
        if str(repository / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_labels_are_shares_of_the_image_clipped_to_it(compare):
    boxes = np.array([[20, 10, 60, 30], [-40, 0, 40, 50], [300, 0, 310, 9]], np.float32)
    sample = Sample(None, "a", 200, 100, boxes, np.array([1, 0, 1], np.int32), 1.0)
    assert compare.label_lines(sample) == [
        "1 0.200000 0.200000 0.200000 0.200000",
        "0 0.100000 0.250000 0.200000 0.500000",
    ]


def test_the_folds_are_those_of_the_training(
    compare, tmp_path, paint, label, tfrecords_spec, small_spec
):
    for number in range(5):
        stem = f"{number:06d}"
        paint(tmp_path / "data/images" / f"{stem}.png", {"mask": [(number, 1)]})
        path = tmp_path / "data/labels" / f"{stem}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(label("mask", number, 1) + "\n")
    dataset_convert.convert(spec.load_dataset_export(tfrecords_spec), tmp_path / "data/tfrecords/k")
    results = tmp_path / "results"
    (results / "unpruned").mkdir(parents=True)
    experiment = small_spec()
    (results / "unpruned/train_spec.txt").write_text(Path(experiment).read_text())
    compare.write_dataset(results, tmp_path / "yolo")
    # Of a call for another split.
    for left in ("images/fold0/left.png", "labels/fold0/left.txt"):
        (tmp_path / "yolo" / left).touch()
    data = compare.write_dataset(results, tmp_path / "yolo")
    loaded = spec.load_experiment(experiment)
    for title, samples in (
        ("train", training_samples(loaded)),
        ("fold0", validation_samples(loaded)),
    ):
        links = sorted((tmp_path / "yolo/images" / title).iterdir())
        assert [link.resolve() for link in links] == sorted(s.image.resolve() for s in samples)
        labels = sorted((tmp_path / "yolo/labels" / title).iterdir())
        assert [path.stem for path in labels] == [link.stem for link in links]
    first = (tmp_path / "yolo/labels/train").glob("*.txt")
    kind, *numbers = min(first).read_text().split()
    stem = min(path.stem for path in (tmp_path / "yolo/labels/train").iterdir())
    column = int(stem)
    expected = [(16 * column + 8) / 160, 24 / 96, 16 / 160, 16 / 96]
    assert kind == "0"
    assert [float(number) for number in numbers] == pytest.approx(expected, abs=1e-5)
    assert "0: mask" in data.read_text()


def test_suppression_keeps_the_best_of_what_overlaps(compare):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (80, 2))], axis=1)
    scores = rng.random(80)
    kept = compare.suppress(boxes, scores, 0.5)

    def overlap(a, b):
        low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
        both = np.maximum(high - low, 0).prod()
        return both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)

    expected = []
    for i in np.argsort(-scores):
        if all(overlap(boxes[i], boxes[j]) <= 0.5 for j in expected):
            expected.append(i)
    assert kept.tolist() == expected
    assert 5 < len(kept) < 80


def test_both_kinds_of_output_give_the_same_detections(compare):
    # Two masks, the second a worse copy of the first, and a face of the other class.
    corners = np.array([[10, 10, 30, 40], [11, 10, 31, 40], [50, 20, 70, 44]], np.float32)
    scores = np.array([[0.9, 0.0], [0.6, 0.0], [0.0005, 0.7]], np.float32)
    centre, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    raw = np.concatenate([centre, sides, scores], axis=1).T
    found = compare.decode(np.pad(raw, ((0, 0), (0, 9))), 2)
    ended = np.array(
        [[50, 20, 70, 44, 0.7, 1], [10, 10, 30, 40, 0.9, 0], [1, 1, 2, 2, 0.0001, 0]], np.float32
    )
    for result in (found, compare.decode(ended, 2)):
        (mask, mask_score), (bare, bare_score) = result
        np.testing.assert_allclose(mask, corners[:1], atol=1e-4)
        np.testing.assert_allclose(bare, corners[2:], atol=1e-4)
        assert (mask_score.tolist(), bare_score.tolist()) == (
            [pytest.approx(0.9)],
            [pytest.approx(0.7)],
        )


def fixed_network(path, boxes, height, width):
    """An ONNX network that gives the same (1, n, 6) output for every image of its size."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["boxes", "nothing"], ["output0"]),
        ],
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, len(boxes), 6])],
        [
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.array([boxes], np.float32), "boxes"),
        ],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_boxes_are_moved_out_of_the_letterbox_and_clipped(compare, tmp_path):
    # 80 x 56 in 96 x 64: 8 pixels on the left, 4 above.
    boxes = [[18, 14, 38, 34, 0.9, 0], [0, 0, 96, 64, 0.8, 1]]
    path = fixed_network(tmp_path / "fixed.onnx", boxes, 64, 96)
    session = compare.open_session(path, 1)
    (mask, _), (bare, _) = compare.detect(session, np.zeros((56, 80, 3), np.uint8), 2)
    assert mask.tolist() == [[10, 10, 30, 30]]
    assert bare.tolist() == [[0, 0, 80, 56]]


def test_the_table_has_figures_rate_and_time(compare, tmp_path):
    path = fixed_network(tmp_path / "fixed.onnx", [[0, 0, 1, 1, 0.5, 0]], 32, 32)
    figures = {"fold0": (61.25, {"mask": 70.5, "no-mask": 52.0}, None)}
    row = compare.Row("yolo26n", path, figures, 2500000, "60.0 min, 12 epochs")
    rates = compare.frame_rates([path], 1)
    assert rates[0] > 0
    text = compare.table([row], [123.4], ["fold0"], 2)
    assert text.splitlines()[0] == (
        "| model | fold 0 mAP (by class) | COCO AP50:95 | parameters | "
        "FPS, ONNX Runtime, 2 threads | training |"
    )
    assert text.splitlines()[2] == (
        "| yolo26n | 61.25 (mask 70.50, no-mask 52.00) |  | 2,500,000 | 123.4 | "
        "60.0 min, 12 epochs |"
    )


def test_a_run_without_a_training_time_needs_minutes(compare, tmp_path, capsys):
    assert compare.main([str(tmp_path)]) == 1
    assert "give --minutes" in capsys.readouterr().err
