"""Decoded images in one memory-mapped file, shared by all processes that train on the same images.

The file's name is a digest of the images' contents and of the size they are stretched to, so a
changed image or setting makes a new file, and equal sets are decoded once however many trainings
use them. A file appears whole: it is written beside and renamed, by one process at a time.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from detectnet_v2.errors import DetectNetError
from detectnet_v2.images import read_image, stretch

_LOG = logging.getLogger(__name__)
# Part of a file's name: raise it when decoding or the file's layout changes.
_FORMAT = "2"
# Part of the digest of contents, by which a saved training knows its images.
_DIGEST_FORMAT = "1"
_SPARE_BYTES = 1 << 30
_UNUSED_SECONDS = 30 * 24 * 3600
_ABANDONED_SECONDS = 3600
_SUFFIX = ".images"


class CachedImages:
    """Images of a cache file, read through a memory map: ``images[i]`` is (h, w, 3) uint8."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            # One row an image: offset in the pixel block, height, width.
            self._index = np.load(stream)
            start = stream.tell()
        self._pixels = np.memmap(path, dtype=np.uint8, mode="r", offset=start)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> np.ndarray:
        offset, height, width = self._index[i].tolist()
        # A plain view: slicing a memmap object costs more than the copy of a small image.
        pixels = np.ndarray.view(self._pixels, np.ndarray)[offset : offset + height * width * 3]
        return pixels.reshape(height, width, 3)


class DecodedImages:
    """The same images without a cache: ``images[i]`` reads and decodes the file."""

    def __init__(self, paths: Sequence[Path], size: tuple[int, int] | None) -> None:
        self._paths = list(paths)
        self._size = size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return _stretched(read_image(self._paths[i]), self._size)


def default_directory() -> Path:
    """Where caches go when the spec does not say: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detectnet_v2"


def content_digest(paths: Sequence[Path], *, threads: int = 2) -> str:
    """SHA-256 over the contents of the files, in order. DetectNetError for an unreadable one."""
    digest = hashlib.sha256(_DIGEST_FORMAT.encode())
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(_file_digest, paths):
            digest.update(part)
    return digest.hexdigest()


def open_images(
    paths: Sequence[Path],
    *,
    directory: Path,
    digest: str,
    size: tuple[int, int] | None = None,
    threads: int = 2,
) -> CachedImages | DecodedImages:
    """Images of ``paths``, from the cache in ``directory``, which is filled first if need be.

    ``digest`` is the ``content_digest`` of the paths; ``size`` (width, height) stretches every
    image. Where the folder cannot be written or the disk has no room the images are decoded each
    time, which a warning says. Raises DetectNetError for an image that cannot be decoded.
    """
    key = hashlib.sha256(f"{_FORMAT} {digest} {size}".encode()).hexdigest()[:32]
    path = directory / f"{key}{_SUFFIX}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with _lock(path.with_suffix(".lock")):
                if not path.exists():
                    _remove_unused(directory)
                    _write(path, paths, size, threads)
        os.utime(path)
        return CachedImages(path)
    except OSError as error:
        _LOG.warning(
            "no image cache in %s (%s): images are decoded at every step, which is slower; "
            "name another folder in native.cache_directory",
            directory,
            error.strerror or error,
        )
        return DecodedImages(paths, size)


def _write(path: Path, paths: Sequence[Path], size: tuple[int, int] | None, threads: int) -> None:
    """Decode all images into ``path``; OSError when the disk has no room for them."""
    started = time.monotonic()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    index = np.zeros((len(paths), 3), dtype=np.int64)
    position = 0
    try:
        with part.open("wb") as stream, ThreadPoolExecutor(threads) as pool:
            np.save(stream, index)
            for i, image in enumerate(_decoded(pool, paths, size, ahead=4 * threads)):
                if i % 64 == 0 and shutil.disk_usage(path.parent).free < _SPARE_BYTES:
                    raise OSError(f"less than {_SPARE_BYTES >> 20} MiB left on its disk")
                index[i] = position, image.shape[0], image.shape[1]
                stream.write(image.data)
                position += image.nbytes
            stream.seek(0)
            np.save(stream, index)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _LOG.info(
        "decoded %d images into %s (%.0f MiB) in %.1f s",
        len(paths),
        path,
        position / (1 << 20),
        time.monotonic() - started,
    )


def _decoded(
    pool: ThreadPoolExecutor, paths: Sequence[Path], size: tuple[int, int] | None, ahead: int
) -> Iterator[np.ndarray]:
    """Decoded images in order, of which the pool holds at most ``ahead``."""
    waiting = []
    for path in paths:
        waiting.append(pool.submit(_decode, path, size))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _decode(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    return np.ascontiguousarray(_stretched(read_image(path), size))


def _stretched(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    return image if size is None else stretch(image, *size)


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise DetectNetError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems have no locks. Two processes may then decode the same
            # images; each renames a whole file of its own, so the result is still right.
            _LOG.debug("%s: no file locks here", path)
        yield


def _remove_unused(directory: Path) -> None:
    """Delete caches that no training has opened for a month, and what a kill has left of one."""
    now = time.time()
    for pattern, age in (
        (f"*{_SUFFIX}", _UNUSED_SECONDS),
        (f"*{_SUFFIX}.*.part", _ABANDONED_SECONDS),
    ):
        for path in directory.glob(pattern):
            # Another process may finish its part, or delete the same, just then.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < now - age:
                    path.unlink()
                    path.with_suffix(".lock").unlink(missing_ok=True)
