"""An SSH session with a device: verified host keys, keys or agent, jump hosts, scripts by pipe."""

import contextlib
import logging
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import paramiko
from paramiko.auth_strategy import AuthFailure

from jetson import known_hosts, ssh_config
from jetson.client_keys import Keys
from jetson.errors import (
    AuthenticationError,
    ConnectionLost,
    JetsonError,
    RemoteScriptError,
)
from jetson.settings import Remote
from jetson.ssh_config import Endpoint

DEVICE_SCRIPTS = Path(__file__).parent / "device"
# Reads the whole script before anything runs. The braces that `run` puts around it turn a script
# that a broken connection cut short into a syntax error instead of half a job.
SHELL = """exec /bin/sh -c 'eval "$(cat)"'"""
KEEPALIVE_S = 10
SCRIPT_TIMEOUT_S = 120
SSH_LOG = "jetson.ssh"
# GCM authenticates in the same pass, which halves the time of a large push; the CBC ciphers
# of old are left out.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)

log = logging.getLogger(__name__)
# Paramiko logs a traceback for each broken connection; here they are expected and reported once.
logging.getLogger(SSH_LOG).setLevel(logging.CRITICAL + 1)
T = TypeVar("T")


class _Verifier(paramiko.MissingHostKeyPolicy):
    """Checks every host key; the client itself is given no known keys, so it always asks here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.entries = known_hosts.read(endpoint.known_hosts)

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        """Raise HostKeyError unless the key is the known one."""
        known_hosts.verify(
            self.entries,
            *self.endpoint.known_as,
            key,
            self.endpoint.user_known_hosts[0],
        )

    def transport(self, *args: object, **kwargs: object) -> paramiko.Transport:
        """Make a transport that asks the host for a kind of key that can be compared."""
        transport = paramiko.Transport(*args, **kwargs)
        security = transport.get_security_options()
        security.ciphers = CIPHERS
        name = known_hosts.lookup_name(*self.endpoint.known_as)
        security.key_types = known_hosts.preferred_types(self.entries, name, security.key_types)
        return transport


class Session:
    """A connection to one device that can be made anew after it broke; a context manager."""

    def __init__(self, remote: Remote, *, config_file: Path | None = None) -> None:
        self.remote = remote
        self.config = ssh_config.load(config_file)
        self.endpoint = ssh_config.resolve(
            self.config,
            remote.host,
            user=remote.user,
            port=remote.port,
            identity_file=remote.identity_file,
            jump_host=remote.jump_host,
        )
        if remote.identity_file and not Path(self.endpoint.identity_files[0]).is_file():
            raise JetsonError(
                f"deploy.devices.{remote.name}.identity_file: {remote.identity_file} does not "
                "exist; make one with: ssh-keygen -t ed25519"
            )
        self._clients: list[paramiko.SSHClient] = []
        self._sftp: paramiko.SFTPClient | None = None

    def __enter__(self) -> Self:
        if not self.connected:
            self.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        transport = self._clients[-1].get_transport() if self._clients else None
        return transport is not None and transport.is_active()

    def close(self) -> None:
        """Close the connection and those to its jump hosts."""
        self._sftp = None
        while self._clients:
            self._clients.pop().close()

    def connect(self) -> None:
        """Connect, through jump hosts where there are any.

        Raises:
            HostKeyError, AuthenticationError, ConnectionLost: with the remedy.
        """
        self.close()
        try:
            self._connect(self.endpoint, depth=0)
        except BaseException:
            self.close()
            raise

    def _connect(self, endpoint: Endpoint, depth: int) -> None:
        if depth > 8:
            raise JetsonError(f"{self.endpoint.alias}: jump hosts in a circle; see ~/.ssh/config")
        for hop in endpoint.jumps:
            way = ssh_config.resolve(self.config, hop)
            if hop != endpoint.jumps[0]:
                way = ssh_config.without_jumps(way)
            self._connect(way, depth + 1)
        self._clients.append(self._open(endpoint))

    def _open(self, endpoint: Endpoint) -> paramiko.SSHClient:
        timeout = self.remote.connect_timeout_s
        verifier = _Verifier(endpoint)
        keys = Keys(endpoint, self.config)
        client = paramiko.SSHClient()
        client.set_log_channel(SSH_LOG)
        client.set_missing_host_key_policy(verifier)
        try:
            client.connect(
                endpoint.host,
                endpoint.port,
                endpoint.user,
                sock=self._way_to(endpoint),
                timeout=timeout,
                banner_timeout=timeout,
                auth_timeout=timeout,
                channel_timeout=timeout,
                transport_factory=verifier.transport,
                auth_strategy=keys,
            )
        except AuthFailure as failure:
            transport = client.get_transport()
            alive = transport is not None and transport.is_active()
            client.close()
            if not alive and keys.offered:
                raise ConnectionLost(
                    f"{self.remote.name}: {endpoint} closed the connection while keys were tried "
                    f"({', '.join(keys.offered)}); name the right one in identity_file"
                ) from failure
            raise AuthenticationError(self._refusal(endpoint, keys)) from failure
        except JetsonError:
            client.close()
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            raise ConnectionLost(self._unreachable(endpoint, error)) from error
        client.get_transport().set_keepalive(KEEPALIVE_S)
        return client

    def _way_to(self, endpoint: Endpoint) -> paramiko.Channel | paramiko.ProxyCommand | None:
        if self._clients:
            transport = self._clients[-1].get_transport()
            address = (endpoint.host, endpoint.port)
            return transport.open_channel(
                "direct-tcpip", address, ("127.0.0.1", 0), timeout=self.remote.connect_timeout_s
            )
        if endpoint.proxy_command and endpoint.proxy_command.lower() != "none":
            return paramiko.ProxyCommand(endpoint.proxy_command)
        return None

    def _refusal(self, endpoint: Endpoint, keys: Keys) -> str:
        refused = f"{self.remote.name}: {endpoint} does not let user {endpoint.user} in"
        if keys.locked and not keys.offered:
            locked = keys.locked[0]
            return f"{refused}: {locked} needs its passphrase; run: ssh-add '{locked}'"
        tried = ", ".join(keys.offered) or "no key found"
        return (
            f"{refused} (tried: {tried}); is the user right? If so, put your key there with: "
            f"ssh-copy-id -p {endpoint.port} {endpoint.user}@{endpoint.host}"
        )

    def _unreachable(self, endpoint: Endpoint, error: Exception) -> str:
        where = f"{self.remote.name}: {endpoint}"
        if self._clients:
            where += f" by way of {self._clients[-1].get_transport().getpeername()[0]}"
        if isinstance(error, socket.gaierror):
            return (
                f"{where}: no such host; correct deploy.devices.{self.remote.name}.host or "
                "~/.ssh/config"
            )
        if isinstance(error, TimeoutError):
            return (
                f"{where}: no answer within {self.remote.connect_timeout_s:g} s; is the device "
                "switched on and on this network?"
            )
        if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
            causes = {str(cause.strerror or cause) for cause in error.errors.values()}
            return (
                f"{where}: {', '.join(sorted(causes))}; is it switched on, is sshd running there?"
            )
        return f"{where}: {str(error) or type(error).__name__}; is an SSH server listening there?"

    def run(self, script: str, *arguments: object, timeout: float = SCRIPT_TIMEOUT_S) -> str:
        """Run a POSIX sh script on the device and return its standard output.

        The script travels by pipe and the arguments as quoted words in it, so no shell in between
        ever parses them. `timeout` is the longest silence in seconds.

        Raises:
            ConnectionLost: the connection broke; whether the script ran is not known.
            RemoteScriptError: the script ended with another status than 0.
        """
        words = " ".join(shlex.quote(str(argument)) for argument in arguments)
        text = f"{{\nset -- {words}\n{script}\n}}\n"
        with self._guarded("running a script"):
            channel = self._transport().open_session(timeout=timeout)
            channel.settimeout(timeout)
            channel.exec_command(SHELL)
            with contextlib.suppress(OSError):
                # A login shell that refuses ends before it reads; its message is what counts.
                channel.sendall(text.encode())
                channel.shutdown_write()
            output = channel.makefile("rb").read().decode(errors="replace")
            complaint = channel.makefile_stderr("rb").read().decode(errors="replace")
            status = channel.recv_exit_status()
            channel.close()
        if status == -1:
            raise ConnectionLost(f"{self.remote.name}: the connection broke while running a script")
        if status != 0:
            reason = " ".join((complaint or output).split())[-400:] or "no message"
            raise RemoteScriptError(f"{self.remote.name}: {reason} (exit status {status})")
        return output

    @contextlib.contextmanager
    def sftp(self) -> Iterator[paramiko.SFTPClient]:
        """Give the session's SFTP client; a connection that breaks meanwhile is ConnectionLost."""
        with self._guarded("transferring files"):
            if self._sftp is None:
                try:
                    self._sftp = self._transport().open_sftp_client()
                except (paramiko.SFTPError, EOFError) as error:
                    if not self.connected:
                        raise
                    raise JetsonError(
                        f"{self.remote.name}: SFTP does not start ({error}); does sshd have its "
                        "sftp subsystem, and is the login shell's start-up file silent?"
                    ) from error
                self._sftp.get_channel().settimeout(SCRIPT_TIMEOUT_S)
            yield self._sftp

    def _transport(self) -> paramiko.Transport:
        if not self.connected:
            raise ConnectionLost(f"{self.remote.name}: not connected")
        return self._clients[-1].get_transport()

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            yield
        except JetsonError:
            raise
        except (paramiko.SSHException, EOFError, TimeoutError, OSError) as error:
            # A plain OSError is about a file, unless it is the socket that it complains of.
            broken = isinstance(error, (paramiko.SSHException, EOFError, TimeoutError))
            if not broken and self.connected and "Socket is closed" not in str(error):
                raise
            self.close()
            reason = str(error) or type(error).__name__
            raise ConnectionLost(
                f"{self.remote.name}: the connection broke while {doing} ({reason})"
            ) from error

    def persist(
        self,
        action: Callable[[], T],
        patience_s: float,
        *,
        progress: Callable[[], object] = lambda: None,
    ) -> T:
        """Do something that may be repeated, connecting anew when the connection breaks.

        Gives up after `patience_s` seconds in which `progress()` told nothing new. Waits grow from
        1 s to 30 s. Refusals (host key, user) are not waited out.
        """
        wait, before = 1.0, progress()
        deadline = time.monotonic() + patience_s
        while True:
            try:
                if not self.connected:
                    self.connect()
                return action()
            except ConnectionLost as lost:
                self.close()
                if progress() != before:
                    wait, before = 1.0, progress()
                    deadline = time.monotonic() + patience_s
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                wait = min(wait, left)
                log.info("%s; trying again in %.0f s", lost, wait)
                time.sleep(wait)
                wait = min(2 * wait, 30.0)


def device_script(*names: str) -> str:
    """Return the on-device sh scripts of these names, one after the other."""
    return "\n".join((DEVICE_SCRIPTS / f"{name}.sh").read_text() for name in names)


def facts(output: str) -> dict[str, str]:
    """Read the `@key<TAB>value` lines of a device script, past whatever else was printed."""
    pairs = (line[1:].split("\t", 1) for line in output.splitlines() if line.startswith("@"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
