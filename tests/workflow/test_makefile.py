"""What `make` would do: which Python it takes, and that a second call installs nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STAMPS = (
    ".venv/installed",
    ".venv/installed-slow",
    ".venv/tao-protos/installed",
    ".venv-tensorflow/installed",
)


@pytest.fixture
def project(repository, tmp_path) -> Path:
    """A folder with what make looks at, and nothing installed."""
    folder = tmp_path / "project"
    pins = ("tests/tensorflow/requirements.txt", "envs/tao-protos.txt")
    for name in ("Makefile", "pyproject.toml", *pins):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, folder / name)
    return folder


def make(project, *arguments, path=None, home=None):
    """Run make with a PATH of `path` alone, besides the shell's own folders."""
    environment = {
        "PATH": os.pathsep.join([str(path)] * bool(path) + ["/usr/bin", "/bin"]),
        "HOME": str(home or project),
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def leave_installed(project):
    """What every installation leaves behind, one after the other."""
    for second, name in enumerate(STAMPS):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
        when = (project / "pyproject.toml").stat().st_mtime + 60 + second
        os.utime(project / name, (when, when))


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def chosen(project, **options):
    """The Python that make would take; every version that Python 3 may have on the PATH fails."""
    done = make(project, "--eval", "show:;@echo '[$(PYTHON)]'", "show", **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()[1:-1]


@pytest.fixture
def shims(tmp_path) -> Path:
    """Programs of every candidate's name that do not start, as pyenv's without a version."""
    folder = tmp_path / "shims"
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        program(folder / name, f"echo 'pyenv: {name}: command not found' >&2; exit 127")
    return folder


def test_a_shim_that_does_not_start_is_no_python(project, shims):
    (shims / "python3.12").unlink()
    (shims / "python3.12").symlink_to(sys.executable)
    assert chosen(project, path=shims) == "python3.12"


def test_a_python_too_old_is_passed_over(project, shims):
    program(
        shims / "python3.11",
        f"""case "$2" in
        *version_info*) exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 0)
$2" ;; esac; exit 1""",
    )
    program(shims / "python3", f'exec {sys.executable} "$@"')
    assert chosen(project, path=shims) == "python3"


def test_versions_of_pyenv_are_tried_last(project, shims, tmp_path):
    version = tmp_path / ".pyenv/versions/3.11.7/bin/python"
    version.parent.mkdir(parents=True)
    version.symlink_to(sys.executable)
    assert chosen(project, path=shims, home=tmp_path) == str(version)


def test_no_python_is_one_line_with_the_remedy(project, shims):
    done = make(project, "test", path=shims)
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert lines == [
        "Python 3.11, 3.12 or 3.13 is needed and none starts: install one or name it with"
        " 'make PYTHON=/path/to/python'"
    ]
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("target", ["test", "demo", "lint", "format", "test-all", "test-gpu"])
def test_a_second_call_installs_nothing(project, target):
    first = make(project, "-n", target)
    assert "pip install" in first.stdout, first.stderr
    assert (
        f'"{sys.executable}" -m venv .venv'
        in make(project, "-n", target, f"PYTHON={sys.executable}").stdout
    )
    leave_installed(project)
    second = make(project, "-n", target)
    assert second.returncode == 0
    assert second.stdout
    assert "pip install" not in second.stdout
    assert "-m venv" not in second.stdout


def test_changed_pins_install_again(project):
    leave_installed(project)
    later = (project / STAMPS[-1]).stat().st_mtime + 5
    os.utime(project / "pyproject.toml", (later, later))
    plan = make(project, "-n", "test-all").stdout
    assert "-m venv .venv\n" in plan
    assert "tensorflow" not in plan
    assert "--target" not in plan


def test_only_the_slow_tests_need_tensorflow(project):
    assert "tensorflow" not in make(project, "-n", "test").stdout
    assert "-r tests/tensorflow/requirements.txt" in make(project, "-n", "test-all").stdout
