"""Each thing that is missing is one line, with what to do about it."""

import json

import pytest
from toolkits import preflight
from toolkits.table import TOOLKITS

IMAGE = TOOLKITS["tao5"].image


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A PATH of the test's own: a function that writes a program onto it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write(name, text):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    write("nvidia-smi", "echo 'GPU 0: NVIDIA A100'")
    write("docker", DOCKER.format(info="""echo '{"nvidia": {}}'""", image=0, manifest=0))
    return write


DOCKER = """case "$1 $2" in
"info --format") {info} ;;
"image inspect") exit {image} ;;
"manifest inspect") [ {manifest} = 0 ] || echo 'unauthorized: authentication required' >&2; exit {manifest} ;;
esac"""  # noqa: E501


def problems(toolkit="tao5", runner="docker", **environment):
    return preflight.problems(
        TOOLKITS[toolkit],
        runner,
        key_variable="ETLT_KEY",
        environment=environment,
        uses_apptainer=False,
    )


def test_machine_with_everything(machine):
    assert problems() == []
    assert problems("tlt2", ETLT_KEY="k") == []


def test_native_needs_nothing(machine, tmp_path):
    (tmp_path / "bin/docker").unlink()
    assert problems("native") == []


def test_key(machine):
    (found,) = problems("tlt2")
    assert found.startswith("key: ETLT_KEY is not set; ")
    assert "export ETLT_KEY" in found


def test_no_docker(machine, tmp_path):
    (tmp_path / "bin/docker").unlink()
    (found,) = problems()
    assert found.startswith("docker: not on the PATH; install Docker")


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("Cannot connect to the Docker daemon. Is the docker daemon running?", "systemctl start"),
        ("permission denied while trying to connect to the Docker daemon", "the group docker"),
    ],
)
def test_daemon(machine, message, remedy):
    machine("docker", f"echo '{message}' >&2; exit 1")
    (found,) = problems()
    assert found.startswith(f"docker daemon: does not answer ({message}")
    assert remedy in found


def test_container_toolkit(machine):
    machine("docker", DOCKER.format(info="""echo '{"runc": {}}'""", image=0, manifest=0))
    (found,) = problems()
    assert found.startswith("docker --gpus: the NVIDIA Container Toolkit is not installed")


def test_driver_that_is_missing_or_broken(machine, tmp_path):
    machine("nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver' >&2; exit 9")
    assert problems()[0].startswith("GPU driver: nvidia-smi finds no GPU (NVIDIA-SMI has failed")
    (tmp_path / "bin/nvidia-smi").unlink()
    assert problems()[0].startswith("GPU driver: no nvidia-smi on the PATH")


def test_image_without_login_and_with_one(machine, tmp_path):
    machine("docker", DOCKER.format(info="""echo '{"nvidia": {}}'""", image=1, manifest=1))
    (found,) = problems()
    assert found.startswith("NGC login: none for nvcr.io")
    assert "docker login nvcr.io" in found
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"nvcr.io": {}}}))
    (found,) = problems()
    assert found.startswith(f"image: {IMAGE} is not here and cannot be pulled (unauthorized")


def test_image_that_can_be_pulled(machine):
    machine("docker", DOCKER.format(info="""echo '{"nvidia": {}}'""", image=1, manifest=0))
    assert problems() == []


def test_old_docker_cannot_ask_for_an_image_and_may_pull_it(machine, tmp_path):
    refusal = "docker manifest inspect is only supported on a Docker cli with experimental cli"
    machine(
        "docker",
        DOCKER.format(info="""echo '{"nvidia": {}}'""", image=1, manifest=1).replace(
            "unauthorized: authentication required", refusal
        ),
    )
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"nvcr.io": {}}}))
    assert problems() == []


def test_several_things_are_several_lines(machine, tmp_path):
    (tmp_path / "bin/docker").unlink()
    (tmp_path / "bin/nvidia-smi").unlink()
    found = problems("tlt2")
    assert [line.split(":")[0] for line in found] == ["key", "GPU driver", "docker"]
    assert not [line for line in found if "\n" in line]


def test_apptainer(machine):
    (found,) = problems(runner="apptainer")
    assert found.startswith("apptainer: not on the PATH")
    machine("apptainer", "exit 0")
    (found,) = problems(runner="apptainer")
    assert "--sdm apptainer" in found


def test_host(machine):
    (found,) = problems(runner="host")
    assert found.startswith("detectnet_v2: not on the PATH; toolkit_runner: host is for a shell in")
    machine("detectnet_v2", "exit 0")
    assert problems(runner="host") == []


@pytest.mark.parametrize("runner", ["docker", "apptainer", "host"])
def test_only_the_key_is_looked_for_where_another_machine_runs_the_jobs(machine, tmp_path, runner):
    for program in (tmp_path / "bin").iterdir():
        program.unlink()
    settings = {"key_variable": "ETLT_KEY", "environment": {}, "uses_apptainer": False}
    (found,) = preflight.problems(TOOLKITS["tlt2"], runner, **settings, runs_here=False)
    assert found.startswith("key: ETLT_KEY is not set; ")
    assert preflight.problems(TOOLKITS["tao5"], runner, **settings, runs_here=False) == []
