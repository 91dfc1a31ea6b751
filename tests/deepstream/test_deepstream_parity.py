"""Tuning, verification and the desk run, on labelled pictures that the model understands."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from deepstream.errors import DeepStreamError
from deploy_local import deploy_local
from detectnet_v2.calibration_cache import activation_tensors, write_cache
from detectnet_v2.metrics import INTEGRATE, Curve
from ds_config import write_configs
from tune_clustering import _threshold, tune_clustering
from tune_clustering import table as tuning_table
from verify import check, keep_or_refuse, table, verify

IMAGES = 24


@pytest.fixture
def compared(tmp_path, labelled, numbers):
    """Verify a release against a model file."""

    def compare(release: Path, model: Path, **options):
        return verify(release, model=model, spec=labelled, clustering=numbers, **options)

    return compare


def test_sound_configs_agree_with_the_toolkit(release, squares, compared, tmp_path):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"mAP": 91.5, "average_precision": {"mask": 91.0}}))
    result = compared(release(), squares, toolkit_metrics=metrics)
    assert result["images"] == IMAGES // 2
    assert result["model_sha256"] == hashlib.sha256(squares.read_bytes()).hexdigest()
    assert result["toolkit"]["mAP"] > 90
    assert abs(result["drop"]) < 0.5 and result["passed"]
    assert result["agreement"]["share_of_images"] == 1.0
    assert result["agreement"]["only_toolkit"] == result["agreement"]["only_deepstream"] == 0
    assert result["toolkit_own_clustering"]["gap"] == pytest.approx(
        91.5 - result["deepstream"]["mAP"], abs=1e-3
    )
    output, failed = tmp_path / "parity.json", tmp_path / "parity.failed.json"
    failed.write_text("{}")
    keep_or_refuse(result, output, tmp_path / "log")
    assert json.loads(output.read_text())["passed"] and not failed.exists()
    assert "100.0 % of the images agree" in table(result)


def edit(folder: Path, old: str, new: str) -> Path:
    path = folder / "config_infer_primary.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # The recipe's two: dims are C;H;W, and DBSCAN does not run without minBoxes.
        (
            "infer-dims=3;192;320",
            "input-dims=3;320;192;0",
            r"lose \d+\.\d\d points of mAP.* allows 1",
        ),
        ("cluster-mode=2", "cluster-mode=1", r"have \d+ boxes that the toolkit has not and lack 0"),
        ("net-scale-factor=0.0039215697906911373", "net-scale-factor=1", "have"),
        ("model-color-format=0", "model-color-format=1", "lose"),
        ("pre-cluster-threshold=0.6", "pre-cluster-threshold=0.999999", "lose"),
    ],
)
def test_planted_defects_are_caught(release, compared, synthetic, tmp_path, old, new, message):
    """Also where the network would take any size, as the recipe's UFF did."""
    model = synthetic.square_model(tmp_path / "any.onnx", width=None, height=None)
    reference = synthetic.square_model(tmp_path / "fixed.onnx")
    folder = edit(release(), old, new)
    (folder / "model.onnx").write_bytes(model.read_bytes())
    result = compared(folder, reference)
    assert not result["passed"]
    with pytest.raises(DeepStreamError, match=message):
        check(result)


def test_swapped_labels_are_caught(release, squares, compared):
    folder = release()
    (folder / "labels.txt").write_text("no-mask\nmask\n")
    with pytest.raises(DeepStreamError, match="trained on mask, no-mask in this order"):
        compared(folder, squares)


def test_apps_that_run_different_detectors_are_caught(release, squares, compared):
    folder = release()
    text = (folder / "app_video.txt").read_text()
    (folder / "app_video.txt").write_text(text.replace("plugin-type=0", "interval=3"))
    with pytest.raises(DeepStreamError, match=r"app\.txt and app_video\.txt run different"):
        compared(folder, squares)


def test_disagreement_is_counted_box_by_box(release, squares, compared):
    """A class without detections on the desk: its boxes are the toolkit's alone."""
    folder = edit(release(), "[class-attrs-1]\npre-cluster-threshold=0.6",
                  "[class-attrs-1]\npre-cluster-threshold=1.5")  # fmt: skip
    result = compared(folder, squares)
    assert result["deepstream"]["average_precision"]["no-mask"] == 0
    assert result["agreement"]["only_toolkit"] > 0
    assert result["agreement"]["only_deepstream"] == 0
    assert 0 < result["agreement"]["images_that_agree"] < IMAGES // 2
    assert len(result["agreement"]["worst_images"]) >= 1


