"""INT8 from the cache to the rendered config: what fits, what it costs, when it is FP16."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from deepstream.devices import resolve
from deepstream.errors import DeepStreamError
from deepstream.int8 import check_cache, judge, read_judgement, settle_precision
from detectnet_v2.calibrate import collect_histograms, load_onnx, ranges
from detectnet_v2.calibration_cache import read_cache, write_cache
from detectnet_v2.errors import DetectNetError
from ds_config import write_configs
from judge_int8 import judge_int8
from judge_int8 import table as judgement_table
from verify import check, table, verify

FIGURES = {"mAP": 90.0, "average_precision": {"mask": 91.0, "no-mask": 89.0}}


@pytest.fixture
def calibrated(squares, synthetic, tmp_path):
    """Write a cache of the square detector; `coarse` multiplies the scale of its coverage."""
    model = load_onnx(squares)
    picture = synthetic.picture([(64, 32, synthetic.red), (160, 96, synthetic.green)])
    images = [picture.transpose(2, 0, 1).astype(np.float32) / 255]
    amax = ranges(model, collect_histograms(model, images, workers=1), method="max")

    def make(version="8.5.2", coarse=1.0):
        scales = {name: value / 127 for name, value in amax.items()}
        scales["mean"] *= coarse
        path = tmp_path / f"calibration.trt{version}.bin"
        write_cache(path, scales, version)
        return path

    return make


@pytest.fixture
def judged(tmp_path):
    """Write an int8.json with a loss, in points of mAP, of which two are allowed."""

    def make(drop: float) -> Path:
        found = judge(FIGURES, FIGURES | {"mAP": 90.0 - drop}, max_drop=2.0, images=7)
        path = tmp_path / "int8.json"
        path.write_text(json.dumps(found))
        return path

    return make


@pytest.fixture
def laid_out(squares, numbers, synthetic, repository, tmp_path):
    """Render a release for a device that asks for INT8, and return its folder."""

    def make(calibration: Path, judgement: Path, **settings) -> Path:
        write_configs(
            tmp_path / "xavier/chosen-gpu",
            device="xavier",
            settings={"precision": "int8", "width": 320, "height": 192, **settings},
            model="chosen",
            engine="gpu",
            classes=synthetic.classes,
            onnx=squares,
            clustering=numbers,
            templates=repository / "ds_configs",
            calibration=calibration,
            judgement=judgement,
        )
        return tmp_path / "xavier/chosen-gpu"

    return make


def infer_config(folder: Path) -> str:
    return (folder / "config_infer_primary.txt").read_text()


def test_cache_must_fit_the_tensorrt_and_the_network(calibrated, squares, synthetic, tmp_path):
    check_cache(calibrated(), resolve("xavier"), squares)
    with pytest.raises(DeepStreamError, match=r"TRT-8201-.*TensorRT 8\.5\.2 .* takes TRT-8502-"):
        check_cache(calibrated("8.2.1"), resolve("xavier"), squares)
    scales = read_cache(calibrated()).scales
    del scales["mean"]
    write_cache(tmp_path / "less.bin", scales, "8.5.2")
    with pytest.raises(DetectNetError, match=r"lacks 1 of 5 tensors \(first: mean\)"):
        check_cache(tmp_path / "less.bin", resolve("xavier"), squares)
    text = calibrated().read_text().replace("EntropyCalibration2", "MinMaxCalibration")
    (tmp_path / "minmax.bin").write_text(text)
    with pytest.raises(DeepStreamError, match="TRT-8502-MinMaxCalibration"):
        check_cache(tmp_path / "minmax.bin", resolve("xavier"), squares)


def test_judgement_holds_both_figures(judged, tmp_path):
    assert read_judgement(judged(1.5))["passed"]
    found = read_judgement(judged(2.5))
    assert (found["passed"], found["drop"], found["images"]) == (False, 2.5, 7)
    assert "FP16 for the devices" in judgement_table(found)
    (tmp_path / "other.json").write_text('{"passed": true}')
    with pytest.raises(DeepStreamError, match=r"not an int8\.json"):
        read_judgement(tmp_path / "other.json")


def test_precision_that_a_device_gets(judged):
    int8 = {"precision": "int8"}
    assert settle_precision(resolve("xavier"), None) == ("fp16", "")
    good, bad = read_judgement(judged(-0.5)), read_judgement(judged(2.5))
    precision, note = settle_precision(resolve("xavier", int8), good)
    assert precision == "int8"
    assert note.startswith("INT8 gains 0.50 points of mAP (90.00 to 90.50, simulated)")
    precision, note = settle_precision(resolve("xavier", int8), bad)
    assert precision == "fp16"
    assert note.startswith("FP16 instead of INT8, which loses 2.50 points")
    assert note.endswith("export.max_int8_drop allows 2")
    _, note = settle_precision(resolve("orin", int8), good)
    assert "TensorRT 10.3.0 deprecates calibration caches" in note
    assert "deprecates" not in settle_precision(resolve("orin", int8), bad)[1]


def test_int8_ships_its_cache_and_says_what_it_costs(laid_out, calibrated, judged):
    folder = laid_out(calibrated(), judged(0.25))
    text = infer_config(folder)
    assert "network-mode=1\nint8-calib-file=calibration.trt8.5.2.bin" in text
    assert "# INT8 loses 0.25 points of mAP" in text
    assert "model-engine-file=model.onnx_b1_gpu0_int8.engine" in text
    assert (folder / "calibration.trt8.5.2.bin").is_file()


def test_int8_that_loses_too_much_becomes_fp16(laid_out, calibrated, judged, caplog):
    laid_out(calibrated(), judged(0.25))
    folder = laid_out(calibrated(), judged(2.25))
    text = infer_config(folder)
    assert "network-mode=2" in text and "int8-calib-file" not in text
    assert "# FP16 instead of INT8, which loses 2.25 points of mAP (90.00 to 87.75" in text
    assert "model-engine-file=model.onnx_b1_gpu0_fp16.engine" in text
    assert "xavier, chosen-gpu: FP16 instead of INT8" in caplog.text
    # The cache of the release before is gone: it would be pushed.
    assert not list(folder.glob("*.bin"))


def test_cache_of_another_tensorrt_is_not_shipped(laid_out, calibrated, judged):
    with pytest.raises(DeepStreamError, match="calibrate for it"):
        laid_out(calibrated("8.2.1"), judged(0.25))


@pytest.mark.parametrize(("coarse", "passed"), [(1.0, True), (500.0, False)])
def test_judge_simulates_exactly_these_scales(
    squares, calibrated, labelled, numbers, repository, synthetic, coarse, passed
):
    found = judge_int8(
        squares,
        calibrated(coarse=coarse),
        spec=labelled,
        clustering=numbers,
        templates=repository / "ds_configs",
        classes=synthetic.classes,
        max_int8_drop=2.0,
    )
    assert found["fp32"]["mAP"] > 90
    assert found["passed"] == passed
    assert (found["drop"] < 2) == passed
    assert found["images"] == 12


def test_verify_measures_the_cache_that_is_shipped(
    laid_out, calibrated, judged, squares, labelled, numbers
):
    folder = laid_out(calibrated(), judged(0.0))

    def compare():
        return verify(
            folder, model=squares, spec=labelled, clustering=numbers, judgement=judged(0.0)
        )

    result = compare()
    check(result)
    found = result["int8"]
    assert result["passed"] and found["passed"]
    assert (found["precision"], found["calibration"]) == ("int8", "calibration.trt8.5.2.bin")
    assert found["fp32"] == result["deepstream"]
    assert found["int8"]["mAP"] > 90
    assert "the release has INT8" in table(result)
    # Another cache than the one that was judged.
    (folder / "calibration.trt8.5.2.bin").write_bytes(calibrated(coarse=500.0).read_bytes())
    result = compare()
    assert result["int8"]["int8"]["mAP"] < 50 and not result["passed"]
    with pytest.raises(DeepStreamError, match="configs have INT8, but INT8 loses"):
        check(result)
    (folder / "calibration.trt8.5.2.bin").unlink()
    with pytest.raises(DeepStreamError, match="without a readable int8-calib-file"):
        compare()


def test_verify_knows_a_fallback_from_a_mistake(
    laid_out, calibrated, judged, squares, labelled, numbers
):
    folder = laid_out(calibrated(), judged(2.5))
    options = {"model": squares, "spec": labelled, "clustering": numbers}
    result = verify(folder, judgement=judged(2.5), **options)
    check(result)
    assert result["passed"]
    assert (result["int8"]["precision"], result["int8"]["passed"]) == ("fp16", False)
    assert result["int8"]["int8"]["mAP"] == 87.5
    assert "the release has FP16" in table(result)
    # FP16 although INT8 was found good: the configs are older than the judgement.
    with pytest.raises(DeepStreamError, match=r"have FP16, but INT8 loses 1\.00"):
        check(verify(folder, judgement=judged(1.0), **options))


def test_simulation_opens_an_etlt(
    laid_out, calibrated, judged, squares, labelled, numbers, codec, monkeypatch
):
    folder = laid_out(calibrated(), judged(0.0))
    codec.encrypt(squares, folder / "model.etlt", "key")
    (folder / "model.onnx").unlink()
    text = infer_config(folder).replace("onnx-file=model.onnx", "tlt-encoded-model=model.etlt")
    (folder / "config_infer_primary.txt").write_text(text)
    monkeypatch.setenv("ETLT_KEY", "key")
    monkeypatch.setenv("ETLT_CODEC_PYTHON", str(codec.python))
    result = verify(folder, model=squares, spec=labelled, clustering=numbers, judgement=judged(0.0))
    assert result["passed"] and result["int8"]["int8"]["mAP"] > 90


def test_release_holds_one_model(laid_out, calibrated, judged):
    """The open model beside an encrypted one would be pushed with it."""
    folder = laid_out(calibrated(), judged(0.0))
    (folder / "model.etlt").write_bytes(b"earlier")
    laid_out(calibrated(), judged(0.0))
    assert {path.name for path in folder.glob("model.*")} == {"model.onnx"}
    onnx.load(folder / "model.onnx")
