"""What real runs leave on disk after changes, failures and kills."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from detectnet_v2 import spec_pb2
from detectnet_v2.spec import load_experiment
from PIL import Image

JOB = re.compile(r"Finished jobid: \d+ \(Rule: (\w+)\)")


def finished_rules(done):
    """Names of the rules that really ran."""
    return set(JOB.findall(done.stderr)) - {"all"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(results: Path, split: str = "train") -> set[str]:
    """Names of the images that the manifests list."""
    return {
        row["name"]
        for path in (results / "kitti" / split).glob("*.manifest.csv")
        for row in rows(path)
        if not row["error"]
    }


def fold_0(results: Path) -> list[str]:
    """Names in NVIDIA's validation fold: the first 20 % in sorted order."""
    names = sorted(path.stem for path in (results / "kitti/train/images").glob("*.jpg"))
    return names[: int(0.2 * len(names))]


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_every_stage_left_its_files(finished_checkout):
    results = finished_checkout / "results"
    choice = json.loads((results / "chosen/choice.json").read_text())
    assert choice["run"] in ("unpruned", "retrained/0.9", "retrained/0.95")
    assert choice["share_of_parameters"] < 1
    for model in ("unpruned", "chosen"):
        assert (results / f"export/{model}/model.onnx").stat().st_size > 1000
        assert (results / f"export/{model}/labels.txt").read_text() == "mask\nno-mask\n"
    metrics = json.loads((results / "unpruned/evaluation/fold0/metrics.json").read_text())
    assert set(metrics["average_precision"]) == {"mask", "no-mask"}
    assert metrics["images"] == len(fold_0(results))


def test_labels_and_images_are_exactly_those_of_the_manifests(finished_checkout):
    results = finished_checkout / "results"
    for split in ("train", "val"):
        folder = results / "kitti" / split
        listed = names_in(results, split)
        assert {path.stem for path in (folder / "images").iterdir()} == listed
        assert {path.stem for path in (folder / "labels").iterdir()} == listed


def test_both_classes_are_in_fold_0(finished_checkout):
    results = finished_checkout / "results"
    labels = results / "kitti/train/labels"
    found = {
        line.split()[0]
        for name in fold_0(results)
        for line in (labels / f"{name}.txt").read_text().splitlines()
    }
    assert found == {"mask", "no-mask"}


def test_no_group_of_near_duplicates_is_on_both_sides(finished_checkout):
    results = finished_checkout / "results"
    names = {path.stem for path in (results / "kitti/train/images").iterdir()}
    held_out = set(fold_0(results))
    training = {name.split("-")[0] for name in names - held_out}
    assert not {name.split("-")[0] for name in held_out} & training
    groups = {row["group"] for row in rows(results / "index/train/groups.csv")}
    assert len(groups) < len(rows(results / "index/train/groups.csv")), "no duplicates to group"


def test_limit_above_all_faces_stops_at_the_selection(checkout, snakemake):
    done = snakemake(checkout, "all", "--cores", "2", config={"category_limit": 5000})
    # The report prints the configuration.
    assert finished_rules(done) == {"choose_faces", "make_report"}


def test_smaller_limit_converts_nothing_twice_and_removes_what_left(checkout, snakemake):
    results = checkout / "results"
    before, was = times(results / "kitti/train/images"), names_in(results)
    limit = {"category_limit": 8}
    targets = [f"results/kitti/train/{name}.manifest.csv" for name in ("kaggle", "mafa", "fddb")]
    done = snakemake(checkout, *targets, "--cores", "2", config=limit)
    assert "index" not in finished_rules(done)
    snakemake(checkout, "results/kitti/train/listing.csv", "--cores", "2", config=limit)
    kept = times(results / "kitti/train/images")
    assert 0 < len(kept) < len(was)
    same_name = {name for name in kept if name in before}
    assert all(kept[name] == before[name] for name in same_name)
    assert {Path(name).stem for name in kept} == names_in(results)


def test_touched_raw_image_converts_and_does_not_train(checkout, snakemake):
    image = next((checkout / "raw").rglob("*.jpg"))
    os.utime(image)
    done = snakemake(checkout, "all", "--cores", "2")
    assert "train" not in finished_rules(done)
    assert "index" in finished_rules(done)


