"""Brings a release to a device: sends what it lacks, resumes, verifies, then switches to it."""

import contextlib
import errno
import hashlib
import io
import logging
import posixpath
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import paramiko
from detectnet_v2.progress import draws_bars
from tqdm import tqdm

from jetson.errors import JetsonError, RemoteScriptError
from jetson.preflight import Probe
from jetson.release import File, Release
from jetson.session import Session, device_script, facts

CHUNK = 1 << 18
REPORT_EVERY_S = 10
INSTALL_TIMEOUT_S = 600

log = logging.getLogger(__name__)


@dataclass
class OnDevice:
    """What the device has: digest and size by path, for uploads and for releases.

    Of a release only what was pushed counts: engines, dumps and videos of somebody who ran
    deepstream-app in its folder are theirs.
    """

    root: str
    current: str
    free_bytes: int
    incoming: dict[str, tuple[str, int]] = field(default_factory=dict)
    current_files: dict[str, tuple[str, int]] = field(default_factory=dict)
    wanted_files: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass
class Sent:
    """What a push sent; `resumed_bytes` were there from a push that broke."""

    files: int = 0
    bytes: int = 0
    resumed_bytes: int = 0


def push(session: Session, release: Release, seen: Probe | None = None) -> Sent:
    """Bring a release to the device and make it the current one.

    The current release stays whole and current until the new one is complete and verified on the
    device. A connection that breaks is made anew and the upload goes on where it stopped. With what
    the preflight has `seen`, engines that were built by hand in a release are kept for its models.

    Raises:
        JetsonError: with the remedy; what was sent stays there and need not be sent again.
    """
    sent = Sent()
    patience = session.remote.reconnect_timeout_s
    session.persist(
        lambda: _push_once(session, release, seen, sent), patience, progress=lambda: sent.bytes
    )
    return sent


def _push_once(session: Session, release: Release, seen: Probe | None, sent: Sent) -> None:
    device = _state(session, release.digest)
    if device.current == release.digest and _complete(release, device.current_files):
        log.info("%s: release %s is there already", session.remote.name, release.digest)
        return
    if _complete(release, device.wanted_files):
        _script(session, "activate", release.digest)
        log.info("%s: back to release %s, nothing to send", session.remote.name, release.digest)
        return
    there = {
        digest: f"{folder}/{path}"
        for folder, files in (
            (f"releases/{release.digest}", device.wanted_files),
            # By its own name: another push may let `current` point elsewhere meanwhile.
            (f"releases/{device.current}", device.current_files),
        )
        for path, (digest, _) in files.items()
    }
    blobs = {file.sha256: file for file in release.files}
    missing = [file for digest, file in blobs.items() if digest not in there]
    _send(session, device, missing, sent)
    plan = "\n".join(
        f"{file.mode:o}\t{file.sha256}\t"
        f"{there.get(file.sha256, f'incoming/{file.sha256}')}\t{file.path}"
        for file in release.files
    )
    engines = "\n".join(
        "\t".join(case.engine_on(seen.model, seen.tensorrt)) for case in release.cases if seen
    )
    installed = _script(session, "install", release.digest, plan, engines)
    log.info("%s: release %s is complete and current", session.remote.name, release.digest)
    if "left" in installed:
        log.info(
            "%s: an older release was removed, but for files that somebody else left in %s/%s",
            session.remote.name,
            device.root,
            installed["left"],
        )


def _state(session: Session, digest: str) -> OnDevice:
    remote = session.remote
    found = facts(session.run(device_script("common", "state"), remote.folder, digest))
    if "benchmark" in found:
        raise JetsonError(
            f"{remote.name}: benchmark {found['benchmark']} is running there; wait for its end "
            "(it would be disturbed), then push again"
        )
    device = OnDevice(found["root"], found["current"], int(found["disk_kb"] or 0) * 1024)
    kinds = {
        "incoming": device.incoming,
        "current": device.current_files,
        "wanted": device.wanted_files,
    }
    for key, value in found.items():
        if key.startswith("file:"):
            _, kind, path = key.split(":", 2)
            checksum, size = value.split()
            kinds[kind][path] = (checksum, int(size))
    return device


def _complete(release: Release, files: dict[str, tuple[str, int]]) -> bool:
    return all(files.get(file.path, ("",))[0] == file.sha256 for file in release.files)


