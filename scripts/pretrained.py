"""Fetches the backbone's first weights: from a file, a URL or NGC, resumably and checked.

    python -m pretrained SOURCE OUTPUT [CODEC]

SOURCE is the section `train.pretrained` as JSON, CODEC the environment.json of NVIDIA's codec.
"""

import hashlib
import http.client
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.program import describe
from decrypt_model import decrypt_model
from detectnet_v2.progress import progress
from etlt.errors import EtltError
from file_digest import sha256

CHUNK = 1 << 20  # a MiB, which is what progress counts
ATTEMPTS = 3
NGC = "https://api.ngc.nvidia.com"

logger = logging.getLogger(__name__)


def download(
    url: str,
    digest: str | None,
    output: Path,
    *,
    key: str = "train.pretrained.url",
    attempts: int = ATTEMPTS,
) -> None:
    """Fetch `url` to `output`, going on where an interrupted download stopped.

    A connection that drops is taken up again while each attempt brings more of the file.

    Args:
        url: where the file is.
        digest: SHA-256, 64 hex digits; None leaves it unchecked.
        output: where it goes; what is there so far is `part_of(url, output)`.
        key: the setting that errors name.
        attempts: fruitless ones until it gives up.

    Raises:
        ValueError: one line, when the server fails or the digest is another one; a file with a
            wrong digest is not kept.
    """
    part = part_of(url, output)
    for other in output.parent.glob(f"{output.name}.*part"):
        if other != part:
            other.unlink()
    fruitless = 0
    while True:
        before = _size(part)
        try:
            if _receive(url, part, output.name):
                break
            problem = "the connection dropped"
        except urllib.error.HTTPError as error:
            # 416: the part is already the whole file, so its digest decides.
            if error.code == 416 and before:
                break
            raise ValueError(f"{key}: {url}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless >= attempts:
            raise ValueError(f"{key}: {url}: {problem}; run again to go on")
    found = sha256(part)
    if digest is not None and found != digest:
        part.unlink()
        setting = key.rpartition(".")[0]
        raise ValueError(
            f"{setting}.sha256: {url} has {found}, not {digest}; is it the right file?"
        )
    os.replace(part, output)


def part_of(url: str, output: Path) -> Path:
    """Where a download waits to be gone on with; another address must not, so each has its own."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return output.with_name(f"{output.name}.{digest}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, title: str) -> bool:
    """Append what the server sends to `part`; whether that is the whole file."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = start > 0 and response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (start if resumed else 0) if length else None
        left = math.ceil(int(length) / CHUNK) if length else 0
        chunks = iter(lambda: response.read(CHUNK), b"")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in progress(chunks, left, f"MiB of {title}", logger):
                file.write(chunk)
    return total is None or _size(part) >= total


def fetch_ngc(model: str, digest: str | None, output: Path, *, site: str = NGC) -> None:
    """Fetch a backbone of NVIDIA's NGC: with its own program `ngc` where that is, else by its URL.

    Args:
        model: org/model:version or org/team/model:version, as `ngc` takes it.
        digest: SHA-256; None leaves it to `ngc`, which checks what it downloads.
        output: the Keras HDF5.
        site: the API's address.

    Raises:
        ValueError: one line.
    """
    key = "train.pretrained.model"
    if shutil.which("ngc"):
        _fetch_with_ngc(model, digest, output)
        return
    path, _, version = model.partition(":")
    *owner, name = path.split("/")
    place = f"org/{owner[0]}" + (f"/team/{owner[1]}" if len(owner) > 1 else "")
    file = f"{version}.hdf5"
    url = f"{site}/v2/models/{place}/{name}/{version}/files?redirect=true&path={file}"
    try:
        download(url, digest, output, key=key)
    except ValueError as error:
        if re.search(r"HTTP Error (401|403|404)", str(error)):
            raise ValueError(
                f"{error}; if NGC wants a login, install its program `ngc`, run `ngc config set`, "
                "and run again"
            ) from None
        raise


def _fetch_with_ngc(model: str, digest: str | None, output: Path) -> None:
    key = "train.pretrained.model"
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        command = ["ngc", "registry", "model", "download-version", model, "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr or done.stdout).strip().splitlines()
            raise ValueError(
                f"{key}: ngc cannot download {model}: {told[-1] if told else 'no message'}; "
                "`ngc config set` takes your NGC API key"
            )
        found = sorted(Path(folder).rglob("*.hdf5"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise ValueError(f"{key}: {model} must hold one .hdf5 file; it has {names}")
        actual = sha256(found[0])
        if digest is not None and actual != digest:
            raise ValueError(
                f"train.pretrained.sha256: {model} has {actual}, not {digest}; is it the right one?"
            )
        os.replace(found[0], output)


def fetch(source: dict[str, Any], output: Path, codec: Path | None = None) -> None:
    """Put the weights that `train.pretrained` names at `output`; ValueError says what is wrong.

    With `codec`, environment.json of NVIDIA's codec, a file is a .tlt and is decrypted.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    if source["source"] == "url":
        download(source["url"], source["sha256"], output)
        return
    if source["source"] == "ngc":
        fetch_ngc(source["model"], source.get("sha256"), output)
        return
    path = Path(source["path"]).expanduser()
    if not path.is_file():
        raise ValueError(f"train.pretrained.path: {path} is no file")
    digest = source.get("sha256")
    if digest is not None and (found := sha256(path)) != digest:
        raise ValueError(
            f"train.pretrained.sha256: {path} has {found}, not {digest}; is it the right file?"
        )
    if codec is not None:
        try:
            decrypt_model(path, output, codec)
        except EtltError as error:
            raise ValueError(f"train.pretrained.path: {error}") from None
        return
    part = output.with_name(output.name + ".part")
    try:
        shutil.copyfile(path, part)
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    source, output, *codec = arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        fetch(json.loads(source), Path(output), *map(Path, codec))
    except (ValueError, OSError) as problem:
        print(describe(problem) if isinstance(problem, OSError) else problem, file=sys.stderr)
        return 1
    print(f"sha256 {sha256(Path(output))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
