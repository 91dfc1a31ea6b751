"""The keys that a client offers to a host: files, and those of an agent."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.auth_strategy import AuthStrategy, InMemoryPrivateKey, OnDiskPrivateKey

from jetson.ssh_config import Endpoint

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
log = logging.getLogger(__name__)


class Keys(AuthStrategy):
    """The keys to offer, as OpenSSH orders them: the named files, the agent, the usual files."""

    def __init__(self, endpoint: Endpoint, config: paramiko.SSHConfig) -> None:
        super().__init__(config)
        self.endpoint = endpoint
        self.locked: list[str] = []
        self.offered: list[str] = []

    def get_sources(self) -> Iterator[InMemoryPrivateKey | OnDiskPrivateKey]:
        """Yield each key once; note the files that cannot be opened without a passphrase."""
        user = self.endpoint.user
        agent = {key.asbytes(): key for key in _agent_keys(self.endpoint.identity_agent)}
        for name in self.endpoint.identity_files:
            path = Path(name)
            in_agent = agent.pop(_public_half(path), None)
            if in_agent is not None:
                self.offered.append(f"{path} (agent)")
                yield InMemoryPrivateKey(user, in_agent)
            elif (key := self._load(path)) is not None:
                yield OnDiskPrivateKey(user, "ssh-config", path, key)
        if self.endpoint.identities_only:
            return
        for key in agent.values():
            self.offered.append(f"{key.comment or key.get_name()} (agent)")
            yield InMemoryPrivateKey(user, key)
        for name in DEFAULT_KEYS:
            path = Path.home() / ".ssh" / name
            if str(path) not in self.endpoint.identity_files and (key := self._load(path)):
                yield OnDiskPrivateKey(user, "implicit-home", path, key)

    def _load(self, path: Path) -> paramiko.PKey | None:
        try:
            key = paramiko.PKey.from_path(path)
        except FileNotFoundError:
            return None
        except (TypeError, paramiko.PasswordRequiredException):
            # cryptography raises TypeError for a key with a passphrase.
            self.locked.append(str(path))
            return None
        except UnsupportedAlgorithm as error:
            # The key of a security token (ed25519-sk): the agent signs with it, a file cannot.
            log.warning("%s: %s; skipped, ssh-add offers it by the agent", path, error)
            return None
        except (ValueError, OSError, paramiko.SSHException) as error:
            log.warning("%s: not a private key that can be read (%s); skipped", path, error)
            return None
        self.offered.append(str(path))
        return key


def _agent_keys(socket_path: str | None) -> tuple[paramiko.AgentKey, ...]:
    """The keys of the agent that IdentityAgent names, or of the usual one; none for `none`."""
    if socket_path is None or socket_path == "SSH_AUTH_SOCK":
        return paramiko.Agent().get_keys()
    if socket_path.lower() == "none":
        return ()
    # Paramiko knows the variable only, which it reads when it connects.
    usual = os.environ.get("SSH_AUTH_SOCK")
    path = Path(os.path.expandvars(socket_path.strip('"'))).expanduser()
    os.environ["SSH_AUTH_SOCK"] = str(path)
    try:
        return paramiko.Agent().get_keys()
    finally:
        if usual is None:
            del os.environ["SSH_AUTH_SOCK"]
        else:
            os.environ["SSH_AUTH_SOCK"] = usual


def _public_half(path: Path) -> bytes | None:
    """The public key beside an identity file, or in it: OpenSSH takes either as a name."""
    for file in (f"{path}.pub", path):
        with contextlib.suppress(OSError, ValueError):
            return paramiko.PublicBlob.from_file(file).key_blob
    return None
