"""The profile for Slurm: with its plugin where that is installed, else without the executor."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

CONFIG_FILE = Path(__file__).parent / "small.yaml"
JOB = re.compile(r"^(?:rule|checkpoint) (\w+):\n((?:    .*\n)*)", re.MULTILINE)


@pytest.fixture
def profile(clone) -> dict:
    """The profile's settings."""
    return yaml.safe_load((clone / "profiles/slurm/profile.yaml").read_text(encoding="utf-8"))


def test_every_rule_that_takes_all_cores_is_given_a_number(clone, profile):
    taking, rule = {"retrain"}, ""
    for path in (clone / "rules").glob("*.smk"):
        for line in path.read_text(encoding="utf-8").splitlines():
            rule = line.rstrip(":").split()[-1] if re.match("(rule|checkpoint) ", line) else rule
            if line.strip() == "threads: ALL_CORES":
                taking.add(rule)
    assert set(profile["set-threads"]) == taking


def test_jobs_ask_for_what_the_profile_says(fresh_checkout, environment, profile, tmp_path):
    if find_spec("snakemake_executor_plugin_slurm") is None:
        del profile["executor"]
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/profile.yaml").write_text(yaml.safe_dump(profile))
    # Of a dry run's jobs, Snakemake cuts the threads to the cores, as of local ones.
    options = ["-n", "--workflow-profile", str(tmp_path / "slurm"), "--cores", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "all", *options, "--configfile", str(CONFIG_FILE)],
        cwd=fresh_checkout,
        env=environment(fresh_checkout),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(JOB.findall(done.stdout))
    threads = {
        rule: int(number.group(1)) if (number := re.search(r"threads: (\d+)", text)) else 1
        for rule, text in jobs.items()
    }
    assert {"train", "retrain", "evaluate", "kitti"} <= set(threads)
    assert {rule: number for rule, number in threads.items() if number > 1} == {
        rule: number for rule, number in profile["set-threads"].items() if rule in jobs
    }
    assert "mem_mb=16000" in jobs["kitti"]
    assert "gpu=1" in jobs["train"]
    assert "runtime=1440" in jobs["train"]
    assert "runtime=60" in jobs["evaluate"]
