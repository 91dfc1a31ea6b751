"""Jobs in an environment that has the packages and not this project, as `--sdm conda` makes it."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = Path(__file__).parent / "small.yaml"


@pytest.fixture
def bare_environment(tmp_path) -> dict[str, str]:
    """A PATH whose python has this interpreter's packages, and no program of this project."""
    folder = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Links of this folder's own .pth files, such as an editable installation's, are not followed.
    (packages / "outer.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


@pytest.fixture
def other_packages(tmp_path) -> Path:
    """A folder for PYTHONPATH with one module."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/of_the_user.py").touch()
    return tmp_path / "other"


def test_the_environment_is_bare(bare_environment):
    for module, is_there in (("numpy", True), ("detectnet_v2", False), ("scenes", False)):
        command = ["python", "-c", f"import {module}"]
        done = subprocess.run(command, env=bare_environment, capture_output=True, check=False)
        assert (done.returncode == 0) == is_there, done.stderr
    assert shutil.which("detectnet_v2", path=bare_environment["PATH"]) is None


def test_jobs_find_the_modules_of_the_checkout(
    fresh_checkout, tmp_path, bare_environment, other_packages
):
    folder = tmp_path / "check out"
    shutil.copytree(fresh_checkout, folder)
    # The user's own modules are found as well.
    program = folder / "scripts/scenes/__main__.py"
    program.write_text(program.read_text().replace("\nimport ", "\nimport of_the_user\nimport ", 1))
    targets = ["results/clip.mp4", "results/calibration/images.tensorfile"]
    done = subprocess.run(
        ["python", "-m", "snakemake", *targets, "--cores", "2", "--configfile", str(SMALL)],
        cwd=folder,
        env=bare_environment | {"PYTHONPATH": str(other_packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((folder / target).stat().st_size > 1000 for target in targets)
