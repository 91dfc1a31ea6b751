"""What a push brings to a device: files with digests and modes, keyed models' configs included."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepstream.errors import DeepStreamError
from etlt.codec import LONGEST_KEY
from file_digest import sha256

from jetson import cases
from jetson.cases import Case
from jetson.errors import JetsonError

PLAIN, PRIVATE = 0o644, 0o600
# What belongs to a rendered folder; runs on the desk leave dumps, videos and reports beside it.
SHIPPED = {".txt", ".onnx", ".etlt", ".bin", ".yml", ".yaml"}
_ENCODED_MODEL = re.compile(r"^\s*tlt-encoded-model\s*=.*$", re.MULTILINE)
_MODEL_KEY = re.compile(r"^\s*tlt-model-key\s*=.*\n?", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """One file of a release.

    `sha256` is of what arrives on the device; `public_sha256` of the file as it is on the desk,
    which for a config that gets the model's key is another one, and the only one ever written down.
    """

    path: str
    content: Path | bytes
    size: int
    sha256: str
    public_sha256: str
    mode: int = PLAIN

    @property
    def keyed(self) -> bool:
        """Whether the file holds the model's key."""
        return self.mode == PRIVATE


@dataclass(frozen=True)
class Release:
    """All files of a push; `digest` names the release on the device."""

    files: tuple[File, ...]
    cases: tuple[Case, ...]
    digest: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def gather(folders: Mapping[str, Path], *, key: str | None, key_name: str) -> Release:
    """Make a release of rendered config folders.

    Args:
        folders: case name -> folder; its configs, labels, model, calibration and clip are pushed.
        key: the key of encrypted models (.etlt); needed only if there is one.
        key_name: the environment variable that holds the key, for messages.

    Raises:
        JetsonError: a folder is missing or cannot be measured, or a key is needed and not there.
    """
    sources: dict[str, Path] = {}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise JetsonError(f"{folder}: no such folder; render the configs of {name} first")
        try:
            clips = cases.clips(folder)
        except DeepStreamError as error:
            raise JetsonError(str(error)) from error
        for path in sorted(folder.iterdir()):
            if path.is_file() and (path.suffix in SHIPPED or path.name in clips):
                sources[f"{name}/{path.name}"] = path
    for path in sources:
        # Names travel as lines of text, which sha256sum writes differently with these in them.
        if any(ord(character) < 32 or character == "\\" for character in path):
            raise JetsonError(f"{path!r}: control signs and \\ do not fit into a name; rename it")
    read = tuple(cases.read(name, folder, sources) for name, folder in folders.items())
    infer_configs = {case.infer for case in read}
    files = tuple(
        _file(path, source, key, key_name, keyable=path in infer_configs)
        for path, source in sorted(sources.items())
    )
    return Release(files, read, _digest(files, key))


def _file(path: str, source: Path, key: str | None, key_name: str, keyable: bool) -> File:
    if keyable:
        text = source.read_text()
        if _ENCODED_MODEL.search(text):
            content = _with_key(text, key, key_name, source).encode()
            return File(
                path, content, len(content), _sha256(content), _sha256(source.read_bytes()), PRIVATE
            )
    digest = sha256(source)
    return File(path, source, source.stat().st_size, digest, digest)


def _with_key(text: str, key: str | None, key_name: str, source: Path) -> str:
    if not key:
        raise JetsonError(
            f"{source}: its model is encrypted; set the environment variable {key_name} to the key"
        )
    if len(key.encode()) > LONGEST_KEY or any(ord(character) < 32 for character in key):
        raise JetsonError(
            f"{key_name}: the key is longer than {LONGEST_KEY} bytes or has control signs in "
            "it; give the one that the model was exported with"
        )
    # GKeyFile's own escapes: a backslash doubled, a blank at the front written out.
    value = key.replace("\\", "\\\\")
    if value.startswith(" "):
        value = "\\s" + value[1:]
    bare = _MODEL_KEY.sub("", text)
    return _ENCODED_MODEL.sub(lambda line: f"{line[0]}\ntlt-model-key={value}", bare, count=1)


def _digest(files: tuple[File, ...], key: str | None) -> str:
    """Return 16 hex digits that name the content.

    The name is public, so the key enters it only through scrypt: a weak key must not be found by
    trying candidates against the name.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.mode:o} {file.public_sha256} {file.path}\n".encode())
    if key and any(file.keyed for file in files):
        digest.update(hashlib.scrypt(key.encode(), salt=digest.digest(), n=2**14, r=8, p=1))
    return digest.hexdigest()[:16]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def key_from_environment(name: str) -> str | None:
    """Return the model's key, None where the variable is not set or empty."""
    return os.environ.get(name) or None
