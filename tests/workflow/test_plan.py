"""What runs after which change, asked of Snakemake itself."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG_FILE = Path(__file__).parent / "small.yaml"
ALL = "all"
MODEL_STAGES = {"train", "evaluate", "prune", "retrain", "choose_model", "export_model"}
DATA_STAGES = {"index", "group_duplicates", "choose_faces", "kitti", "kitti_listing", "tfrecords"}
REPORT = {"make_report", "report"}
"""What shows the config is made anew after every change of it."""


def rules_of(jobs):
    """Names of the rules that do work."""
    return {rule for rule, _ in jobs} - {ALL}


def test_nothing_after_a_full_run(finished_checkout, plan):
    assert plan(finished_checkout, ALL) == set()


def test_everything_in_a_fresh_checkout(fresh_checkout, plan):
    assert rules_of(plan(fresh_checkout, ALL)) >= MODEL_STAGES | DATA_STAGES


def test_labels_can_be_looked_at_before_anything_is_trained(fresh_checkout, plan):
    rules = rules_of(plan(fresh_checkout, "check_labels"))
    assert rules >= {"index", "choose_faces", "kitti", "label_sheet"}
    assert not {*MODEL_STAGES, "tfrecords", "verify"} & rules


def test_changed_category_limit_leaves_the_index_alone(finished_checkout, plan):
    rules = rules_of(plan(finished_checkout, ALL, config={"category_limit": 10}))
    assert "choose_faces" in rules
    assert not {"index", "group_duplicates"} & rules


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"image_width": 96, "image_height": 160}, "kitti"),
        ({"tfrecords": {"val_split": 2, "num_shards": 20}}, "tfrecords_spec"),
    ],
)
def test_two_numbers_that_change_places_are_noticed(finished_checkout, plan, change, rule):
    assert rule in rules_of(plan(finished_checkout, ALL, config=change))


def test_changed_epochs_train_and_evaluate_but_do_not_convert(finished_checkout, plan):
    rules = rules_of(plan(finished_checkout, ALL, config={"train": {"epochs": 3}}))
    assert rules >= MODEL_STAGES
    assert not DATA_STAGES & rules


def test_changed_val_split_is_evaluated_and_trains_nothing(finished_checkout, plan):
    change = {"datasets": {"mafa": {"splits": {"val": {"min_aspect": 1.0}}}}}
    jobs = plan(finished_checkout, ALL, config=change)
    assert {"kitti", "tfrecords_val", "tune_clustering"} <= rules_of(jobs)
    assert {("index", "val/mafa"), ("evaluate", "unpruned/val")} <= jobs
    assert not {("index", "train/mafa"), ("evaluate", "unpruned/fold0")} & jobs
    assert not (MODEL_STAGES - {"evaluate"} | {"tfrecords"}) & rules_of(jobs)


def test_changed_retraining_leaves_the_unpruned_model_alone(finished_checkout, plan):
    jobs = plan(finished_checkout, ALL, config={"retrain": {"epochs": 2}})
    assert "retrain" in rules_of(jobs)
    assert not {"train", "prune"} & rules_of(jobs)
    assert ("evaluate", "unpruned/fold0") not in jobs


def test_changed_evaluation_trains_nothing(finished_checkout, plan):
    jobs = plan(finished_checkout, ALL, config={"evaluate": {"minimum_height": 8}})
    assert {"evaluate", "choose_model"} <= rules_of(jobs)
    assert not {"train", "prune", "retrain"} & rules_of(jobs)


def test_validation_while_training_changes_the_report_alone(finished_checkout, plan):
    change = {"train": {"validation": {"period": 2}}}
    assert rules_of(plan(finished_checkout, ALL, config=change)) <= REPORT


def test_options_of_speed_change_the_report_alone(finished_checkout, plan):
    change = {"train": {"native": {"workers": 3, "compile": True}}}
    assert rules_of(plan(finished_checkout, ALL, config=change)) <= REPORT


def test_options_of_evaluation_train_nothing(finished_checkout, plan):
    change = {"train": {"native": {"evaluation_precision": "bfloat16"}}}
    rules = rules_of(plan(finished_checkout, ALL, config=change))
    assert {"evaluate", "inference_spec"} <= rules
    assert not {"train", "prune", "retrain", "calibration_tensorfile"} & rules


def test_options_of_training_train(finished_checkout, plan):
    change = {"train": {"native": {"coverage_focal_gamma": 1.5}}}
    assert rules_of(plan(finished_checkout, ALL, config=change)) >= MODEL_STAGES


def test_changed_distillation_retrains_alone(finished_checkout, plan):
    rules = rules_of(plan(finished_checkout, ALL, config={"retrain": {"distill": {"weight": 0.5}}}))
    assert "retrain" in rules
    assert not {"train", "prune"} & rules


def test_first_weights_that_are_missing_stop_the_plan(fresh_checkout, snakemake):
    config = {"train": {"pretrained": {"source": "file", "path": "/none/resnet18.hdf5"}}}
    done = snakemake(fresh_checkout, ALL, "-n", config=config, check=False)
    assert done.returncode
    told = "train.pretrained.path: /none/resnet18.hdf5 is no file; correct it, or take source: none"
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_changed_class_list_redoes_everything(finished_checkout, plan):
    maps = {"kaggle": {"mask": "face", "none": "face"}, "mafa": {"mask": "face", "no-mask": "face"}}
    maps |= {"fddb": {"face": "face"}, "widerface": {"face": "face"}}
    change = {
        "classes": ["face"],
        "datasets": {name: {"class_map": raw} for name, raw in maps.items()},
        "train": dict.fromkeys(("class_weight", "bbox_weight_target", "cov_radius"), 1.0),
        "evaluate": {"dbscan_eps": 0.2},
    }
    jobs = plan(finished_checkout, ALL, config=change)
    assert rules_of(jobs) >= {"index", "choose_faces", "kitti", "train", "retrain", "export_model"}


def test_added_threshold_runs_only_its_branch(finished_checkout, plan):
    jobs = plan(finished_checkout, ALL, config={"prune": {"thresholds": [0.9, 0.92, 0.95]}})
    assert ("prune", "0.92") in jobs
    assert ("retrain", "0.92") in jobs
    assert not {
        rule for rule, wildcards in jobs if "0.9/" in f"{wildcards}/" or "0.95" in wildcards
    }
    assert not (DATA_STAGES | {"train"}) & rules_of(jobs)


def test_removed_threshold_chooses_anew_and_trains_nothing(finished_checkout, plan):
    jobs = plan(finished_checkout, ALL, config={"prune": {"thresholds": [0.9]}})
    assert "choose_model" in rules_of(jobs)
    assert not {"train", "prune", "retrain", "evaluate"} & rules_of(jobs)


def test_target_ratios_are_branches_of_their_own(finished_checkout, plan):
    change = {"prune": {"target_ratios": [0.25, 0.12]}}
    jobs = plan(finished_checkout, ALL, config=change)
    assert {("prune", "ratio-0.25"), ("retrain", "ratio-0.12")} <= jobs
    assert not [wildcards for rule, wildcards in jobs if rule == "prune" and "0.9" in wildcards]
    assert not (DATA_STAGES | {"train"}) & rules_of(jobs)


def test_iterative_pruning_starts_from_the_model_before(finished_checkout, plan):
    jobs = plan(finished_checkout, ALL, config={"prune": {"mode": "iterative"}})
    assert ("prune", "0.95") in jobs
    assert ("prune", "0.9") not in jobs


def test_edited_module_behind_a_script_is_noticed(checkout, plan):
    with (checkout / "scripts/datasets/boxes.py").open("a") as file:
        file.write("\n\nEDITED = True\n")
    assert "index" in rules_of(plan(checkout, ALL))


def test_edited_module_of_the_toolkit_is_noticed(checkout, plan):
    with (checkout / "scripts/detectnet_v2/cost.py").open("a") as file:
        file.write("\n\nEDITED = True\n")
    rules = rules_of(plan(checkout, ALL))
    assert {"train", "retrain"} <= rules
    assert not DATA_STAGES & rules


def test_edited_comment_is_no_reason(checkout, plan):
    with (checkout / "scripts/detectnet_v2/cost.py").open("a") as file:
        file.write("# The same as before.\n")
    assert plan(checkout, ALL) == set()


def test_only_other_first_weights_are_a_reason_to_train_again(checkout, snakemake):
    model = "results/unpruned/weights/model.hdf5"
    weights = checkout / "own.hdf5"
    shutil.copy(checkout / model, weights)
    change = {"train": {"epochs": 1, "pretrained": {"source": "file", "path": str(weights)}}}
    snakemake(checkout, model, "--cores", "2", config=change)

    def rules():
        # A process of its own: one that has planned before remembers the scripts.
        done = snakemake(checkout, model, "-n", "--cores", "1", config=change)
        return set(re.findall(r"^(?:rule|checkpoint) (\w+):", done.stdout, re.MULTILINE))

    assert rules() == set()
    for name in ("kitti_listing", "pretrained"):
        with (checkout / f"scripts/{name}.py").open("a") as file:
            file.write("# The same as before.\n")
    assert rules() == set()
    with (checkout / "scripts/pretrained.py").open("a") as file:
        file.write("\n\nEDITED = True\n")
    assert rules() == set()
    os.utime(weights)
    assert rules() == set()
    weights.write_bytes(b"other")
    # As a file that was moved there has it.
    os.utime(weights, (1e9, 1e9))
    assert rules() == {"pretrained", "train"}
    weights.unlink()
    assert rules() == set()


def test_a_results_folder_may_be_called_like_a_fold(fresh_checkout, snakemake):
    target = "run-fold-2/tfrecords/train/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
    done = snakemake(fresh_checkout, "-n", "-p", target, config={"results_dir": "run-fold-2"})
    assert " -o run-fold-2/tfrecords/train/kitti_trainval " in done.stdout + done.stderr


def test_a_tilde_is_the_home_folder(fresh_checkout, snakemake, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "raw").symlink_to(fresh_checkout / "raw")
    (tmp_path / "masks").symlink_to(fresh_checkout / "raw/medical-masks")
    done = snakemake(
        fresh_checkout,
        *("-n", "-p", f"{tmp_path}/results/kitti/train/kaggle.manifest.csv"),
        config={
            "results_dir": "~/results",
            "data_root": "~/raw",
            "datasets": {"kaggle": {"root": "~/masks"}},
        },
    )
    assert f"output: {tmp_path}/results/index/train/kaggle.csv\n" in done.stdout
    assert "~" not in done.stdout
    done = snakemake(
        fresh_checkout,
        "-n",
        config={"data_root": "~/gone", "datasets": {"kaggle": {"root": "~/none"}}},
        check=False,
    )
    assert f"datasets.kaggle.root is {tmp_path}/none, which does not exist" in done.stderr
    assert f"datasets.fddb.root is {tmp_path}/gone/fddb, which does not exist" in done.stderr


def test_an_overlay_does_not_change_the_order_in_which_datasets_fill_up(fresh_checkout, snakemake):
    target = "results/selection/train.csv"
    done = snakemake(
        fresh_checkout, target, "-n", config={"datasets": {"fddb": {"min_aspect": 0.1}}}
    )
    (inputs,) = re.findall(r"^checkpoint choose_faces:\n    input: (.*)", done.stdout, re.MULTILINE)
    names = [Path(path).stem for path in inputs.split(", ")]
    assert names[:4] == ["kaggle", "mafa", "fddb", "widerface"]


def test_late_file_alone_is_stale_too(finished_checkout, plan):
    jobs = plan(finished_checkout, "export", config={"train": {"epochs": 3}})
    assert rules_of(jobs) >= {"train", "export_model"}


def test_missing_raw_data_is_one_line(checkout, snakemake):
    (checkout / "raw/fddb").rename(checkout / "raw/gone")
    done = snakemake(checkout, "-n", check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("dataset ")]
    assert done.returncode
    assert len(lines) == 1
    assert "datasets.fddb.root" in lines[0]
    assert "`make demo` needs no data" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_the_report_needs_no_raw_data(checkout, snakemake):
    (checkout / "raw").rename(checkout / "unmounted")
    (checkout / "results/report.html").unlink()
    done = snakemake(checkout, "report", "--cores", "1", check=False)
    assert done.returncode
    assert done.stderr.rstrip().endswith("`snakemake report --rerun-triggers mtime`")
    snakemake(checkout, "report", "--cores", "1", "--rerun-triggers", "mtime")
    assert (checkout / "results/report.html").exists()
    (checkout / "results/index/train/mafa.csv").unlink()
    done = snakemake(checkout, "all", "-n", "--rerun-triggers", "mtime", check=False)
    assert "dataset mafa: " in done.stderr


def typed(folder, environment, *arguments, **options):
    """Snakemake with the arguments as typed, the committed settings and nothing else."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_a_fresh_clone_says_in_a_line_each_which_data_it_wants(clone, environment):
    done = typed(clone, environment, "-n")
    assert done.returncode
    *lines, last = done.stderr.splitlines()[-5:]
    for line, name in zip(lines, ("kaggle", "mafa", "fddb", "widerface"), strict=True):
        assert line.startswith(f"dataset {name}: datasets.{name}.root is data/")
        assert ", which does not exist; get it from http" in line
    assert "datasets.kaggle.root is data/medical-masks, which" in lines[0]
    assert last.endswith("; `make demo` needs no data")
    assert "Traceback" not in done.stderr + done.stdout