def test_boxes_beyond_topk_are_nobodys(release, squares, labelled, synthetic, tmp_path):
    one = synthetic.clustering(topk=1)
    numbers = tmp_path / "one.json"
    numbers.write_text(json.dumps(one))
    folder = release(numbers=one)
    result = verify(folder, model=squares, spec=labelled, clustering=numbers)
    assert result["agreement"]["share_of_images"] == 1.0
    assert result["agreement"]["only_toolkit"] == 0


def test_tuning_beats_the_defaults(squares, labelled, synthetic, tmp_path):
    """nvinfer's 0.2 lets the diagonal cells through; the search finds a clean set of numbers."""
    found = tune_clustering(squares, labelled, labelled)
    fold = found["fold0"]
    assert fold["tuned"]["mAP"] >= fold["nvinfer_defaults"]["mAP"]
    assert fold["tuned"]["mAP"] > 95
    assert min(fold["tuned"]["precision"].values()) > 0.95
    assert fold == found["val"]
    for name in synthetic.classes:
        chosen = found["classes"][name]
        assert chosen["pre-cluster-threshold"] == chosen["post-cluster-threshold"] > 0.4
        assert chosen["topk"] == 10
        assert found["dbscan"][name]["minBoxes"] >= 1
        assert found["working_points"][name]["best_f1"]["f1"] > 0.95
    assert "tuned_dbscan" in tuning_table(found)
    # What it writes is what the renderer takes.
    (tmp_path / "clustering.json").write_text(json.dumps(found))


def test_a_class_without_faces_keeps_nvinfers_threshold():
    curve = Curve(np.array([0.9], np.float32), np.zeros(1), np.full(1, np.nan), faces=0)
    for objective in ("ap", "f1"):
        chosen, points = _threshold(curve, 0.0, INTEGRATE, objective, 0.2)
        assert chosen == points["chosen"].threshold == points["best_f1"].threshold == 0.2


def test_tuned_threshold_for_f1(squares, labelled):
    found = tune_clustering(squares, labelled, None, objective="f1")
    for points in found["working_points"].values():
        assert points["chosen"] == points["best_f1"]
    assert "val" not in found
    with pytest.raises(DeepStreamError, match="objective 'recall': known are ap, f1"):
        tune_clustering(squares, labelled, None, objective="recall")


def test_ds_config_lays_out_a_release(squares, clip, numbers, synthetic, tmp_path, repository):
    written = write_configs(
        tmp_path / "release",
        device="local",
        settings=None,
        model="chosen",
        engine="gpu",
        classes=synthetic.classes,
        onnx=squares,
        clustering=numbers,
        templates=repository / "ds_configs",
        clip=clip,
    )
    assert sorted(path.name for path in written) == [
        "app.txt",
        "app_camera_csi.txt",
        "app_camera_rtsp.txt",
        "app_camera_v4l2.txt",
        "app_video.txt",
        "clip.mp4",
        "config_infer_primary.txt",
        "labels.txt",
        "model.onnx",
    ]
    assert sorted((tmp_path / "release").iterdir()) == sorted(written)
    text = (tmp_path / "release/app.txt").read_text()
    assert f"width={synthetic.width}\nheight={synthetic.height}" in text


def test_ds_config_for_a_board_names_its_own_clip(
    squares, numbers, synthetic, tmp_path, repository
):
    calibration = tmp_path / "calibration.trt8.5.2.bin"
    scales = dict.fromkeys(activation_tensors(onnx.load(squares)), 1 / 127)
    write_cache(calibration, scales, "8.5.2")
    arguments = {
        "device": "door",
        "model": "chosen",
        "engine": "dla0",
        "classes": synthetic.classes,
        "onnx": squares,
        "clustering": numbers,
        "templates": repository / "ds_configs",
        "calibration": calibration,
    }
    settings = {"board": "xavier", "precision": "int8", "host": "door.lan", "streams": 4}
    write_configs(tmp_path / "release", settings=settings, **arguments)
    app = (tmp_path / "release/app.txt").read_text()
    assert "uri=file:///opt/nvidia/deepstream/deepstream/samples/streams/" in app
    assert "num-sources=4" in app and "width=1920" in app
    infer = (tmp_path / "release/config_infer_primary.txt").read_text()
    assert "int8-calib-file=calibration.trt8.5.2.bin" in infer and "batch-size=4" in infer
    assert (tmp_path / "release/calibration.trt8.5.2.bin").is_file()


