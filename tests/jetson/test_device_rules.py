"""rules/deploy.smk in a real Snakemake run: when a device is asked, and what failures print."""

import json
import os
import shutil
import subprocess
import sys

import pytest

# What the functions of rules/ say, of a workflow whose configs are rendered already.
SNAKEFILE = """\
import os, sys, time
sys.path.insert(0, {scripts!r})
from code_digest import code_digest

pathvars:
    results="results",
    logs="results/logs",
    benchmarks="results/benchmarks",

wildcard_constraints:
    device="nano|local",

SECTION = {section!r}
config["results_dir"] = "results"
config["deploy"] = {{"local": {{"duration_s": 1}}, "devices": {{"nano": SECTION}}}}
CONVERSION, ALL_CORES, DEVICES, KEY_VARIABLE = [], 1, ["nano"], "ETLT_KEY"


def targets(stage):
    return []


def cases(device, file):
    return [f"rendered/chosen-gpu/{{file}}"] if device == "nano" else []


def case_folders(device):
    return {{"chosen-gpu": "rendered/chosen-gpu"}}


def device_settings(device):
    return SECTION


def deployed_metrics(wildcards):
    return []


def deployed_metrics_by_model():
    return {{}}


rule all:
    default_target: True


include: {rules!r}
"""
JOBS = ("check_device", "push", "benchmark_device", "preflight_device")


class Workflow:
    """A folder with the device rules and one rendered config."""

    def __init__(self, folder, repository, section, rendered) -> None:
        self.folder, self.deployed = folder, folder / "results/deployed/nano"
        shutil.copytree(rendered, folder / "rendered/chosen-gpu")
        (folder / "rendered/chosen-gpu/parity.json").write_text("{}")
        text = SNAKEFILE.format(
            scripts=str(repository / "scripts"),
            section=section,
            rules=str(repository / "rules/deploy.smk"),
        )
        (folder / "Snakefile").write_text(text)

    def run(self, *words, options=()):
        """Run Snakemake; return the process and the rules whose jobs began."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "-c1", "--nolock", "--latency-wait", "0"),
                *("--resources", "jetson=1", *options, "--", *words),
            ],
            cwd=self.folder,
            env={**os.environ, "XDG_CACHE_HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.strip() for line in done.stderr.splitlines()]
        begun = [job for job in JOBS for line in lines if line.endswith(f"{job}:") and " " in line]
        return done, begun


@pytest.fixture
def workflow(board, rendered, repository, tmp_path):
    return Workflow(
        tmp_path / "workflow", repository, board.section(duration_s=1), rendered("chosen-gpu")
    )


def test_a_dry_run_asks_no_device(workflow, board):
    board.stop()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "deploy_nano"],
        cwd=workflow.folder,
        env={**os.environ, "XDG_CACHE_HOME": str(workflow.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "check_device" in done.stdout
    assert not workflow.deployed.exists()


@pytest.mark.slow
def test_a_deployment_finds_out_by_itself_what_the_device_lacks(workflow, board):
    done, begun = workflow.run("deploy_nano")
    assert done.returncode == 0, done.stderr
    assert begun == ["check_device", "push", "benchmark_device"]
    first = (workflow.deployed / "benchmark.json").read_text()
    assert json.loads(first)["cases"][0]["fps"]["total"] > 0
    assert "NVIDIA's, published" in (workflow.deployed / "benchmark.md").read_text()
    assert (workflow.deployed / "logs/chosen-gpu/measure.log").exists()

    done, begun = workflow.run("deploy_nano")
    assert done.returncode == 0, done.stderr
    assert begun == ["check_device"]
    assert (workflow.deployed / "benchmark.json").read_text() == first

    done, begun = workflow.run("deploy_nano", options=("--forcerun", "benchmark_device"))
    assert begun == ["check_device", "benchmark_device"]
    first = (workflow.deployed / "benchmark.json").read_text()

    shutil.rmtree(board.root)
    done, begun = workflow.run("deploy_nano")
    assert done.returncode == 0, done.stderr
    assert begun == ["check_device", "push", "benchmark_device"]
    assert "is missing there; was the device wiped or flashed?" in done.stderr
    assert (board.root / "current/chosen-gpu/model.onnx").exists()
    assert (workflow.deployed / "benchmark.json").read_text() != first

    _, begun = workflow.run("deploy_nano")
    assert begun == ["check_device"]

    (board.programs / "deepstream-app").write_text(
        (board.programs / "deepstream-app").read_text().replace("6.0.1", "6.0")
    )
    done, begun = workflow.run("deploy_nano")
    assert begun == ["check_device", "push", "benchmark_device"]
    assert "it is not as it was: deepstream 6.0.1 then, 6.0 now" in done.stderr


@pytest.mark.slow
def test_preflight_alone_and_what_a_failure_prints(workflow, board):
    done, begun = workflow.run("preflight_nano")
    assert done.returncode == 0, done.stderr
    assert begun == ["preflight_device"]
    log = workflow.folder / "results/logs/preflight/nano.log"
    assert "nano: ready: NVIDIA Jetson Nano" in log.read_text()

    (board.programs / "deepstream-app").unlink()
    done, _ = workflow.run("preflight_nano")
    assert done.returncode == 1
    assert "nano: no deepstream-app on the PATH; install DeepStream" in done.stderr
    assert "Traceback" not in done.stderr
    assert log.read_text().count("\n") == 1
