"""Command lines that run a toolkit's program in NVIDIA's container, or beside it on the host."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from toolkits.errors import ToolkitError
from toolkits.table import Toolkit

# Horovod and TensorFlow share memory between processes; NVIDIA's own launcher asks for the same.
RESOURCES = ("--shm-size", "16g", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864")
# Folders whose content a container has itself: no mount may cover one, nor what lies in `INNER`.
SYSTEM = ("/", "/dev", "/opt", "/run", "/usr", "/usr/local", "/var")
INNER = (
    *("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys"),
    *("/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin", "/usr/local/bin", "/usr/local/lib"),
)
# NVIDIA's programs must not find this project's modules, which rules/common.smk puts before theirs.
OUTER = 'env PYTHONPATH="${OUTER_PYTHONPATH-}" '


def prefix(
    toolkit: Toolkit, task: str, runner: str, *, results: str | Path, key_variable: str
) -> str:
    """What stands before a task's program in a shell command; ends with a blank unless empty.

    Args:
        toolkit: the row of the table.
        task: its name in the table.
        runner: docker, apptainer or host; the native toolkit needs none.
        results: results folder, which may lie outside the project.
        key_variable: environment variable with the key. Only its name is in the text.
    """
    if toolkit.is_native:
        return ""
    key = toolkit.key if toolkit.tasks[task].takes_key else "none"
    if runner == "apptainer":
        # Snakemake has entered the container already, where there is no module of this project.
        return OUTER + "".join(f"{shlex.quote(word)} " for word in with_key((), key, key_variable))
    words = ["python", "-m", "toolkits", "--key", key, "--key-variable", key_variable]
    if runner == "docker":
        words += ["--image", str(toolkit.image), "--bind", str(results)]
        return " ".join([*map(shlex.quote, words), "-- "])
    return " ".join([*map(shlex.quote, words), "--", OUTER])


def image_of(toolkit: Toolkit, runner: str) -> str | None:
    """The image for Snakemake's `container:`; None where something else enters the container."""
    return f"docker://{toolkit.image}" if toolkit.image and runner == "apptainer" else None


def with_key(words: Sequence[str], key: str, variable: str) -> list[str]:
    """The command with `-k`, taken from the environment by a shell where the program runs.

    NVIDIA's programs take the key as an argument only, so it shows in the container's process list;
    it is in no shell text, parameter or log outside.

    Args:
        words: program and arguments.
        key: none, optional (`-k` when the variable is set) or required.
        variable: name of the environment variable.
    """
    if key == "none":
        return list(words)
    flag = f'-k "${variable}"' if key == "required" else f'${{{variable}:+-k "${variable}"}}'
    return ["sh", "-c", f'exec "$@" {flag}', "sh", *words]


def docker_run(
    image: str,
    words: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str],
    key: str,
    key_variable: str,
    binds: Iterable[str | Path] = (),
) -> list[str]:
    """`docker run` for a command in the current folder, as the invoking user.

    Args:
        image: with its tag.
        words: program and arguments; relative paths start at the current folder.
        name: of the container, so that it can be stopped.
        environment: whose CUDA_VISIBLE_DEVICES chooses the GPUs.
        key: see `with_key`.
        key_variable: see `with_key`.
        binds: further folders that the program reads or writes.

    Raises:
        ToolkitError: a folder that Docker cannot mount, or must not.
    """
    command = ["docker", "run", "--rm", "--init", "--name", name]
    command += ["--gpus", gpus(environment.get("CUDA_VISIBLE_DEVICES"))]
    command += ["--user", f"{os.getuid()}:{os.getgid()}", *RESOURCES]
    for folder in mounts(Path.cwd(), binds):
        if folder.is_dir() and _is_systems(folder):
            raise ToolkitError(
                f"{folder}: mounted there, it would cover the container's own; remove the link "
                "that leads to it from the project and the results, or move them out of it"
            )
        if ":" in str(folder):
            raise ToolkitError(
                f"{folder}: Docker cannot mount a path with a colon in it; move the project"
            )
        command += ["--volume", f"{folder}:{folder}"]
    command += ["--workdir", str(Path.cwd()), "--env", "HOME=/tmp", "--env", "DATA_BASE_PATH"]
    if key != "none" and environment.get(key_variable):
        command += ["--env", key_variable]
    return [*command, image, *with_key(words, key, key_variable)]


def _is_systems(folder: Path) -> bool:
    return str(folder) in SYSTEM or any(folder.is_relative_to(system) for system in INNER)


def mounts(project: Path, binds: Iterable[str | Path]) -> list[Path]:
    """What to mount, each at its own path: the project, the binds, and where links lead.

    A link inside the project, such as results -> /scratch/results, must find its target in the
    container as well; so must a link among a bind's own entries. A folder below another one is
    left out. A bind that is not there yet is made by the first job of the workflow, not here.
    """
    found = [project, project.resolve()]
    for bind in binds:
        path = project / bind
        found += [path.absolute(), path.resolve()]
        if path.is_dir():
            found += [entry.resolve() for entry in path.iterdir() if entry.is_symlink()]
    kept: list[Path] = []
    for path in sorted(
        {path for path in found if path.exists()}, key=lambda path: (len(path.parts), path)
    ):
        if not any(path.is_relative_to(above) for above in kept):
            kept.append(path)
    return kept


def gpus(visible: str | None) -> str:
    """Docker's `--gpus` for CUDA_VISIBLE_DEVICES; all of them when it is not set."""
    return "all" if not visible else f'"device={visible}"'