def test_new_raw_images_are_in_the_tfrecords_of_the_same_run(checkout, snakemake):
    folder = checkout / "results/tfrecords/train"
    target = "results/tfrecords/train/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
    before = sum(path.stat().st_size for path in folder.glob("*-shard-*"))
    images = checkout / "raw/medical-masks/images"
    image = next(images.iterdir())
    label = next((checkout / "raw/medical-masks").rglob(f"{image.stem}.xml"))
    with Image.open(image) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(image.with_stem("new"))
    shutil.copy(label, label.with_stem("new"))
    done = snakemake(checkout, target, "--cores", "2", config={"category_limit": 5000})
    assert {"index", "kitti", "kitti_listing", "tfrecords"} <= finished_rules(done)
    assert sum(path.stat().st_size for path in folder.glob("*-shard-*")) > before


def test_removed_dataset_leaves_no_file_behind_and_comes_back_whole(checkout, snakemake):
    results = checkout / "results"
    config_file = checkout / "config/config.yaml"
    text = config_file.read_text()
    config_file.write_text(text[: text.index("  fddb:")] + text[text.index("  widerface:") :])
    snakemake(checkout, "results/kitti/train/listing.csv", "--cores", "2")
    left = [path.name for path in (results / "kitti/train/images").iterdir()]
    assert left
    assert not [name for name in left if "-fddb-" in name]
    assert not [p.name for p in (results / "kitti/train/labels").iterdir() if "-fddb-" in p.name]
    config_file.write_text(text)
    target = "results/tfrecords/train/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
    done = snakemake(checkout, target, "--cores", "2")
    assert "kitti" in finished_rules(done)
    listed = {row["name"] for row in rows(results / "kitti/train/listing.csv") if not row["error"]}
    assert listed == {path.stem for path in (results / "kitti/train/images").iterdir()}
    assert [name for name in listed if "-fddb-" in name]


def test_another_number_of_shards_leaves_none_of_the_old_ones(checkout, snakemake):
    folder = checkout / "results/tfrecords/train"
    assert len(list(folder.glob("*-shard-*"))) == 4
    target = "results/tfrecords/train/kitti_trainval-fold-000-of-002-shard-00000-of-00001"
    done = snakemake(checkout, target, "--cores", "2", config={"tfrecords": {"num_shards": 1}})
    assert finished_rules(done) == {"tfrecords_spec", "tfrecords"}
    assert sorted(path.name for path in folder.glob("*-shard-*")) == [
        f"kitti_trainval-fold-{fold:03d}-of-002-shard-00000-of-00001" for fold in (0, 1)
    ]


def test_selection_of_more_than_a_megabyte_is_compared_by_content(crowded_checkout, snakemake):
    folder = crowded_checkout
    target = "results/kitti/train/crowd.manifest.csv"
    snakemake(folder, target, "--cores", "2", config={"category_limit": 50_000})
    assert (folder / "results/selection/train.csv").stat().st_size > 1_000_000
    (folder / "results/tfrecords/train").mkdir(parents=True)
    done = snakemake(folder, target, "--cores", "2", config={"category_limit": 60_000})
    assert finished_rules(done) == {"choose_faces"}


