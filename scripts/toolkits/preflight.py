"""Looks for what a toolkit's runner needs and names what is missing, a line a problem."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from toolkits.table import Toolkit

TIMEOUT_S = 60
LOGIN = "docker login nvcr.io, with the user $oauthtoken and your NGC API key as password"


def problems(
    toolkit: Toolkit,
    runner: str,
    *,
    key_variable: str,
    environment: Mapping[str, str],
    uses_apptainer: bool,
    runs_here: bool = True,
) -> list[str]:
    """What keeps the toolkit from running here; empty when nothing does.

    Args:
        toolkit: the row of the table.
        runner: docker, apptainer or host.
        key_variable: environment variable of the key.
        environment: of the jobs.
        uses_apptainer: whether Snakemake was told to enter containers.
        runs_here: whether this machine runs the jobs; otherwise only the key is looked for, which
            they take along.
    """
    if toolkit.is_native:
        return []
    found = list(_key(toolkit, key_variable, environment))
    if not runs_here:
        return found
    if runner == "docker":
        found += _docker(str(toolkit.image))
    elif runner == "apptainer":
        found += _apptainer(uses_apptainer)
    else:
        found += _host(toolkit)
    return found


def _key(toolkit: Toolkit, variable: str, environment: Mapping[str, str]) -> Iterable[str]:
    if toolkit.key == "required" and not environment.get(variable):
        yield (
            f"key: {variable} is not set; choose the key of your models and export it: "
            f"read -rs {variable} && export {variable}"
        )


def _docker(image: str) -> Iterable[str]:
    yield from _driver()
    if not shutil.which("docker"):
        yield (
            "docker: not on the PATH; install Docker 19.03.5 or newer, or set toolkit_runner to "
            "apptainer, or to host inside the container"
        )
        return
    status, told = _ask("docker", "info", "--format", "{{json .Runtimes}}")
    if status:
        remedy = (
            "add yourself to the group docker and log in again"
            if "permission denied" in told.lower()
            else "start it: sudo systemctl start docker"
        )
        yield f"docker daemon: does not answer ({_first_line(told)}); {remedy}"
        return
    if "nvidia" not in _runtimes(told) and not shutil.which("nvidia-container-cli"):
        yield (
            "docker --gpus: the NVIDIA Container Toolkit is not installed; install "
            "nvidia-container-toolkit and run: sudo nvidia-ctk runtime configure --runtime=docker"
        )
    yield from _image(image)


def _image(image: str) -> Iterable[str]:
    if _ask("docker", "image", "inspect", image)[0] == 0:
        return
    status, told = _ask("docker", "manifest", "inspect", image)
    if status == 0:
        return
    if "nvcr.io" not in _logins():
        yield f"NGC login: none for nvcr.io, and {image} is not here yet; run: {LOGIN}"
    # An experiment in Docker before 20.10, which may pull the image all the same.
    elif "experimental" not in told:
        yield (
            f"image: {image} is not here and cannot be pulled ({_first_line(told)}); try: "
            f"docker pull {image}"
        )


def _apptainer(is_used: bool) -> Iterable[str]:
    yield from _driver()
    if not (shutil.which("apptainer") or shutil.which("singularity")):
        yield "apptainer: not on the PATH; install it, or set toolkit_runner to docker"
    elif not is_used:
        yield (
            "apptainer: Snakemake was not told to use it; add "
            '--sdm apptainer --apptainer-args "--nv" (docs/toolkits.md)'
        )


def _host(toolkit: Toolkit) -> Iterable[str]:
    programs = sorted({task.command.split()[0] for task in toolkit.tasks.values()})
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        yield (
            f"{', '.join(missing)}: not on the PATH; toolkit_runner: host is for a shell inside "
            f"{toolkit.image}; set it to docker outside"
        )


def _driver() -> Iterable[str]:
    if not shutil.which("nvidia-smi"):
        yield "GPU driver: no nvidia-smi on the PATH; install the driver, or set toolkit: native"
        return
    status, told = _ask("nvidia-smi", "-L")
    if status or "GPU" not in told:
        yield (
            f"GPU driver: nvidia-smi finds no GPU ({_first_line(told)}); check the driver, or set "
            "toolkit: native"
        )


def _logins() -> Iterable[str]:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return []
    return [*config.get("auths", {}), *config.get("credHelpers", {})]


def _runtimes(told: str) -> Iterable[str]:
    try:
        return json.loads(told) or []
    except json.JSONDecodeError:
        return []


def _ask(*command: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer in {TIMEOUT_S} s"
    except OSError as error:
        return 1, str(error.strerror)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr or done.stdout


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")