def test_a_dataset_in_a_folder_too_many_is_noticed_in_the_plan(clone, environment):
    for name in ("images", "labels"):
        (clone / "data/medical-masks/archive" / name).mkdir(parents=True)
    done = typed(clone, environment, "-n")
    assert done.returncode
    assert "archive has it all: put /archive at the end of datasets.kaggle.root" in done.stderr


def test_a_key_of_a_section_can_be_set_on_the_command_line(clone, environment):
    done = typed(clone, environment, "-n", "--config", "duplicates={enabled: false}")
    assert "config: " not in done.stderr
    assert "dataset kaggle: " in done.stderr


@pytest.mark.parametrize("option", ["--rulegraph", "--rulegraph=mermaid-js", "--lint"])
def test_graph_and_lint_work_in_a_fresh_clone(clone, environment, option):
    done = typed(clone, environment, option)
    assert done.returncode == 0, done.stdout + done.stderr
    assert option == "--lint" or "choose_faces" in done.stdout


def test_a_folder_without_permission_is_one_line(clone, environment, forgo_privileges):
    clone.chmod(0o555)
    try:
        done = typed(clone, environment, preexec_fn=forgo_privileges)
        lint = typed(clone, environment, "--lint", preexec_fn=forgo_privileges)
    finally:
        clone.chmod(0o755)
    assert done.returncode
    (line,) = [line for line in done.stderr.splitlines() if "cannot be written" in line]
    assert line.startswith(f"{clone} cannot be written: give this user the permission")
    assert "Traceback" not in done.stderr + done.stdout
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert not (clone / ".snakemake").exists()
    assert f"with `--snakefile {clone / 'Snakefile'}`" in line