def test_desk_run_leaves_a_video_dumps_and_figures(release, tmp_path):
    folder = release(perf_interval_s=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"mAP": 80.5}')
    output = tmp_path / "deployed/local/benchmark.json"
    deploy_local({"chosen-gpu": folder}, output, metrics={"chosen": metrics}, duration_s=2.2)
    result = json.loads(output.read_text())
    (case,) = result["cases"]
    assert (case["model"], case["engine"], case["precision"]) == ("chosen", "gpu", "fp32")
    assert case["model_sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert case["fps"]["total"] > 0 and len(case["fps"]["per_stream"]) == 1
    assert case["fps"]["samples"] >= 1
    assert case["video"]["frames"] == 6
    assert case["video"]["boxes"] == {"mask": 6, "no-mask": 6}
    assert result["map_percent"] == {"chosen": 80.5}
    logs = output.parent / "chosen-gpu"
    with av.open(str(logs / "video.mp4")) as container:
        assert len(list(container.decode(video=0))) == 6
    assert len(list((logs / "kitti").iterdir())) == 6
    assert "**PERF" in (logs / "measure.log").read_text()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_desk_run_says_why_it_failed(release, tmp_path):
    folder = edit(release(), "infer-dims=3;192;320", "infer-dims=3;320;192")
    output = tmp_path / "deployed/local/benchmark.json"
    with pytest.raises(DeepStreamError, match=r"swapped\? \(deepstream-app ended with 255, log"):
        deploy_local({"chosen-gpu": folder}, output, metrics={})
    assert not output.exists()


def test_package_runs_as_a_module(repository):
    done = subprocess.run(
        [sys.executable, "-m", "deepstream", "--version"],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("deepstream-app version ")


SNAKEFILE = """
rule all:
    input: "deployed/benchmark.json", "deepstream/local/chosen-gpu/parity.json"

rule tune:
    input: onnx=lambda wc: ["{model}"], fold0_spec="{spec}", val_spec=lambda wc: []
    output: "clustering.json"
    log: "tune.log"
    script: "{scripts}/tune_clustering.py"

rule ds_config:
    input: onnx="{model}", clustering=lambda wc: ["clustering.json"], clip=lambda wc: "{clip}"
    output: "deepstream/{{device}}/{{model}}-{{engine}}/config_infer_primary.txt"
    log: "{{device}}-{{model}}-{{engine}}.log"
    params: settings={{"perf_interval_s": 1}}, classes={classes}, templates="{templates}"
    script: "{scripts}/ds_config.py"

rule verify:
    input:
        config=lambda wc: ["deepstream/local/chosen-gpu/config_infer_primary.txt"],
        model="{model}", spec="{spec}", clustering="clustering.json"
    output: "deepstream/local/chosen-gpu/parity.json"
    log: "verify.log"
    params: max_parity_drop=1.0
    script: "{scripts}/verify.py"

rule deploy_local:
    input: "deepstream/local/chosen-gpu/config_infer_primary.txt"
    output: benchmark="deployed/benchmark.json"
    log: "deploy.log"
    params: releases={{"chosen-gpu": "deepstream/local/chosen-gpu"}}, metrics={{}},
        measurement={{"duration_s": 2.2}}
    script: "{scripts}/deploy_local.py"
"""


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-c2", "--latency-wait", "0", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_rule_scripts_run_under_snakemake(squares, clip, labelled, synthetic, repository, tmp_path):
    (tmp_path / "Snakefile").write_text(
        SNAKEFILE.format(
            model=squares,
            spec=labelled,
            clip=clip,
            classes=synthetic.classes,
            scripts=repository / "scripts",
            templates=repository / "ds_configs",
        )
    )
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stderr
    parity = json.loads((tmp_path / "deepstream/local/chosen-gpu/parity.json").read_text())
    assert parity["passed"]
    assert json.loads((tmp_path / "deployed/benchmark.json").read_text())["cases"]
    assert "tuned_dbscan" in (tmp_path / "tune.log").read_text()
    assert "images agree box by box" in (tmp_path / "verify.log").read_text()
    # A release that was spoilt stops with one line, and leaves no result.
    infer = tmp_path / "deepstream/local/chosen-gpu/config_infer_primary.txt"
    infer.write_text(infer.read_text().replace("model-color-format=0", "model-color-format=1"))
    done = snakemake(
        tmp_path,
        "-R",
        "verify",
        "--allowed-rules",
        "verify",
        "--",
        "deepstream/local/chosen-gpu/parity.json",
    )
    assert done.returncode == 1
    log = (tmp_path / "verify.log").read_text()
    assert "error: chosen-gpu: the rendered configs" in log
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "deepstream/local/chosen-gpu/parity.json").exists()
    # Its figures can be read all the same; the line says where.
    failed = "deepstream/local/chosen-gpu/parity.failed.json"
    assert f"table in verify.log, all figures in {failed}" in done.stderr
    assert "toolkit  DeepStream    drop" in log
    figures = json.loads((tmp_path / failed).read_text())
    assert not figures["passed"] and figures["drop"] > 1