def _send(session: Session, device: OnDevice, files: list[File], sent: Sent) -> None:
    files = [file for file in files if device.incoming.get(file.sha256, ("",))[0] != file.sha256]
    offsets = {file.sha256: _resumable(file, device) for file in files}
    total = sum(file.size - offsets[file.sha256] for file in files)
    if not files:
        return
    if total > device.free_bytes:
        raise JetsonError(
            f"{session.remote.name}: {total / 2**20:.1f} MB are to be sent but {device.root} has "
            f"{device.free_bytes / 2**20:.1f} MB free; make room or set another folder"
        )
    with _Progress(session.remote.name, total) as progress:
        for file in files:
            offset = offsets[file.sha256]
            sent.resumed_bytes += offset
            _upload(session, device, file, offset, progress, sent)
            sent.files += 1


def _resumable(file: File, device: OnDevice) -> int:
    """Return how many bytes of an upload that broke are good: the device's digest must agree."""
    digest, size = device.incoming.get(f"{file.sha256}.part", ("", 0))
    if not 0 < size <= file.size:
        return 0
    with _opened(file) as source:
        return size if hashlib.sha256(source.read(size)).hexdigest() == digest else 0


def _upload(
    session: Session, device: OnDevice, file: File, offset: int, progress: "_Progress", sent: Sent
) -> None:
    final = posixpath.join(device.root, "incoming", file.sha256)
    part = f"{final}.part"
    try:
        with session.sftp() as sftp, _opened(file) as source:
            source.seek(offset)
            with sftp.open(part, "r+b" if offset else "wb") as target:
                target.chmod(file.mode)
                _copy(source, target, offset, progress, sent)
            # The answers to the last writes are not looked at when a pipelined file is closed.
            if sftp.stat(part).st_size != file.size:
                raise OSError(errno.EIO, "not all bytes arrived")
            sftp.posix_rename(part, final)
    except OSError as error:
        raise JetsonError(_full_disk(session, device, file, error)) from error


def _copy(
    source: BinaryIO, target: paramiko.SFTPFile, offset: int, progress: "_Progress", sent: Sent
) -> None:
    target.seek(offset)
    target.set_pipelined(True)
    while chunk := source.read(CHUNK):
        target.write(chunk)
        sent.bytes += len(chunk)
        progress.update(len(chunk))


def _full_disk(session: Session, device: OnDevice, file: File, error: OSError) -> str:
    """Tell why a write failed: SFTP says no more than "Failure" where the disk is full."""
    name = session.remote.name
    try:
        free = _state(session, "none").free_bytes
    except RemoteScriptError as unwritable:
        return f"{unwritable}; is {device.root} writable?"
    if error.errno == errno.ENOENT and error.filename is None:
        return (
            f"{name}: another push came to its end and cleared {device.root}/incoming while "
            f"{file.path} was sent; push again"
        )
    if free < file.size:
        return (
            f"{name}: the disk of {device.root} is full ({free / 2**20:.1f} MB free) while "
            f"{file.path} was sent; make room and push again, it goes on from there"
        )
    return f"{name}: cannot write {file.path} to {device.root}/incoming: {error}"


def _script(session: Session, name: str, digest: str, *arguments: str) -> dict[str, str]:
    script = device_script("common", "engines", name)
    folder = session.remote.folder
    return facts(session.run(script, folder, digest, *arguments, timeout=INSTALL_TIMEOUT_S))


@contextlib.contextmanager
def _opened(file: File) -> Iterator[BinaryIO]:
    if isinstance(file.content, Path):
        with file.content.open("rb") as source:
            yield source
    else:
        yield io.BytesIO(file.content)


class _Progress:
    """A bar on a terminal, a line every so often in a log; a context manager."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.begun = self.reported = time.monotonic()
        self.bar = tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=not draws_bars())

    def __enter__(self) -> "_Progress":
        log.info("%s: sending %.1f MB", self.name, self.total / 2**20)
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.bar.close()
        took = max(time.monotonic() - self.begun, 1e-3)
        if kind is None:
            log.info("%s: sent %.1f MB in %.1f s", self.name, self.done / 2**20, took)

    def update(self, count: int) -> None:
        """Count bytes that were handed to the connection."""
        self.done += count
        self.bar.update(count)
        if time.monotonic() - self.reported >= REPORT_EVERY_S:
            self.reported = time.monotonic()
            log.info("%s: %.1f of %.1f MB", self.name, self.done / 2**20, self.total / 2**20)
