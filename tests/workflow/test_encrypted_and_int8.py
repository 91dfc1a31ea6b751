"""`.etlt` and INT8 in the graph: what runs when, what stops a run, and what real runs leave."""

import json
import subprocess

import onnx
import pytest
from detectnet_v2.calibration_cache import activation_tensors, check_coverage, read_cache
from etlt.codec import Codec

ETLT = {"export": {"etlt": True, "accept_nvidia_eff_licence": True}}
KEY = "a key of the tests"


def rules_of(jobs):
    """Names of the rules that do work."""
    return {rule for rule, _ in jobs} - {"all"}


def devices(**precisions):
    """A config that gives devices a precision."""
    named = {name: {"precision": precision} for name, precision in precisions.items()}
    return {"deploy": {"devices": named}}


def release(device, case="chosen-gpu"):
    """The last file that is made for a device without contacting it."""
    return f"results/deepstream/{device}/{case}/parity.json"


@pytest.fixture
def codec_python(codec, tmp_path):
    """The stand-in of NVIDIA's codec, in an interpreter that says it is of the right version."""
    path = tmp_path / "python3.12"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *version_info*) exit 0;; esac\nexec {codec.python} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def test_without_int8_nothing_is_calibrated(fresh_checkout, plan):
    rules = rules_of(plan(fresh_checkout, "all", config=devices(xavier_nx="fp16")))
    assert "export_model" in rules
    assert not {"calibration_spec", "calibration_tensorfile", "calibrate", "judge_int8"} & rules
    assert not {"codec", "etlt"} & rules


def test_added_int8_device_runs_calibration_and_below(finished_checkout, plan):
    added = devices(orin="int8")
    jobs = plan(finished_checkout, "all", config=added)
    assert rules_of(jobs) == {"calibrate", "judge_int8", "make_report"}
    jobs = plan(finished_checkout, release("orin"), config=added)
    assert rules_of(jobs) == {"calibrate", "judge_int8", "ds_config", "verify"}
    # Another device with the TensorRT of one that is calibrated.
    assert rules_of(plan(finished_checkout, "all", config=devices(xavier="int8"))) == {
        "make_report"
    }


def test_other_calibration_images_calibrate_and_judge_anew(finished_checkout, plan):
    change = {"export": {"calibration": {"batches": 2}}}
    jobs = plan(finished_checkout, "all", config=change)
    assert rules_of(jobs) == {"calibration_tensorfile", "calibrate", "judge_int8", "make_report"}
    jobs = plan(finished_checkout, "all", config={"export": {"max_int8_drop": 3}})
    assert rules_of(jobs) == {"judge_int8", "make_report"}


def test_etlt_runs_the_codec_alone(finished_checkout, plan):
    jobs = plan(finished_checkout, "all", config=ETLT)
    assert rules_of(jobs) == {"codec", "etlt", "make_report"}
    assert {wildcards for rule, wildcards in jobs if rule == "etlt"} == {"unpruned", "chosen"}


def test_etlt_goes_to_deepstream_that_takes_it(fresh_checkout, plan):
    assert "ds_config_etlt" in rules_of(plan(fresh_checkout, release("nano"), config=ETLT))
    newer = rules_of(plan(fresh_checkout, release("orin"), config=ETLT))
    assert "ds_config" in newer
    assert not {"ds_config_etlt", "etlt"} & newer


def stopped(done):
    """The only line of a run that stopped before its first job."""
    assert done.returncode
    assert "Traceback" not in done.stderr + done.stdout
    assert "Finished jobid" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_what_is_missing_stops_the_run_before_any_job(checkout, snakemake, monkeypatch, tmp_path):
    target = "results/export/chosen/model.etlt"
    (checkout / "results/chosen/model.hdf5").unlink()
    monkeypatch.delenv("ETLT_KEY", raising=False)

    def run(**export):
        config = {"export": {"etlt": True, **export}}
        return snakemake(checkout, target, "--cores", "2", config=config, check=False)

    assert "set export.accept_nvidia_eff_licence: true" in stopped(run())
    accepted = {"accept_nvidia_eff_licence": True}
    assert "set the environment variable ETLT_KEY" in stopped(run(**accepted))
    monkeypatch.setenv("ETLT_KEY", KEY)
    line = stopped(run(**accepted, codec_python="/nowhere/python"))
    assert "export.codec_python: /nowhere/python does not start" in line
    # Looking at the plan needs none of it.
    monkeypatch.delenv("ETLT_KEY")
    done = snakemake(checkout, target, "-n", config={"export": {"etlt": True}})
    assert "etlt" in done.stdout + done.stderr


