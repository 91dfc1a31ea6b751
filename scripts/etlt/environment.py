"""Finds an interpreter for NVIDIA's codec, and makes the environment that the codec lives in."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from etlt.codec import Codec, key_from_environment, runs
from etlt.errors import EtltError

VERSIONS = ("3.12", "3.10")
"""Pythons that the codec exists for, best first."""

_IS_ONE = "import sys; sys.exit('%d.%d' % sys.version_info[:2] not in {versions})"
LICENCE_MISSING = (
    "export.etlt: NVIDIA's codec has a licence of its own (NVIDIA Exchange File Format: use only, "
    "no passing on); read it in docs/export.md and set export.accept_nvidia_eff_licence: true, or "
    "export.etlt: false"
)


@dataclass(frozen=True)
class Environment:
    """The interpreter with the codec, as environment.json holds it."""

    python: Path

    @classmethod
    def read(cls, path: Path) -> "Environment":
        """Read environment.json.

        Raises:
            EtltError: when the file or its interpreter is not there any more.
        """
        try:
            python = Path(json.loads(path.read_text(encoding="utf-8"))["python"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EtltError(f"{path}: unreadable ({error}); delete it and run again") from error
        if not python.exists():
            raise EtltError(f"{path}: {python} is gone; delete this file and run again")
        return cls(python)


def find_interpreter(named: str | None = None) -> Path:
    """Return a Python that the codec can be installed for, by starting candidates.

    A name on the PATH is not yet an interpreter: version managers put shims there that start
    nothing.

    Args:
        named: `export.codec_python`; without it the PATH and pyenv's versions are searched.

    Raises:
        EtltError: when none starts, or the named one is another version.
    """
    program = _IS_ONE.format(versions=VERSIONS)
    if named:
        python = shutil.which(Path(named).expanduser())
        if python is None or not runs(python, program):
            raise EtltError(
                f"export.codec_python: {named} does not start, or is not Python "
                f"{' or '.join(VERSIONS)}, which NVIDIA's codec exists for"
            )
        return Path(python)
    tried = []
    for candidate in _candidates():
        if runs(candidate, program):
            return candidate
        tried.append(str(candidate))
    raise EtltError(
        f"export.etlt: NVIDIA's codec needs Python {' or '.join(VERSIONS)}, and none starts here "
        f"(tried {', '.join(tried)}): install one, name it in export.codec_python, or set "
        "export.etlt: false"
    )


def _candidates() -> Iterator[Path]:
    """Files that may be a Python of the right version, each once."""
    yield Path(sys.executable)
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in VERSIONS:
        for folder in folders:
            if os.access(folder / f"python{version}", os.X_OK):
                yield folder / f"python{version}"
        yield from sorted(root.glob(f"versions/{version}*/bin/python"), reverse=True)


def make_environment(folder: Path, requirements: Path, *, named: str | None = None) -> Environment:
    """Make the codec's environment and write environment.json into `folder`.

    An interpreter named in the config that has the codec already is taken as it is.

    Args:
        folder: where to make it.
        requirements: pip's requirements file, complete: nothing that it does not list is installed.
        named: see `find_interpreter`.

    Raises:
        EtltError: when there is no interpreter, or the packages cannot be installed.
    """
    python = find_interpreter(named)
    if not (named and Codec(python).works()):
        python = _installed(folder / "venv", requirements, python)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "environment.json.part"
    part.write_text(json.dumps({"python": str(python)}, indent=2) + "\n", encoding="utf-8")
    os.replace(part, folder / "environment.json")
    return Environment(python)


def _installed(venv: Path, requirements: Path, python: Path) -> Path:
    """A new virtual environment with the requirements; its interpreter."""
    shutil.rmtree(venv, ignore_errors=True)
    _step([python, "-m", "venv", venv], f"{python} makes no virtual environment in {venv}")
    # bin/python as it stands: resolved, it would be the interpreter without the environment.
    mine = Path(os.path.abspath(venv / "bin/python"))  # noqa: PTH100
    install = [mine, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _step(
        [*install, "--no-deps", "--requirement", requirements],
        f"{requirements} cannot be installed with {python}",
    )
    if not Codec(mine).works():
        raise EtltError(f"NVIDIA's codec was installed into {venv} but does not load there")
    return mine


def _step(command: list, what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line]
        raise EtltError(f"{what}: {(errors or lines or ['no message'])[0]}")


def check_start(
    environment: Path, *, licence_accepted: bool, named: str | None, models: Iterable[Path] = ()
) -> None:
    """Check what writing and reading an .etlt needs, before hours of training.

    Args:
        environment: environment.json, whether it is there already or not.
        licence_accepted: `export.accept_nvidia_eff_licence`.
        named: `export.codec_python`.
        models: .etlt files that are there and stay: the key must open them.

    Raises:
        EtltError: for the first thing that is missing.
    """
    if not licence_accepted:
        raise EtltError(LICENCE_MISSING)
    key = key_from_environment()
    if not environment.exists():
        find_interpreter(named)
        return
    codec = Codec(Environment.read(environment).python)
    with TemporaryDirectory(prefix="etlt-") as folder:
        for model in models:
            codec.decrypt(model, Path(folder, "model.onnx"), key)
