"""NVIDIA's toolkits through a docker that checks what it is told and runs the native toolkit."""

import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scenes.clip import write_clip

PROGRAMS = Path(__file__).parent / "programs"
SMALL = Path(__file__).parent / "small.yaml"
KEY = "tlt_encode_of_this_test"
TLT2 = "nvcr.io/nvidia/tlt-streamanalytics:v2.0_py3"
TAO4 = "nvcr.io/nvidia/tao/tao-toolkit:4.0.0-tf1.15.5"
TAO5 = "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5"
# One epoch, one branch and one exported model: what differs between the toolkits, and no more.
SHORT = {
    "train": {"epochs": 1, "validation": {"first_epoch": 1}},
    "prune": {"thresholds": [0.9]},
    "export": {"models": ["chosen"]},
    "deploy": {
        "models": ["chosen"],
        "devices": {"nano": {"host": "nano"}, "xavier_nx": {"precision": "fp16"}},
        "local": {"clip": "clip.mp4"},
    },
}

ONE_TRAINING = (
    "results/unpruned/evaluation/fold0/metrics.json",
    "results/pruned/0.9/pruning.json",
    "results/export/unpruned/model.onnx",
)


class Bench:
    """A checkout with data converted, and a PATH with docker and nvidia-smi."""

    def __init__(self, folder, environment, bin_folder, images):
        self.folder = folder
        self.log = bin_folder / "docker.log"
        self.log.touch()
        self.settings = bin_folder / "docker.json"
        self.configure(images=images, log=str(self.log))
        self.environment = environment | {
            "PATH": f"{bin_folder}:{PROGRAMS}:{environment['PATH']}",
            "DOCKER_TEST": str(self.settings),
            "DOCKER_CONFIG": str(bin_folder),
            "ETLT_KEY": KEY,
        }
        self.bin = bin_folder

    def configure(self, **settings):
        old = json.loads(self.settings.read_text()) if self.settings.exists() else {}
        self.settings.write_text(json.dumps(old | settings))

    def snakemake(self, *arguments, config):
        overlay = self.folder / "overlay.yaml"
        overlay.write_text(yaml.safe_dump(SHORT | config))
        command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2"]
        return subprocess.run(
            [*command, "--configfile", str(SMALL), str(overlay)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def finish(self, *targets, toolkit):
        done = self.snakemake(*targets, config={"toolkit": toolkit})
        assert done.returncode == 0, done.stdout + done.stderr
        return self

    def runs(self):
        """Command lines of `docker run`, in order."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line[1:] for line in lines if line[0] == "run"]

    def results(self, path):
        return self.folder / "results" / path

    def read(self, path):
        """A JSON file of the results."""
        return json.loads(self.results(path).read_text())


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, finished_checkout):
    """A checkout with raw data converted and nothing trained, by the native toolkit's run."""
    folder = tmp_path_factory.mktemp("converted") / "project"
    shutil.copytree(finished_checkout, folder, symlinks=True)
    for path in (folder / "results").iterdir():
        if path.name not in ("index", "selection", "kitti", "check_labels"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_clip(folder / "clip.mp4", seconds=0.5, size=(160, 96), people=1)
    return folder


@pytest.fixture(scope="module")
def bench_of():
    """A function that copies a checkout and puts programs on its PATH."""

    def make(folder, checkout, images):
        shutil.copytree(checkout, folder / "project", symlinks=True)
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        program(bin_folder / "nvidia-smi", 'echo "GPU 0: NVIDIA A100 (UUID: GPU-1)"')
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {
            "PATH": path,
            "OMP_NUM_THREADS": "1",
        }
        return Bench(folder / "project", environment, bin_folder, images)

    return make


@pytest.fixture
def bench(tmp_path, converted, bench_of):
    """A bench of its own, with NVIDIA's images pulled."""
    return bench_of(tmp_path, converted, [TLT2, TAO4, TAO5])


@pytest.fixture(scope="module")
def tao5(tmp_path_factory, converted, bench_of):
    """A run with TAO 5 of each of its tasks once: what can be had without a second training."""
    bench = bench_of(tmp_path_factory.mktemp("tao5"), converted, [TAO5])
    return bench.finish(*ONE_TRAINING, toolkit="tao5")


@pytest.fixture(scope="module")
def whole_tao5(tmp_path_factory, tao5, bench_of):
    """The same, gone on to everything."""
    bench = bench_of(tmp_path_factory.mktemp("whole_tao5"), tao5.folder, [TAO5])
    return bench.finish("all", toolkit="tao5")


@pytest.fixture(scope="module")
def tlt2(tmp_path_factory, converted, bench_of):
    """A finished run of what TLT 2 can do."""
    bench = bench_of(tmp_path_factory.mktemp("tlt2"), converted, [TLT2])
    return bench.finish("all", toolkit="tlt2")


@pytest.mark.slow
def test_tao5_makes_every_stage(whole_tao5):
    assert whole_tao5.results("unpruned/weights/model.hdf5").stat().st_size > 100_000
    assert whole_tao5.results("export/chosen/model.onnx").stat().st_size > 1000
    assert whole_tao5.results("export/chosen/labels.txt").read_text() == "mask\nno-mask\n"
    assert whole_tao5.results("report.html").stat().st_size > 10_000
    assert whole_tao5.read("deepstream/local/chosen-gpu/parity.json")["passed"]
    choice = whole_tao5.read("chosen/choice.json")
    assert choice["run"] == "retrained/0.9"
    assert 0 < choice["share_of_parameters"] < 1
    metrics = whole_tao5.read("retrained/0.9/evaluation/fold0/metrics.json")
    pruning = whole_tao5.read("pruned/0.9/pruning.json")
    assert pruning["parameters"]["after"] == metrics["model"]["parameters"]
    # What was trained before is taken as it is.
    trained = [run for run in whole_tao5.runs() if "train" in run]
    assert [run[run.index("-r") + 1] for run in trained] == ["results/retrained/0.9"]
    done = whole_tao5.snakemake("all", "-n", config={"toolkit": "tao5"})
    assert "Nothing to be done" in done.stdout + done.stderr, done.stdout


def test_plan_goes_on_to_every_stage_with_another_runner_too(tao5):
    with (tao5.folder / "scripts/start_training.py").open("a") as file:
        file.write("# The same as before.\n")
    done = tao5.snakemake(*ONE_TRAINING, "-n", config={"toolkit": "tao5"})
    assert "Nothing to be done" in done.stdout + done.stderr, done.stdout
    done = tao5.snakemake("all", "-n", config={"toolkit": "tao5", "toolkit_runner": "host"})
    for rule in ("start_retraining", "retrain", "choose_model", "tune_clustering", "verify"):
        assert f"rule {rule}:" in done.stdout, done.stdout
    assert "rule train:" not in done.stdout
    assert "rule tfrecords:" not in done.stdout


def test_changed_training_leaves_the_tfrecords_alone(tao5):
    train = SHORT["train"] | {"seed": 7}
    done = tao5.snakemake("all", "-n", config={"toolkit": "tao5", "train": train})
    for rule in ("start_training", "train", "prune", "retrain"):
        assert f"rule {rule}:" in done.stdout, done.stdout
    assert "rule tfrecords:" not in done.stdout


def test_each_task_is_nvidias_command_line(tao5):
    words = [" ".join(run) for run in tao5.runs()]
    for command in (
        "detectnet_v2 dataset_convert -d results/tfrecords/train_spec.txt -o results/tfrecords/",
        "detectnet_v2 train -e results/unpruned/train_spec.txt -r results/unpruned -n model --gpus",
        "detectnet_v2 evaluate -e results/evaluate/fold0_spec.txt -m results/unpruned/weights/mod",
        "detectnet_v2 prune -m results/unpruned/weights/model.hdf5 -o results/pruned/0.9/model.h",
        "detectnet_v2 export -m results/unpruned/weights/model.hdf5 -e results/evaluate/fold0_spe",
    ):
        assert any(command in line for line in words), (command, words)
    assert tao5.results("export/unpruned/labels.txt").read_text() == "mask\nno-mask\n"


def test_docker_gets_gpu_user_project_and_key_by_name(tao5):
    run = next(run for run in tao5.runs() if "evaluate" in run)
    folder = str(tao5.folder)
    pairs = dict(itertools.pairwise(run))
    assert pairs["--gpus"] == "all"
    assert pairs["--user"] == f"{os.getuid()}:{os.getgid()}"
    assert pairs["--volume"] == f"{folder}:{folder}"
    assert pairs["--workdir"] == folder
    named = [value for option, value in itertools.pairwise(run) if option == "--env"]
    assert {"DATA_BASE_PATH", "ETLT_KEY"} <= set(named)
    assert not [value for value in named if KEY in value]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["tao5", "tlt2"])
def test_boxes_are_drawn_by_the_toolkit(request, run):
    bench = request.getfixturevalue({"tao5": "whole_tao5"}.get(run, run))
    bench.finish("inference", toolkit=run)
    images = {path.stem for path in bench.results("kitti/val/images").iterdir()}
    drawn = {path.stem for path in bench.results("inference/images_annotated").glob("*.jpg")}
    assert drawn == images
    assert {path.stem for path in bench.results("inference/labels").glob("*.txt")} == images
    flag = {"tao5": "-r", "tlt2": "-o"}[run]
    command = f"-i results/kitti/val/images {flag} results/inference"
    assert any(command in " ".join(words) for words in bench.runs())


def test_key_is_in_no_file_that_the_workflow_leaves(tao5):
    # The stand-in's training prints it, as NVIDIA's may.
    assert "key ***: Saving" in tao5.results("logs/train/unpruned.log").read_text()
    assert KEY not in tao5.log.read_text()
    for path in tao5.folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 2_000_000:
            assert KEY.encode() not in path.read_bytes(), path


def test_metrics_and_pruning_come_from_what_was_printed(tao5):
    metrics = tao5.read("unpruned/evaluation/fold0/metrics.json")
    printed = tao5.results("unpruned/evaluation/fold0/evaluate.txt").read_text()
    assert f"(in %): {metrics['mAP']:.4f}" in printed
    assert set(metrics["average_precision"]) == {"mask", "no-mask"}
    pruning = tao5.read("pruned/0.9/pruning.json")
    assert pruning["parameters"]["before"] == metrics["model"]["parameters"]
    share = pruning["parameters"]["after"] / pruning["parameters"]["before"]
    assert 0 < share < 1
    assert pruning["ratio"] == pytest.approx(share)


@pytest.mark.slow
def test_tlt2_ends_with_a_uff_etlt(tlt2):
    content = tlt2.results("export/chosen/model.etlt").read_bytes()
    (length,) = struct.unpack("<i", content[:4])
    assert content[4 : 4 + length] == b"input_1"
    assert tlt2.results("export/chosen/labels.txt").read_text() == "mask\nno-mask\n"
    assert tlt2.results("unpruned/weights/model.tlt").stat().st_size > 100_000
    assert not list(tlt2.results("").rglob("*.onnx"))
    assert tlt2.results("report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_tlt2_runs_the_recipes_commands(tlt2):
    words = [" ".join(run) for run in tlt2.runs()]
    key = f'{TLT2} sh -c exec "$@" -k "$ETLT_KEY" sh '
    for command in (
        f"{TLT2} tlt-dataset-convert -d",
        f"{key}tlt-train detectnet_v2 -e",
        f"{key}tlt-evaluate detectnet_v2 -e",
        f"{key}tlt-prune -m results/unpruned/weights/model.tlt -o results/pruned/0.9/model.tlt",
        f"{key}tlt-export detectnet_v2 -m results/chosen/model.tlt -o results/export/chosen/mod",
    ):
        assert any(command in line for line in words), (command, words)


@pytest.mark.slow
def test_opaque_models_are_compared_by_the_printed_ratio(tlt2):
    ratio = tlt2.read("pruned/0.9/pruning.json")["ratio"]
    choice = tlt2.read("chosen/choice.json")
    assert choice["share_of_parameters"] == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize(
    ("target", "stage"),
    [
        ("deploy_local", "ds_config"),
        ("deploy_nano", "ds_config"),
        ("results/export/chosen/clustering.json", "tune_clustering"),
        ("results/export/chosen/model.onnx", "export to ONNX"),
        ("results/deepstream/local/chosen-gpu/parity.json", "verify"),
    ],
)
def test_stage_that_tlt2_cannot_have_is_refused_by_name(bench, target, stage):
    done = bench.snakemake(target, "-n", config={"toolkit": "tlt2"})
    told = [line for line in done.stderr.splitlines() if line.startswith("toolkit tlt2: ")]
    assert done.returncode
    assert len(told) == 1, done.stderr
    assert told[0].startswith(f"toolkit tlt2: there is no {stage}: its export is UFF")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_changed_spec_starts_afresh_and_an_interrupted_training_goes_on(tao5, tmp_path, bench_of):
    bench = bench_of(tmp_path, tao5.folder, [TAO5])
    model = "results/unpruned/weights/model.hdf5"
    changed = {"toolkit": "tao5", "train": SHORT["train"] | {"seed": 7}}
    done = bench.snakemake(model, config=changed)
    assert done.returncode == 0, done.stderr
    assert "Resuming" not in (bench.results("logs/train/unpruned.log")).read_text()
    (bench.folder / model).unlink()
    done = bench.snakemake(model, config=changed)
    assert done.returncode == 0, done.stderr
    assert "Resuming from" in (bench.results("logs/train/unpruned.log")).read_text()
    assert "start_training" not in done.stderr


def test_plan_needs_no_docker_and_no_key(bench):
    bench.environment.pop("ETLT_KEY")
    bench.environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    bench.finish("all", "-n", toolkit="tlt2")
    assert not bench.log.read_text()


def test_preflight_stops_the_run_before_any_work(bench):
    bench.environment.pop("ETLT_KEY")
    bench.configure(images=[])
    done = bench.snakemake("all", config={"toolkit": "tlt2"})
    assert done.returncode
    assert "toolkit tlt2: key: ETLT_KEY is not set" in done.stderr
    assert "toolkit tlt2: NGC login: none for nvcr.io" in done.stderr
    assert "Traceback" not in done.stderr
    assert not bench.runs()
    assert not bench.results("tfrecords/train").exists()


def test_results_behind_a_link_are_mounted_too(bench, tmp_path):
    (bench.folder / "results").rename(tmp_path / "elsewhere")
    (bench.folder / "results").symlink_to(tmp_path / "elsewhere")
    target = "results/tfrecords/val/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
    bench.finish(target, toolkit="tlt2")
    run = bench.runs()[-1]
    mounted = [value for option, value in itertools.pairwise(run) if option == "--volume"]
    assert f"{tmp_path / 'elsewhere'}:{tmp_path / 'elsewhere'}" in mounted


def test_host_runs_the_programs_on_the_path(bench):
    program(bench.bin / "tlt-dataset-convert", 'echo "$@" > told; exit 3')
    for name in ("tlt-train", "tlt-evaluate", "tlt-prune", "tlt-infer", "tlt-export"):
        program(bench.bin / name, "exit 0")
    target = "results/tfrecords/val/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
    done = bench.snakemake(target, config={"toolkit": "tlt2", "toolkit_runner": "host"})
    assert done.returncode
    told = (bench.folder / "told").read_text().split()
    assert told[:2] == ["-d", "results/tfrecords/val_spec.txt"]
    assert not bench.log.read_text()


def test_apptainer_enters_the_container_by_snakemake(bench):
    target = "results/tfrecords/val/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
    settings = {"toolkit": "tao4", "toolkit_runner": "apptainer"}
    done = bench.snakemake(target, config=settings)
    assert done.returncode
    assert "Snakemake was not told to use it; add --sdm apptainer" in done.stderr
    options = ("--sdm", "apptainer", "--apptainer-args=--nv")
    done = bench.snakemake(target, *options, config=settings)
    assert done.returncode == 0, done.stderr
    entered = [json.loads(line) for line in bench.log.read_text().splitlines()]
    assert [line[:2] for line in entered] == [["apptainer", TAO4]]
    assert "detectnet_v2 dataset_convert -d" in entered[0][-1]
    assert (bench.folder / target).exists()


def test_conversion_alone_needs_no_docker(bench):
    bench.environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    bench.finish("results/evaluate/fold0_spec.txt", toolkit="tao5")


def test_with_nvidias_codec_tlt2_goes_on_natively(bench):
    settings = {"toolkit": "tlt2", "export": {"accept_nvidia_eff_licence": True}}
    done = bench.snakemake("export", "-n", config=settings)
    assert done.returncode == 0, done.stderr
    for rule in ("codec", "decrypt_model", "export_model", "tune_clustering", "verify"):
        assert f"rule {rule}:" in done.stdout, done.stdout
    assert "rule export_uff:" not in done.stdout


def test_first_weights_in_a_tlt_need_the_licence_before_any_work(bench, tmp_path):
    (tmp_path / "backbone.tlt").write_bytes(b"encrypted")
    source = {"source": "file", "path": str(tmp_path / "backbone.tlt")}
    config = {"train": SHORT["train"] | {"pretrained": source}}
    done = bench.snakemake("results/unpruned/weights/model.hdf5", config=config)
    assert done.returncode
    assert "accept_nvidia_eff_licence" in done.stderr
    assert not bench.results("tfrecords").exists()