def test_small_run_judged_int8_for_both_models(finished_checkout):
    for model in ("unpruned", "chosen"):
        folder = finished_checkout / "results/export" / model
        cache = read_cache(folder / "calibration.trt8.5.2.bin")
        assert (cache.version, cache.algorithm) == (8502, "EntropyCalibration2")
        check_coverage(cache, activation_tensors(onnx.load(folder / "model.onnx")), model)
        judged = json.loads((folder / "int8.json").read_text())
        assert judged["drop"] == pytest.approx(judged["fp32"]["mAP"] - judged["int8"]["mAP"])
        report = json.loads((folder / "calibration.json").read_text())
        assert report["images"] == 12
    assert "What INT8 costs" in (finished_checkout / "results/report.html").read_text()


def test_encrypted_int8_release(checkout, snakemake, plan, codec, codec_python, monkeypatch):
    """One run: the .etlt of a model, in the release of a device that asks for INT8."""
    monkeypatch.setenv("ETLT_KEY", KEY)
    config = {"export": ETLT["export"] | {"codec_python": codec_python}}
    snakemake(checkout, release("xavier_nx", "chosen-dla0"), "--cores", "2", config=config)
    results = checkout / "results"
    folder = results / "deepstream/xavier_nx/chosen-dla0"
    codec.decrypt(folder / "model.etlt", checkout / "back.onnx", KEY)
    assert (checkout / "back.onnx").read_bytes() == (
        results / "export/chosen/model.onnx"
    ).read_bytes()
    assert not (folder / "model.onnx").exists()
    infer = (folder / "config_infer_primary.txt").read_text()
    assert "tlt-encoded-model=model.etlt" in infer and "tlt-model-key" not in infer
    assert "network-mode=1\nint8-calib-file=calibration.trt8.5.2.bin" in infer
    judged = json.loads((results / "export/chosen/int8.json").read_text())
    parity = json.loads((folder / "parity.json").read_text())
    # The same files, the same steps: to the last digit what was judged.
    assert {key: parity["int8"][key] for key in judged} == judged
    assert (parity["int8"]["precision"], parity["passed"]) == ("int8", True)
    found = subprocess.run(["grep", "-rlF", KEY, checkout], capture_output=True, check=False)
    assert found.stdout == b"", "the key was written down"
    # A key that does not open what is there is told before the first job.
    monkeypatch.setenv("ETLT_KEY", "another key")
    (folder / "parity.json").unlink()
    done = snakemake(
        *(checkout, release("xavier_nx", "chosen-dla0"), "--cores", "2"),
        config=config,
        check=False,
    )
    assert "the key in ETLT_KEY is not the one" in stopped(done)


def test_decrypted_tlt_is_exported_without_the_container(
    checkout, snakemake, codec, codec_python, monkeypatch
):
    """A .tlt of another computer, on one with neither Docker nor a GPU."""
    monkeypatch.setenv("ETLT_KEY", KEY)
    results = checkout / "results"
    weights, exported = results / "unpruned/weights", results / "export/unpruned/model.onnx"
    codec.encrypt_tlt(weights / "model.hdf5", weights / "model.tlt", KEY)
    expected = onnx.load(exported).graph.initializer
    exported.unlink()
    config = {
        "toolkit": "tlt2",
        "export": {"accept_nvidia_eff_licence": True, "codec_python": codec_python},
    }
    rules = ("codec", "decrypt_model", "evaluate_spec", "export_model")
    target = str(exported.relative_to(checkout))
    snakemake(checkout, target, "--cores", "2", "--allowed-rules", *rules, config=config)
    plain = results / "decrypted/unpruned.hdf5"
    assert plain.read_bytes() == (weights / "model.hdf5").read_bytes()
    assert list(onnx.load(exported).graph.initializer) == list(expected)


@pytest.mark.slow
def test_nvidias_codec_in_the_graph(checkout, snakemake, real_codec, monkeypatch):
    monkeypatch.setenv("ETLT_KEY", KEY)
    snakemake(checkout, "results/export/chosen/model.etlt", "--cores", "2", config=ETLT)
    folder = checkout / "results/export/chosen"
    python = json.loads((checkout / "results/codec/environment.json").read_text())["python"]
    Codec(python).decrypt(folder / "model.etlt", checkout / "back.onnx", KEY)
    assert (checkout / "back.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
