"""The task evaluate on images whose detections are known."""

import csv
import json

import onnx
import pytest
from detectnet_v2 import cli, dataset_convert, evaluate, spec
from detectnet_v2.dataset import validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.export import export_onnx
from detectnet_v2.model_file import save_model
from detectnet_v2.network import load_network
from PIL import Image

from .benchmark_modules import benchmark_module


@pytest.fixture
def data(tmp_path, paint, label, tfrecords_spec):
    """Five images, two of them for validation: 000000 and 000001.

    Of the five masks there, one is invisible; a cell without a label is red. Both no-masks are
    found.
    """
    labels = {
        0: {"mask": [(1, 1), (4, 1), (7, 1)], "no-mask": [(1, 4)]},
        1: {"mask": [(2, 2), (6, 2)], "no-mask": [(8, 4)]},
    }
    painted = {
        0: {"mask": [(1, 1), (4, 1), (7, 1)], "no-mask": [(1, 4)]},
        1: {"mask": [(2, 2), (4, 4)], "no-mask": [(8, 4)]},
    }
    for number in range(5):
        stem = f"{number:06d}"
        paint(tmp_path / "data/images" / f"{stem}.png", painted.get(number, {}))
        path = tmp_path / "data/labels" / f"{stem}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [
            label(name, *cell) for name, cells in labels.get(number, {}).items() for cell in cells
        ]
        path.write_text("".join(f"{line}\n" for line in lines))
    config = spec.load_dataset_export(tfrecords_spec)
    return dataset_convert.convert(config, tmp_path / "data/tfrecords/k")


