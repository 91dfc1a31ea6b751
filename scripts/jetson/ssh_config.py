"""What ~/.ssh/config says about a host: an alias resolved to an address and a way to it."""

import getpass
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import paramiko

from jetson.errors import JetsonError

SYSTEM_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
MAX_INCLUDES = 16  # OpenSSH's own limit of nested files


@dataclass(frozen=True)
class Endpoint:
    """A host to connect to, everything resolved."""

    alias: str
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    user_known_hosts: tuple[Path, ...] = ()
    proxy_command: str | None = None
    jumps: tuple[str, ...] = field(default=())
    host_key_alias: str | None = None
    identity_agent: str | None = None

    @property
    def known_as(self) -> tuple[str, int]:
        """Host and port under which known_hosts lists its key: an alias stands for itself."""
        return (self.host_key_alias, 22) if self.host_key_alias else (self.host, self.port)

    @property
    def known_hosts(self) -> tuple[Path, ...]:
        """The files whose keys count, the user's first."""
        return (*self.user_known_hosts, *SYSTEM_KNOWN_HOSTS)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


def load(path: Path | None = None) -> paramiko.SSHConfig:
    """Read an OpenSSH client config (default ~/.ssh/config), `Include`d files and all.

    Raises:
        JetsonError: the file cannot be understood.
    """
    path = path or Path.home() / ".ssh" / "config"
    try:
        return paramiko.SSHConfig.from_file(io.StringIO("\n".join(_lines(path, 0))))
    except (paramiko.ConfigParseError, OSError) as error:
        raise JetsonError(
            f"{path}: {error}; correct it (ssh -G HOST shows what ssh reads)"
        ) from error


def _lines(path: Path, depth: int) -> list[str]:
    """Return the file's lines with every Include replaced by what it names."""
    if not path.is_file():
        return []
    if depth > MAX_INCLUDES:
        raise JetsonError(f"{path}: Include nested more than {MAX_INCLUDES} deep; remove the cycle")
    lines: list[str] = []
    section = "Host *"
    for line in path.read_text().splitlines():
        words = re.split(r"[\s=]+", line.strip(), maxsplit=1)
        keyword = words[0].lower()
        if keyword in ("host", "match"):
            section = line
        if keyword != "include" or len(words) < 2:
            lines.append(line)
            continue
        for pattern in words[1].replace('"', "").split():
            for included in _included(pattern):
                lines += _lines(included, depth + 1)
        # A Host line in an included file does not reach past it.
        lines.append(section)
    return lines


def _included(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if not path.is_absolute():
        path = Path.home() / ".ssh" / path
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def resolve(
    config: paramiko.SSHConfig,
    target: str,
    *,
    user: str | None = None,
    port: int | None = None,
    identity_file: str | None = None,
    jump_host: str | None = None,
) -> Endpoint:
    """Resolve an alias, name or `[user@]host[:port]`; the named arguments win over the config.

    Raises:
        JetsonError: a value in the config does not fit.
    """
    given_user, alias, given_port = _split(target)
    try:
        options = config.lookup(alias)
        chosen_port = port or given_port or int(options.get("port", 22))
    except (paramiko.ConfigParseError, ImportError, ValueError) as error:
        raise JetsonError(f"host {alias}: ~/.ssh/config: {error}; correct it") from error
    known_hosts = options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    endpoint = Endpoint(
        alias=alias,
        host=options.get("hostname", alias),
        port=chosen_port,
        user=user or given_user or options.get("user", getpass.getuser()),
        identity_files=tuple(f for f in options.get("identityfile", []) if f.lower() != "none"),
        identities_only=options.get("identitiesonly", "no").lower() == "yes",
        user_known_hosts=tuple(_paths(known_hosts)),
        proxy_command=options.get("proxycommand"),
        jumps=_jumps(jump_host or options.get("proxyjump", "none")),
        host_key_alias=options.get("hostkeyalias"),
        identity_agent=options.get("identityagent"),
    )
    if identity_file:
        endpoint = replace(endpoint, identity_files=(str(Path(identity_file).expanduser()),))
    return endpoint


def _split(target: str) -> tuple[str | None, str, int | None]:
    """Take `[user@]host[:port]` apart; an IPv6 address with a port stands in brackets."""
    user, _, rest = target.removeprefix("ssh://").rstrip("/").rpartition("@")
    bracketed = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", rest)
    plain = re.fullmatch(r"([^:]+)(?::(\d+))?", rest)
    found = bracketed or plain
    host, port = found.groups() if found else (rest, None)
    if not host or host.startswith("-") or any(character.isspace() for character in host):
        raise JetsonError(f"host {target!r} does not fit; write NAME, USER@NAME or USER@NAME:PORT")
    return user or None, host, int(port) if port else None


def _paths(words: str) -> list[Path]:
    """Split a list of paths, which may be in double quotes to hold blanks."""
    return [
        Path(quoted or plain).expanduser()
        for quoted, plain in re.findall(r'"([^"]+)"|(\S+)', words)
    ]


def _jumps(text: str) -> tuple[str, ...]:
    if text.lower() == "none":
        return ()
    return tuple(hop.strip() for hop in text.split(",") if hop.strip())


def without_jumps(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint as seen from a host before it, where its own way in does not count."""
    return replace(endpoint, jumps=(), proxy_command=None)
