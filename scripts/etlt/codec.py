"""Encrypts and decrypts through NVIDIA's codec, which runs in an interpreter of its own.

The package is closed and exists for Python 3.10 and 3.12 alone; its licence forbids to hand it on,
so it is neither part of this project nor imported by it. The key goes through a pipe: it is in no
command line and no environment but the user's own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etlt.container import HDF5, ONNX, payload_kind, read_header, write_header
from etlt.errors import EtltError

KEY_VARIABLE = "ETLT_KEY"
"""The environment variable with the key."""
INTERPRETER_VARIABLE = "ETLT_CODEC_PYTHON"
"""The environment variable with an interpreter that has the codec, where no config names one."""

_WORKER = Path(__file__).with_name("worker.py")
LONGEST_KEY = 1023
"""Bytes of the longest key: nvinfer's buffer holds no more, with its closing zero."""


def key_from_environment() -> str:
    """Return the key.

    Raises:
        EtltError: when the variable is not set, or holds what no tool could take as a key.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise EtltError(
            f"the key of encrypted models is missing: set the environment variable {KEY_VARIABLE}"
        )
    if len(key.encode()) > LONGEST_KEY or not key.isprintable():
        raise EtltError(
            f"{KEY_VARIABLE}: the key is longer than {LONGEST_KEY} bytes or has control signs"
        )
    return key


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Yield the name to append to; it becomes `target` at the end, or goes away."""
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        yield part
        os.replace(part, target)
    except OSError as error:
        raise EtltError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


class Codec:
    """NVIDIA's codec in the interpreter `python`."""

    def __init__(self, python: str | Path):
        self.python = Path(python)

    @classmethod
    def from_environment(cls) -> "Codec":
        """The codec of ETLT_CODEC_PYTHON, or of the interpreter that runs this.

        Raises:
            EtltError: when neither has it.
        """
        named = os.environ.get(INTERPRETER_VARIABLE)
        codec = cls(named or sys.executable)
        if not codec.works():
            raise EtltError(
                f"{codec.python} has no NVIDIA codec (nvidia-eff-tao-encryption, Python 3.10 or "
                f"3.12): name an interpreter that has it in the environment variable "
                f"{INTERPRETER_VARIABLE}, see docs/export.md"
            )
        return codec

    def works(self) -> bool:
        """Whether the interpreter starts and has the codec."""
        return runs(self.python, "from eff_tao_encryption import tao_codec")

    def encrypt(self, source: Path, target: Path, key: str, *, name: str = "") -> None:
        """Write an .etlt around a model; it appears whole or not at all.

        Args:
            source: the ONNX file, or UFF with the `name` of its input.
            target: the .etlt.
            key: the key.
            name: see `write_header`.

        Raises:
            EtltError: when a file or the codec cannot be used.
        """
        with _whole(target) as part:
            with part.open("wb") as file:
                write_header(file, name)
            self._run("encrypt", source, 0, part, key)

    def encrypt_tlt(self, source: Path, target: Path, key: str) -> None:
        """Write a .tlt around a Keras HDF5 file; it appears whole or not at all.

        Raises:
            EtltError: when a file or the codec cannot be used.
        """
        with _whole(target) as part:
            self._run("encrypt", source, 0, part, key)

    def decrypt(self, source: Path, target: Path, key: str) -> str:
        """Write what an .etlt holds, and return the name in its header: empty for ONNX.

        Raises:
            EtltError: when it is no .etlt, the key is wrong, or a file or the codec cannot be used.
        """
        try:
            with source.open("rb") as file:
                name = read_header(file, str(source))
                skip = file.tell()
        except OSError as error:
            raise EtltError(f"cannot read {source}: {error.strerror or error}") from error
        # A UFF payload has no signature to know it by.
        self._decrypt(source, skip, target, key, None if name else ONNX)
        return name

    def decrypt_tlt(self, source: Path, target: Path, key: str) -> None:
        """Write the Keras HDF5 file that a .tlt holds.

        Raises:
            EtltError: when the key is wrong, or a file or the codec cannot be used.
        """
        self._decrypt(source, 0, target, key, HDF5)

    def _decrypt(self, source: Path, skip: int, target: Path, key: str, kind: str | None) -> None:
        with _whole(target) as part:
            self._run("decrypt", source, skip, part, key)
            with part.open("rb") as file:
                found = payload_kind(file.read(16))
            if kind is not None and found != kind:
                raise EtltError(
                    f"{source}: decrypted, it is no {kind} file: the key in {KEY_VARIABLE} is not "
                    "the one that it was written with, or the file is damaged"
                )

    def _run(self, task: str, source: Path, skip: int, target: Path, key: str) -> None:
        if not source.is_file():
            raise EtltError(f"{source}: no such file")
        try:
            done = subprocess.run(
                [self.python, "-I", _WORKER, task, source, str(skip), target],
                input=key.encode(),
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise EtltError(f"{self.python} does not start: {error.strerror or error}") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise EtltError(
                f"{source}: NVIDIA's codec in {self.python} cannot {task} it: "
                f"{lines[-1] if lines else f'it ended with {done.returncode}'}"
            )


def runs(python: str | Path, program: str) -> bool:
    """Whether an interpreter starts and runs a short program without an error."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
