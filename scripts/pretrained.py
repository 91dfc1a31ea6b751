"""Fetches the backbone's first weights: copies a file, or downloads and checks one, resumably."""

import hashlib
import os
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """Digest of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, digest: str, output: Path) -> None:
    """Fetch `url` to `output`, going on where an interrupted download stopped.

    Raises ValueError, one line, when the server fails or the digest is another one; a file with a
    wrong digest is not kept.
    """
    part = output.with_name(output.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            resumed = start > 0 and response.status == 206
            total = int(response.headers.get("Content-Length") or 0) + (start if resumed else 0)
            with (
                part.open("ab" if resumed else "wb") as file,
                tqdm(
                    total=total or None,
                    initial=start if resumed else 0,
                    unit="B",
                    unit_scale=True,
                    desc=output.name,
                    disable=not sys.stderr.isatty(),
                ) as bar,
            ):
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        # 416: the part is already the whole file, so its digest decides.
        if not (error.code == 416 and start):
            raise ValueError(f"train.pretrained.url: {url}: {error}") from None
    except OSError as error:
        raise ValueError(f"train.pretrained.url: {url}: {error}; run again to go on") from None
    found = sha256(part)
    if found != digest:
        part.unlink()
        raise ValueError(
            f"train.pretrained.sha256: {url} has {found}, not {digest}; is it the right file?"
        )
    os.replace(part, output)


def fetch(source: dict[str, Any], output: Path) -> None:
    """Put the weights that `train.pretrained` names at `output`; ValueError says what is wrong."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if source["source"] == "url":
        download(source["url"], source["sha256"], output)
        return
    path = Path(source["path"]).expanduser()
    if not path.is_file():
        raise ValueError(f"train.pretrained.path: {path} is no file")
    part = output.with_name(output.name + ".part")
    shutil.copyfile(path, part)
    os.replace(part, output)


if __name__ == "__main__":
    try:
        fetch(snakemake.params.source, Path(snakemake.output[0]))
    except ValueError as problem:
        Path(snakemake.log[0]).write_text(f"{problem}\n", encoding="utf-8")
        sys.exit(str(problem))
