"""Command lines that enter a container, and what becomes of the key."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toolkits.__main__ import copy_without, main
from toolkits.container import docker_run, gpus, mounts, prefix, with_key
from toolkits.errors import ToolkitError
from toolkits.table import TOOLKITS

SECRET = "not to be seen"


def told(toolkit, task, runner):
    return prefix(TOOLKITS[toolkit], task, runner, results="results", key_variable="ETLT_KEY")


def test_native_runs_as_it_is():
    assert told("native", "train", "docker") == ""


def test_apptainer_leaves_the_container_to_snakemake():
    outer = 'env PYTHONPATH="${OUTER_PYTHONPATH-}" '
    start = told("tlt2", "train", "apptainer")
    assert start == outer + 'sh -c \'exec "$@" -k "$ETLT_KEY"\' sh '
    assert told("tlt2", "dataset_convert", "apptainer") == outer


def test_key_is_taken_from_the_environment_where_the_program_runs(tmp_path):
    command = with_key(["printf", "%s|", "a b"], "required", "ETLT_KEY")
    done = subprocess.run(command, env={"ETLT_KEY": SECRET}, capture_output=True, check=True)
    assert done.stdout.decode() == f"a b|-k|{SECRET}|"
    assert SECRET not in " ".join(command)


@pytest.mark.parametrize(("value", "expected"), [("k", "x|-k|k|"), ("", "x|"), (None, "x|")])
def test_optional_key_only_when_it_is_there(value, expected):
    command = with_key(["printf", "%s|", "x"], "optional", "ETLT_KEY")
    environment = {} if value is None else {"ETLT_KEY": value}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.decode() == expected


def test_missing_key_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("ETLT_KEY", raising=False)
    assert main(["--key", "required", "--", "true"]) == 1
    assert "ETLT_KEY is not set" in capsys.readouterr().err


def test_results_elsewhere_and_links_are_mounted(tmp_path):
    project, scratch, outside = tmp_path / "project", tmp_path / "scratch", tmp_path / "outside"
    for folder in (project, scratch / "kitti", outside):
        folder.mkdir(parents=True)
    (project / "results").symlink_to(outside)
    (outside / "kitti").symlink_to(scratch / "kitti")
    assert mounts(project, ["results"]) == [outside, project, scratch / "kitti"]


def test_folders_below_the_project_need_no_mount(tmp_path):
    (tmp_path / "results").mkdir()
    assert mounts(tmp_path, ["results", "none/yet", tmp_path]) == [tmp_path]


def test_of_a_linked_file_only_the_file_is_mounted(tmp_path):
    project, scratch = tmp_path / "project", tmp_path / "scratch"
    for folder in (project, scratch):
        folder.mkdir()
    (scratch / "clip.mp4").touch()
    (scratch / "other").touch()
    (project / "clip.mp4").symlink_to(scratch / "clip.mp4")
    (project / "hosts").symlink_to("/etc/hosts")
    assert mounts(project, [project]) == [Path("/etc/hosts"), project, scratch / "clip.mp4"]


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr", "/opt", "/bin", "/lib", "/usr/local/bin"])
def test_the_containers_own_folders_are_not_covered(tmp_path, monkeypatch, folder):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    told = rf"^{Path(folder).resolve()}: .* cover the container's own; remove the link"
    with pytest.raises(ToolkitError, match=told):
        docker_run("i", ["x"], name="n", environment={}, key="none", key_variable="K", binds=["."])


@pytest.mark.parametrize("folder", ["/dev/shm", "/usr/share"])
def test_folders_beside_them_are_mounted(tmp_path, monkeypatch, folder):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    command = docker_run(
        "i", ["x"], name="n", environment={}, key="none", key_variable="K", binds=["."]
    )
    assert f"{folder}:{folder}" in command


def test_folder_with_a_colon_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path / "a:b")
    with pytest.raises(ToolkitError, match="colon"):
        docker_run("image", ["x"], name="n", environment={}, key="none", key_variable="K")


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "all"), ("", "all"), ("0,2", '"device=0,2"')]
)
def test_gpus(visible, expected):
    assert gpus(visible) == expected


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_secret_is_masked_however_the_output_comes(size):
    text = f"key={SECRET}, again {SECRET}{SECRET}, not {SECRET[:5]}".encode()

    class Slow(io.BytesIO):
        def read1(self, _=-1):
            return self.read(size)

    target = io.BytesIO()
    copy_without(SECRET.encode(), Slow(text), target)
    assert target.getvalue() == text.replace(SECRET.encode(), b"***")


def test_interrupted_program_is_never_a_success(repository):
    """NVIDIA's training saves and ends with 0."""
    program = "trap 'exit 0' INT; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkits", "--", "sh", "-c", program],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(repository / "scripts")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    process.stdout.close()
