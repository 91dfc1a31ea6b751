"""Host key verification against OpenSSH's known_hosts files (format: sshd(8))."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from paramiko.pkey import PKey

from jetson.errors import HostKeyError

# known_hosts calls every RSA key ssh-rsa; the handshake names the signature instead.
RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True)
class Entry:
    """One line of a known_hosts file."""

    marker: str
    patterns: tuple[str, ...]
    key_type: str
    key: bytes
    place: str

    def matches(self, name: str) -> bool:
        """Tell whether the line is about `name` (a host, or `[host]:port` off port 22)."""
        found = False
        for pattern in self.patterns:
            if pattern.startswith("|1|"):
                found = found or _hash_matches(pattern, name)
            elif pattern.startswith("!"):
                if _glob_matches(name, pattern[1:]):
                    return False
            else:
                found = found or _glob_matches(name, pattern)
        return found


def _glob_matches(name: str, pattern: str) -> bool:
    # Brackets belong to [host]:port here; only * and ? are special.
    return fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))


def _hash_matches(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def read(paths: Iterable[Path]) -> list[Entry]:
    """Read known_hosts files; a file that is absent holds no keys, a line out of form is skipped.

    A line that cannot be read can only make a host unknown, which refuses it, so skipping is safe.
    """
    entries = []
    for path in paths:
        try:
            text = path.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            marker = words.pop(0) if words[0].startswith("@") else ""
            if len(words) < 3:
                continue
            try:
                key = base64.b64decode(words[2], validate=True)
            except binascii.Error:
                continue
            entries.append(
                Entry(marker, tuple(words[0].split(",")), words[1], key, f"{path}:{number}")
            )
    return entries


def lookup_name(host: str, port: int) -> str:
    """Return the name under which known_hosts lists `host` at `port`, in lower case as by ssh."""
    host = host.lower()
    return host if port == 22 else f"[{host}]:{port}"


def preferred_types(entries: Iterable[Entry], name: str, offered: Sequence[str]) -> list[str]:
    """Order key algorithms so that the host shows a key that can be compared with a known one."""
    known = {entry.key_type for entry in entries if not entry.marker and entry.matches(name)}
    if "ssh-rsa" in known:
        known.update(RSA_SIGNATURES)
    return sorted(offered, key=lambda algorithm: algorithm not in known)


def fingerprint(key: bytes) -> str:
    """Return the key's fingerprint as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def verify(entries: Iterable[Entry], host: str, port: int, key: PKey, file: Path) -> None:
    """Refuse a host whose key is not the known one.

    Args:
        entries: what the known_hosts files say.
        host, port: as connected to.
        key: what the host showed.
        file: the file that a new key belongs into, for the remedy.

    Raises:
        HostKeyError: the key is unknown, differs from the known ones, or is revoked.
    """
    name = lookup_name(host, port)
    blob = key.asbytes()
    shown = f"{key.get_name()} {fingerprint(blob)}"
    about = [entry for entry in entries if entry.matches(name)]
    for entry in about:
        if entry.marker == "@revoked" and entry.key == blob:
            raise HostKeyError(
                f"{name}: its host key {shown} is revoked in {entry.place}; "
                "give the device a new host key and add that"
            )
    known = [entry for entry in about if not entry.marker]
    if any(entry.key == blob for entry in known):
        return
    if known:
        expected = ", ".join(f"{fingerprint(entry.key)} ({entry.place})" for entry in known[:3])
        raise HostKeyError(
            f"{name}: its host key has CHANGED: it shows {shown}, known is {expected}. Somebody "
            "may be in between. Only if the device was flashed anew, remove the old key with: "
            f"ssh-keygen -f '{file}' -R '{name}'"
        )
    raise HostKeyError(
        f"{name}: unknown host key {shown}. Compare it on the device's own screen with: "
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub (or the file of its type); if equal, "
        f"add it with: echo '{name} {key.get_name()} {key.get_base64()}' >> '{file}'"
    )
