"""When a run looks for what NVIDIA's toolkits need, and where."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
TARGET = "results/tfrecords/val/kitti_trainval-fold-000-of-002-shard-00000-of-00002"
APPTAINER = ("--sdm", "apptainer", "--apptainer-args=--nv")


@pytest.fixture
def start(fresh_checkout, tmp_path, environment):
    """Starts Snakemake where nothing was run, with the programs of the folder `bin` alone."""
    folder, programs = tmp_path / "project", tmp_path / "bin"
    shutil.copytree(fresh_checkout, folder)
    programs.mkdir()
    (programs / "python").symlink_to(sys.executable)
    # The stand-in for Apptainer is a program of Python's.
    (programs / "python3").symlink_to(sys.executable)

    def snakemake(*arguments, toolkit="tao5", runner="apptainer"):
        config = {"toolkit": toolkit, "toolkit_runner": runner}
        (folder / "overlay.yaml").write_text(yaml.safe_dump(config))
        files = [str(HERE / "small.yaml"), "overlay.yaml"]
        variables = environment(folder) | {
            "PATH": f"{programs}:/usr/bin:/bin",
            "PYTHONPATH": str(HERE / "programs/executors"),
        }
        variables.pop("ETLT_KEY", None)
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments, "--configfile", *files],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    snakemake.folder, snakemake.programs = folder, programs
    return snakemake


def told(done, toolkit="tao5"):
    """What each line of the preflight is about."""
    start = f"toolkit {toolkit}: "
    lines = [line for line in done.stderr.splitlines() if line.startswith(start)]
    return [line.removeprefix(start).split(":")[0] for line in lines]


def test_apptainer_and_driver_are_missed_before_an_image_is_pulled(start):
    done = start(TARGET, *APPTAINER, "--cores", "1")
    assert done.returncode
    assert told(done) == ["GPU driver", "apptainer"], done.stderr
    (start.programs / "apptainer").symlink_to(HERE / "programs/apptainer")
    done = start(TARGET, *APPTAINER, "--cores", "1", toolkit="tlt2")
    assert done.returncode
    assert told(done, "tlt2") == ["key", "GPU driver"], done.stderr
    assert not list((start.folder / ".snakemake").rglob("*.simg"))
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["-n", "--rulegraph", "--lint"])
def test_plan_graph_and_lint_look_at_no_machine(start, option):
    (start.programs / "apptainer").symlink_to(HERE / "programs/apptainer")
    done = start(TARGET, option, *(APPTAINER if option == "-n" else ()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(done) == []


@pytest.mark.parametrize("runner", ["docker", "apptainer", "host"])
def test_of_a_cluster_only_the_key_is_asked_here(start, runner):
    (start.programs / "apptainer").symlink_to(HERE / "programs/apptainer")
    options = ("--executor", "elsewhere", "--jobs", "1")
    options += APPTAINER if runner == "apptainer" else ()
    done = start(TARGET, *options, toolkit="tlt2", runner=runner)
    assert done.returncode
    assert told(done, "tlt2") == ["key"], done.stderr