@pytest.mark.parametrize("option", ["--snakefile", "--directory"])
def test_it_runs_in_another_folder_with_the_settings_of_the_checkout(
    fresh_checkout, environment, tmp_path, option
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "raw").symlink_to(fresh_checkout / "raw")
    small = ("--configfile", CONFIG_FILE)
    start, words = {
        "--snakefile": (elsewhere, (fresh_checkout / "Snakefile",)),
        "--directory": (fresh_checkout, (elsewhere,)),
    }[option]
    done = typed(start, environment, "-n", option, *words, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule train:" in done.stdout
    # Its own settings come first.
    (elsewhere / "config").mkdir()
    (elsewhere / "config/config.yaml").write_text("epochs: 1\n")
    done = typed(start, environment, "-n", option, *words)
    assert "config: epochs: unknown key" in done.stderr


def test_unknown_key_is_one_line(checkout, snakemake):
    done = snakemake(checkout, "-n", config={"train": {"epoch": 1}}, check=False)
    assert done.returncode
    assert "config: train.epoch: unknown key; did you mean epochs?" in done.stderr
    assert "Traceback" not in done.stderr


def test_number_of_cores_comes_from_the_profile(finished_checkout, snakemake):
    done = snakemake(finished_checkout, "all", "-n")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_layers_can_be_left_out_of_pruning(fresh_checkout, snakemake):
    commands = []
    for settings in ({}, {"excluded_layers": ["conv1", "block_4a_conv_1"]}):
        target = ("results/pruned/0.9/model.hdf5", "-n", "-p", "--cores", "1")
        done = snakemake(fresh_checkout, *target, config={"prune": settings})
        commands += re.findall(r"detectnet_v2 prune .*", done.stdout)
    plain, excluding = commands
    assert " -el " not in plain
    assert "-nf 16 -el conv1 block_4a_conv_1 --results_dir results/pruned/0.9" in excluding
    change = {"prune": {"excluded_layers": ["conv1; ls"]}}
    done = snakemake(fresh_checkout, "-n", config=change, check=False)
    assert done.returncode
    assert "config: prune.excluded_layers.0: " in done.stderr


@pytest.mark.parametrize(("layers", "bytes_per_pixel"), [(18, 800), (50, 3200)])
def test_a_training_reserves_memory_for_its_network_and_each_of_its_processes(
    fresh_checkout, snakemake, layers, bytes_per_pixel
):
    target = "results/retrained/0.9/weights/model.hdf5"
    done = snakemake(
        fresh_checkout,
        *("-n", target, "--cores", "1"),
        config={
            "train": {"num_layers": layers, "gpus": 2},
            "retrain": {"batch_size": 64, "gpus": 1},
        },
    )
    found = dict(re.findall(r"^rule (train|retrain):\n.*?mem_mb=(\d+)", done.stdout, re.M | re.S))
    activations = [160 * 96 * batch * bytes_per_pixel / 1e6 for batch in (8, 64)]
    assert found == {
        "train": str(2 * (1500 + round(activations[0]))),
        "retrain": str(1500 + round(activations[1])),
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_any_missing_tfrecord_is_written_again(checkout, plan, split):
    shards = sorted((checkout / f"results/tfrecords/{split}").glob("*-shard-*"))
    shards[-1].unlink()
    name = "tfrecords" if split == "train" else "tfrecords_val"
    jobs = rules_of(plan(checkout, "report"))
    assert {name, "evaluate"} <= jobs
    assert ("train" in jobs) == (split == "train")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"engines": ["gpu", "dla0"]},
            "config: deploy.devices.nano.engines: Jetson Nano has no 'dla0', it has gpu; "
            "take dla0 out of the list",
        ),
        ({"deepstream": "7.1"}, "config: deploy.devices.nano.deepstream: 7.1 does not run on"),
    ],
)
def test_what_a_board_lacks_is_refused_in_one_line(fresh_checkout, snakemake, settings, line):
    change = {"deploy": {"devices": {"nano": settings}}}
    done = snakemake(fresh_checkout, "-n", config=change, check=False)
    assert done.returncode
    assert done.stderr.count(line) == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_only_a_deployment_asks_a_device(fresh_checkout, plan):
    asking = {"check_device", "push", "benchmark_device"}
    assert asking <= rules_of(plan(fresh_checkout, "deploy_nano"))
    # `all` comprises the report.
    assert not asking & rules_of(plan(fresh_checkout, ALL))
    assert not (fresh_checkout / "results/deployed").exists()