@pytest.fixture
def run_task(capsys, monkeypatch):
    """A function that runs the command line: exit status, standard output and error."""
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)

    def call(*arguments):
        status = cli.main([*map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def run(run_task):
    """The same for evaluate."""
    return lambda *arguments: run_task("evaluate", *arguments)


BATCH_OF_TWO = ("batch_size_per_gpu: 24", "batch_size_per_gpu: 2")


def test_the_figures_of_known_detections(data, run, small_spec, color_detector, tmp_path):
    path = small_spec(BATCH_OF_TWO)
    status, output, _ = run("-e", path, "-m", color_detector, "-r", tmp_path / "r", "-k", "secret")
    assert status == 0
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    # Masks: four of five found, one red cell is none. All have the same confidence, so the order
    # is that of the images; the false positive is the last one.
    assert metrics["average_precision"]["mask"] == pytest.approx(60)
    assert metrics["average_precision"]["no-mask"] == pytest.approx(50)
    assert metrics["mAP"] == pytest.approx(55)
    assert metrics["corrected"]["average_precision"] == pytest.approx({"mask": 80, "no-mask": 100})
    assert metrics["coco"]["per_class"]["no-mask"] == pytest.approx({"AP": 100, "AP50": 100})
    assert metrics["coco"]["per_class"]["mask"]["AP50"] == pytest.approx(80.2, abs=0.1)
    assert metrics["images"] == 2
    assert metrics["faces"] == {"mask": 5, "no-mask": 2}
    assert metrics["model"] == {"parameters": 40, "macs": 10 * 3 * 60, "input": [3, 96, 160]}
    assert metrics["median_inference_time_s"] > 0
    assert metrics["postprocessing"]["mask"]["mode"] == "NVIDIA"
    assert metrics["postprocessing"]["mask"]["dbscan_min_weight"] == 0.05
    lines = output.splitlines()
    assert "Mean average_precision (in %): 55.0000" in lines
    assert lines.index("|    mask    |         60.0000          |") < lines.index(
        "|  no-mask   |         50.0000          |"
    )
    assert any(line.startswith("Validation cost: ") for line in lines)
    assert any(line.startswith("Median Inference Time: ") for line in lines)
    assert "|    mean    |" in output
    assert lines[-1] == "Execution status: PASS"
    everything = output + "".join(item.read_text() for item in (tmp_path / "r").iterdir())
    assert "secret" not in everything


def test_the_files(data, run, small_spec, color_detector, tmp_path):
    run("-e", small_spec(BATCH_OF_TWO), "-m", color_detector, "-r", tmp_path / "r")
    assert sorted(item.name for item in (tmp_path / "r").iterdir()) == [
        "detections.csv",
        "metrics.json",
        "precision_recall.csv",
        "status.json",
    ]
    with (tmp_path / "r/detections.csv").open() as stream:
        detections = list(csv.DictReader(stream))
    assert len(detections) == 7
    first = [row for row in detections if row["image"] == "images/000001.png"]
    red = [row for row in first if row["class"] == "mask"]
    assert {(row["x1"], row["y1"], row["x2"], row["y2"]) for row in red} == {
        ("32.000", "32.000", "48.000", "48.000"),
        ("64.000", "64.000", "80.000", "80.000"),
    }
    assert float(red[0]["confidence"]) == pytest.approx(0.880797, abs=1e-5)
    with (tmp_path / "r/precision_recall.csv").open() as stream:
        curve = [row for row in csv.DictReader(stream) if row["class"] == "mask"]
    assert [float(row["recall"]) for row in curve] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert float(curve[-1]["precision"]) == pytest.approx(0.8)
    status = [json.loads(line) for line in (tmp_path / "r/status.json").open()]
    assert [entry["status"] for entry in status] == ["STARTED", "RUNNING", "SUCCESS"]
    assert status[-1]["kpi"]["mean average precision"] == 55.0
    assert status[-1]["categorical"]["average_precision"] == {"mask": 60.0, "no-mask": 50.0}


def test_the_last_batch_is_filled_up_with_the_first_images(
    data, small_spec, color_detector, tmp_path
):
    experiment = spec.load_experiment(
        small_spec(("batch_size_per_gpu: 24", "batch_size_per_gpu: 3"))
    )
    samples = validation_samples(experiment)
    result = evaluate.evaluate(experiment, color_detector, samples)
    counted = result.evaluation.curves["mask"].faces
    assert counted == 5 + len(samples[0].boxes[samples[0].classes == 0])
    assert result.evaluation.faces["mask"] == 5


def test_the_specs_box_offset_places_the_detections(data, small_spec, color_detector):
    experiment = spec.load_experiment(small_spec(BATCH_OF_TWO, ("      offset: 0.5\n", "")))
    samples = validation_samples(experiment)
    result = evaluate.evaluate(experiment, color_detector, samples)
    found = dict(zip([sample.image.stem for sample in samples], result.detections, strict=True))
    assert [31.5, 31.5, 47.5, 47.5] in found["000001"][0][0].tolist()


def test_the_training_set(data, run, small_spec, color_detector, tmp_path):
    arguments = ("-e", small_spec(BATCH_OF_TWO), "-m", color_detector, "-r", tmp_path / "r")
    assert run(*arguments, "--use_training_set")[0] == 0
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert metrics["images"] == 3
    assert metrics["faces"] == {"mask": 0, "no-mask": 0}
    assert metrics["coco"]["AP"] is None


def test_a_larger_image_loses_its_right_and_bottom(data, small_spec, color_detector):
    experiment = spec.load_experiment(small_spec(BATCH_OF_TWO))
    network = onnx.load(color_detector)
    dims = network.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_value, dims[3].dim_value = 64, 96
    onnx.save(network, color_detector)
    preprocessing = experiment.augmentation_config.preprocessing
    preprocessing.output_image_width, preprocessing.output_image_height = 96, 64
    samples = validation_samples(experiment)
    result = evaluate.evaluate(experiment, color_detector, samples)
    boxes = {
        sample.image.stem: sorted(found[0][0].tolist())
        for sample, found in zip(samples, result.detections, strict=True)
    }
    assert boxes == {
        "000000": [[16, 16, 32, 32], [64, 16, 80, 32]],
        "000001": [[32, 32, 48, 48]],
    }
    # A crop moves everything, and the detections are still in pixels of the image.
    preprocessing.crop_left, preprocessing.crop_top = 64, 32
    preprocessing.crop_right, preprocessing.crop_bottom = 160, 96
    result = evaluate.evaluate(experiment, color_detector, samples)
    found = dict(zip([sample.image.stem for sample in samples], result.detections, strict=True))
    assert found["000001"][0][0].tolist() == [[64, 64, 80, 80]]
    assert found["000001"][1][0].tolist() == [[128, 64, 144, 80]]


def test_stretched_images(data, small_spec, color_detector, paint, label, tmp_path, tfrecords_spec):
    for path in (tmp_path / "data/images").iterdir():
        with Image.open(path) as image:
            image.resize((320, 96), Image.Resampling.NEAREST).save(path)
    wide = label("mask", 1, 1).replace("16.00 16.00 32.00 32.00", "32.00 16.00 64.00 32.00")
    (tmp_path / "data/labels/000000.txt").write_text(wide + "\n")
    config = spec.load_dataset_export(tfrecords_spec)
    dataset_convert.convert(config, tmp_path / "data/tfrecords/k")
    path = small_spec(
        BATCH_OF_TWO, ("min_bbox_width: 1.0", "min_bbox_width: 1.0 enable_auto_resize: true")
    )
    experiment = spec.load_experiment(path)
    samples = validation_samples(experiment)
    result = evaluate.evaluate(experiment, color_detector, samples)
    found = dict(zip([sample.image.stem for sample in samples], result.detections, strict=True))
    assert [32, 16, 64, 32] in found["000000"][0][0].tolist()
    # The labels of the other image are half as wide now: too narrow to count.
    assert result.evaluation.faces["mask"] == 1
    assert result.evaluation.curves["mask"].recall.max() == 1


def test_scaled_images(data, small_spec, color_detector, label, tmp_path, tfrecords_spec):
    """Images of twice the size that the preprocessing halves are found where they are labelled."""
    for path in (tmp_path / "data/images").iterdir():
        with Image.open(path) as image:
            image.resize((320, 192), Image.Resampling.NEAREST).save(path)
    for path in (tmp_path / "data/labels").iterdir():
        lines = [line.split() for line in path.read_text().splitlines()]
        doubled = [[*w[:4], *(f"{2 * float(side):.2f}" for side in w[4:8]), *w[8:]] for w in lines]
        path.write_text("".join(f"{' '.join(words)}\n" for words in doubled))
    config = spec.load_dataset_export(tfrecords_spec)
    dataset_convert.convert(config, tmp_path / "data/tfrecords/k")
    scale = "min_bbox_width: 1.0 scale_width: 0.5 scale_height: 0.5"
    experiment = spec.load_experiment(small_spec(BATCH_OF_TWO, ("min_bbox_width: 1.0", scale)))
    samples = validation_samples(experiment)
    assert {(sample.width, sample.height) for sample in samples} == {(320, 192)}
    result = evaluate.evaluate(experiment, color_detector, samples)
    assert result.evaluation.corrected == pytest.approx({"mask": 80, "no-mask": 100})
    assert result.evaluation.faces == {"mask": 5, "no-mask": 2}
    found = dict(zip([sample.image.stem for sample in samples], result.detections, strict=True))
    assert [64, 64, 96, 96] in found["000001"][0][0].round().tolist()


def test_a_model_and_its_export_find_the_same(data, small_spec, make_model, tmp_path):
    model = make_model(10, 2, input_height=96, input_width=160)
    save_model(model, tmp_path / "model.hdf5")
    export_onnx(model, tmp_path / "model.onnx")
    experiment = spec.load_experiment(small_spec(BATCH_OF_TWO))
    samples = validation_samples(experiment)
    results = [
        evaluate.evaluate(experiment, tmp_path / name, samples)
        for name in ("model.hdf5", "model.onnx")
    ]
    assert results[0].cost == pytest.approx(results[1].cost, rel=1e-4)
    assert results[0].model["macs"] == results[1].model["macs"]
    for first, second in zip(*(result.detections for result in results), strict=True):
        for found, expected in zip(first, second, strict=True):
            assert found[0] == pytest.approx(expected[0], abs=0.05)


def test_a_class_of_which_nothing_is_found_is_told(data, small_spec, color_detector, caplog):
    threshold = ("coverage_threshold: 0.5", "coverage_threshold: 0.95")
    experiment = spec.load_experiment(small_spec(BATCH_OF_TWO, threshold))
    result = evaluate.evaluate(experiment, color_detector, validation_samples(experiment))
    count = result.evaluation.faces["mask"]
    assert count
    assert f"mask: none of its {count} objects is found: was the training long" in caplog.text


def test_bfloat16_is_near_float32(data, small_spec, make_model, tmp_path):
    save_model(make_model(10, 2, input_height=96, input_width=160), tmp_path / "model.hdf5")
    costs = []
    for precision in ("float32", "bfloat16"):
        native = f'random_seed: 42 native {{ evaluation_precision: "{precision}" }}'
        experiment = spec.load_experiment(small_spec(BATCH_OF_TWO, ("random_seed: 42", native)))
        samples = validation_samples(experiment)
        costs.append(evaluate.evaluate(experiment, tmp_path / "model.hdf5", samples).cost)
    assert costs[0] != costs[1]
    assert costs[0] == pytest.approx(costs[1], rel=0.05)


def test_what_cannot_be_evaluated_is_named(data, run, small_spec, color_detector, tmp_path):
    path = small_spec(BATCH_OF_TWO)
    for arguments, message in (
        (["-f", "tensorrt", "-m", "x.engine"], "-f tensorrt: an engine runs on its own device"),
        (["-m", "x.trt"], "x.trt: a TensorRT engine runs on its own device only"),
        (["-m", "x.tlt"], "x.tlt: is encrypted by NVIDIA's toolkit"),
        (["-m", "x.onnx"], "x.onnx: no such model file"),
    ):
        status, output, errors = run("-e", path, *arguments, "-r", tmp_path / "r")
        assert status == cli.FAILED
        assert f"detectnet_v2 evaluate: {message}" in errors
        assert output.splitlines()[-1] == "Execution status: FAIL"
        last = (tmp_path / "r/status.json").read_text().splitlines()[-1]
        assert json.loads(last)["status"] == "FAILURE"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    _, _, errors = run("-e", path, "-m", broken)
    assert "broken.onnx: ONNX Runtime cannot run it" in errors
    wide = small_spec(BATCH_OF_TWO, ("output_image_width: 160", "output_image_width: 176"))
    _, _, errors = run("-e", wide, "-m", color_detector)
    assert "takes images of 160 x 96, the spec's augmentation_config" in errors
    without = small_spec(BATCH_OF_TWO, ("  validation_fold: 0\n", ""))
    _, _, errors = run("-e", without, "-m", color_detector)
    assert "names no validation data" in errors


def test_a_model_of_other_classes(color_detector):
    with pytest.raises(DetectNetError, match=r"finds 2 classes, the spec has 3 \(a, b, c\)"):
        load_network(color_detector, ["a", "b", "c"])


def test_an_exported_model_of_the_same_classes_in_another_order(stored, tmp_path):
    model, _ = stored
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    assert load_network(path, ["mask", "no-mask"]).parameters
    message = "trained for the classes mask, no-mask in this order, the spec has no-mask, mask"
    with pytest.raises(DetectNetError, match=message):
        load_network(path, ["no-mask", "mask"])


def test_an_image_that_is_damaged(data, run, small_spec, color_detector, tmp_path):
    (tmp_path / "data/images/000001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    status, _, errors = run("-e", small_spec(BATCH_OF_TWO), "-m", color_detector)
    assert status == cli.FAILED
    assert errors.startswith("detectnet_v2 evaluate: ")
    assert "000001.png" in errors.splitlines()[0]


HATS = [
    ('key: "mask"\n    value: "mask"', 'key: "hat"\n    value: "hat"'),
    ('key: "no-mask"\n    value: "no-mask"', 'key: "cap"\n    value: "cap"'),
]
SOURCE = (
    'validation_data_source {{ tfrecords_path: "{0}/data/empty/*" image_directory_path: "{0}" }}'
)


@pytest.mark.parametrize(
    ("task", "damage", "replacements", "message"),
    [
        ("evaluate --use_training_set", "empty", [], "data/tfrecords/* hold no image: run dataset"),
        ("evaluate", "empty", [], "validation_fold: 0: the tfrecords of that fold hold no image ("),
        ("train", "empty", [], "data/tfrecords/* hold no image: run dataset_convert again on a"),
        ("evaluate", "", [("validation_fold: 0", SOURCE)], "data/empty/* hold no image: run data"),
        ("train", "", [("validation_fold: 0", SOURCE)], "data/empty/* hold no image: run dataset"),
        ("evaluate", "checksum", [], "has a wrong checksum of a record's data (byte 0): run data"),
        ("train", "checksum", [], "has a wrong checksum of a record's data (byte 0): run dataset"),
        ("evaluate", "image", [], "data/images/000001.png: image of the tfrecords is not there (1"),
        ("train", "image", [], "data/images/000001.png: image of the tfrecords is not there (1 o"),
        ("evaluate", "", HATS, "target_class_mapping: drops all 7 objects of "),
    ],
)
def test_unusable_data_is_one_line(
    data, run_task, small_spec, color_detector, tmp_path, task, damage, replacements, message
):
    (tmp_path / "data/empty").mkdir()
    (tmp_path / "data/empty/k-fold-000-of-001-shard-00000-of-00001").write_bytes(b"")
    if damage == "image":
        (tmp_path / "data/images/000001.png").unlink()
    elif damage:
        for path in data:
            content = path.read_bytes()
            path.write_bytes(b"" if damage == "empty" else content[:20] + b"~" + content[21:])
    replaced = [(old, new.format(tmp_path)) for old, new in replacements]
    arguments = [*task.split(), "-e", small_spec(BATCH_OF_TWO, *replaced), "-r", tmp_path / "r"]
    status, _, errors = run_task(*arguments, *(["-m", color_detector] * ("train" not in arguments)))
    assert status == cli.FAILED
    (line,) = [line for line in errors.splitlines() if line.startswith("detectnet_v2 ")]
    assert message in line
    assert "Traceback" not in errors


def test_benchmark_of_clusters_evaluates_with_others(
    data, repository, small_spec, color_detector, tmp_path, capsys, monkeypatch
):
    clusters = benchmark_module(repository, "clusters")
    monkeypatch.setattr(clusters, "MODEL", color_detector.name)
    results = tmp_path / "results"
    (results / "evaluate").mkdir(parents=True)
    (results / "unpruned/weights").mkdir(parents=True)
    small_spec(BATCH_OF_TWO).rename(results / "evaluate/fold0_spec.txt")
    color_detector.rename(results / "unpruned/weights" / color_detector.name)
    # Every cell has a coverage of 0.88; within a distance of 1 all of a class are one cluster.
    settings = ["--coverage_threshold", "0.5", "0.9", "--dbscan_eps", "0.2", "1"]
    assert clusters.main([str(results), *settings]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| 0.5 | 55.00 | 25.00 |",
        "| 0.9 | 0.00 | 0.00 |",
    ]
    assert clusters.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