def test_export_after_a_failed_training_trains_first(checkout, plan, tmp_path, environment):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text(
        f'#!/bin/sh\ncase "$*" in *"detectnet_v2 train "*) exit 1 ;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    (programs / "python").chmod(0o755)
    failing = environment(checkout)
    failing["PATH"] = f"{programs}:{failing['PATH']}"
    overlay = checkout / "overlay.yaml"
    overlay.write_text("train: {epochs: 3}\n")
    small = Path(__file__).parent / "small.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "export", "--configfile", str(small), str(overlay)],
        cwd=checkout,
        env=failing,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "Error in rule train:" in done.stderr
    jobs = plan(checkout, "export", config={"train": {"epochs": 3}})
    assert ("train", "") in jobs
    assert ("export_model", "chosen") in jobs


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    """Snakemake in a process group of its own, so that all of it can be killed."""
    small = Path(__file__).parent / "small.yaml"
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments, "--configfile", str(small)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_when(process: subprocess.Popen, condition, timeout: float = 120) -> None:
    """SIGKILL to the whole process group as soon as `condition()` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail("ended before it could be killed")
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_results_without_permission_are_a_line_and_no_file(
    tmp_path, fresh_checkout, environment, forgo_privileges
):
    folder = tmp_path / "checkout"
    shutil.copytree(fresh_checkout, folder)
    (folder / "results").mkdir(mode=0o555)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "results/index/train/kaggle.csv"),
            *("--configfile", str(Path(__file__).parent / "small.yaml")),
        ],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=forgo_privileges,
    )
    assert done.returncode
    assert "Permission denied: 'results/index'" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list((folder / "results").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 160 KB, and a function that gives it more."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")

    def enlarge():
        subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)

    yield place, enlarge
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_run_goes_on_after_the_disk_was_full(
    tmp_path, fresh_checkout, finished_checkout, snakemake, small_disk
):
    disk, enlarge = small_disk
    folder = tmp_path / "checkout"
    shutil.copytree(fresh_checkout, folder)
    (folder / "results").symlink_to(disk)
    target = "results/kitti/train/kaggle.manifest.csv"
    full = snakemake(folder, target, "--cores", "2", check=False)
    assert full.returncode
    errors = {line for line in full.stderr.splitlines() if line.startswith("error: ")}
    (line,) = errors
    assert line.startswith("error: results/kitti/train/")
    assert "No space left on device; free space or put results_dir on another disk" in line
    assert "Traceback" not in full.stderr
    assert not list(disk.rglob("*.part"))
    assert not (folder / target).exists()
    enlarge()
    done = snakemake(folder, target, "--cores", "2")
    assert "kitti" in finished_rules(done)
    images = disk / "kitti/train/images"
    for row in rows(folder / target):
        content = (images / f"{row['name']}.jpg").read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["image_sha256"]
        assert (
            content
            == (finished_checkout / f"results/kitti/train/images/{row['name']}.jpg").read_bytes()
        )


def test_iterative_pruning_starts_from_the_model_retrained_before(checkout, snakemake):
    def parameters(threshold):
        path = checkout / f"results/pruned/{threshold}/pruning.json"
        return json.loads(path.read_text())["parameters"]

    unpruned, smaller = parameters("0.9")["before"], parameters("0.9")["after"]
    assert parameters("0.95")["before"] == unpruned
    assert smaller < unpruned
    target = "results/pruned/0.95/pruning.json"
    done = snakemake(checkout, target, "--cores", "2", config={"prune": {"mode": "iterative"}})
    assert finished_rules(done) == {"prune"}
    assert parameters("0.95")["before"] == smaller


def test_killed_conversion_resumes(tmp_path, fresh_checkout, snakemake, environment):
    folder = tmp_path / "checkout"
    shutil.copytree(fresh_checkout, folder)
    images = folder / "results/kitti/train/images"
    target = "results/kitti/train/kaggle.manifest.csv"
    process = start(folder, environment(folder), target, "--cores", "1")
    kill_when(process, lambda: images.is_dir() and len(list(images.glob("*.jpg"))) >= 3)
    finished = {p.name: p.stat().st_mtime_ns for p in images.glob("*.jpg")}
    assert not (folder / target).exists()
    snakemake(folder, "--unlock")
    snakemake(folder, target, "--cores", "1")
    after = times(images)
    kept = [name for name, when in finished.items() if after.get(name) == when]
    assert len(kept) >= len(finished) - 1
    listed = {row["name"] for row in rows(folder / target) if not row["error"]}
    assert {Path(name).stem for name in after} == listed


@pytest.mark.slow
def test_killed_training_resumes_with_the_same_result(checkout, snakemake, environment):
    folder = checkout / "results/unpruned"
    before = (folder / "training.csv").read_text()
    (folder / "weights/model.hdf5").unlink()
    (folder / "training.csv").unlink()
    process = start(checkout, environment(checkout), "all", "--cores", "2")
    kill_when(process, lambda: any((folder / "checkpoints").glob("*")))
    snakemake(checkout, "--unlock")
    snakemake(checkout, "results/unpruned/weights/model.hdf5", "--cores", "2")

    def losses(text: str) -> list[float]:
        return [float(row["loss"]) for row in csv.DictReader(text.splitlines())]

    assert losses((folder / "training.csv").read_text()) == pytest.approx(losses(before), rel=1e-3)


def test_lists_of_native_options_reach_the_spec(fresh_checkout, tmp_path, snakemake):
    folder = tmp_path / "checkout"
    shutil.copytree(fresh_checkout, folder)
    scales = [{"until": 0.5, "scale": 0.5}, {"until": 0.75, "scale": 0.75}]
    change = {"train": {"native": {"input_scales": scales, "annealing": "COSINE"}}}
    spec = "results/unpruned/train_spec.txt"
    snakemake(folder, spec, "--cores", "1", config=change)
    native = load_experiment(folder / spec).native
    assert [(entry.until, entry.scale) for entry in native.input_scales] == [
        (0.5, 0.5),
        (0.75, 0.75),
    ]
    assert native.annealing == spec_pb2.NativeConfig.COSINE
