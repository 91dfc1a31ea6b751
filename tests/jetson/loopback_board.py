"""A board on loopback: a real sshd with its own host key, home, board files and programs."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from jetson.session import Session
from jetson.settings import Remote

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
PROGRAMS = Path(__file__).parent / "programs"
NANO = "NVIDIA Jetson Nano Developer Kit"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", path],
        check=True,
    )
    return path


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process is more than a zombie that nobody has waited for yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Board:
    """One sshd and the folders that make up the device behind it."""

    folder: Path
    client_home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    def __post_init__(self) -> None:
        self.home = self.folder / "home of the board"
        self.system = self.folder / "system"
        self.programs = self.folder / "programs"
        self.ssh = self.client_home / ".ssh"
        for path in (self.home, self.system, self.programs, self.ssh):
            path.mkdir(parents=True)
        self.known_hosts = self.ssh / "known_hosts"
        self.host_key = make_key(self.folder / "host_key")
        self.client_key = make_key(self.ssh / "id_board")
        (self.folder / "authorized_keys").write_text(
            self.client_key.with_suffix(".pub").read_text()
        )
        self.become(NANO)
        self.boot("boot-1")
        for program in PROGRAMS.iterdir():
            self.install(program.name, program.read_text())
        self.trust(self.port)
        self.write_ssh_config()

    def become(self, model: str, l4t: str = "# R32 (release), REVISION: 7.6, GCID: 1") -> None:
        """Set the board's identity."""
        (self.system / "proc/device-tree").mkdir(parents=True, exist_ok=True)
        (self.system / "proc/device-tree/model").write_bytes(model.encode() + b"\0")
        (self.system / "etc").mkdir(exist_ok=True)
        (self.system / "etc/nv_tegra_release").write_text(l4t + "\n")
        (self.system / "proc/meminfo").write_text(
            "MemTotal:        4059392 kB\nMemAvailable:    3000000 kB\n"
        )
        uptime = self.system / "proc/uptime"
        if not uptime.exists():
            uptime.symlink_to("/proc/uptime")

    def boot(self, boot_id: str) -> None:
        """Set the id of this boot."""
        path = self.system / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{boot_id}\n")

    def install(self, name: str, text: str) -> Path:
        """Put a program on the PATH of the board."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def trust(self, port: int, host_key: Path | None = None) -> None:
        """Add the host key to the client's known_hosts."""
        public = (host_key or self.host_key).with_suffix(".pub").read_text()
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {public}")

    def write_ssh_config(self, extra: str = "", port: int | None = None) -> None:
        """Make the alias `board` in the client's ~/.ssh/config."""
        (self.ssh / "config").write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {port or self.port}\n"
            f"  User {getpass.getuser()}\n  IdentityFile {self.client_key}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.known_hosts}\n{extra}"
        )

    def start(self) -> None:
        """Start sshd and wait until it answers."""
        config = self.folder / "sshd_config"
        path = f"{self.programs}:/usr/local/bin:/usr/bin:/bin"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.host_key}\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nMaxAuthTries 20\n"
            f'SetEnv "PATH={path}" "JETSON_ROOT={self.system}" "HOME={self.home}" DISPLAY=:0\n'
        )
        if os.getuid() == 0:
            # sshd started by root insists on this folder, which its service otherwise makes.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "sshd.log").open("a") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._listens():
                return
            time.sleep(0.02)
        pytest.fail(f"sshd did not start: {(self.folder / 'sshd.log').read_text()}")

    def stop(self) -> None:
        """End sshd, its connections, and everything that was started through it."""
        if self.process is not None:
            connections = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            self.process = None
            deadline = time.monotonic() + 5
            # What is killed may just have started something else.
            while alive := [p for p in (*connections, *self.processes()) if _runs(p)]:
                assert time.monotonic() < deadline, alive
                for process in alive:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                time.sleep(0.01)
            # A child that sshd had just made listens as well until it ends.
            while self._listens():
                assert time.monotonic() < deadline, f"port {self.port} still answers"
                time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on the board."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("JETSON_ROOT") == str(self.system):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def settle(self) -> None:
        """Wait until no connection is open any more."""
        server = psutil.Process(self.process.pid)
        deadline = time.monotonic() + 10
        while any(map(_runs, server.children())) and time.monotonic() < deadline:
            time.sleep(0.02)

    def reboot(self) -> None:
        """Cut the power and come up again."""
        self.stop()
        self.boot(f"boot-{time.monotonic()}")
        self.start()

    def remote(self, **settings: object) -> Remote:
        """Make the settings of a device that is this board."""
        return Remote.from_config("nano", self.section(**settings))

    def section(self, **settings: object) -> dict[str, object]:
        """Make the config section of a device that is this board."""
        clip = self.folder / "clip.mp4"
        clip.touch()
        section: dict[str, object] = {
            "host": "board",
            "folder": "face mask",
            "clip": str(clip),
            "connect_timeout_s": 20,
            "reconnect_timeout_s": 60,
            "min_free_memory_mb": 100,
            "min_free_disk_mb": 1,
            "warm_up_s": 1,
            "duration_s": 2,
            "engine_timeout_s": 60,
            "stop_timeout_s": 3,
        }
        return {**section, **settings}

    def session(self, **settings: object) -> Session:
        """Make a session with this board."""
        return Session(self.remote(**settings))

    @property
    def root(self) -> Path:
        """The folder of the releases."""
        return self.home / "face mask"


class CuttingProxy:
    """Forwards TCP connections to a port and cuts them when told to."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.connections = 0
        self.cut_after: int | None = None
        self.on_cut = lambda: None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self) -> None:
        """Let nobody in any more."""
        with contextlib.suppress(OSError):
            # Closing alone would leave the thread in accept() with an open port.
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def close(self) -> None:
        """Let nobody in and cut what is open."""
        self.refuse()
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        while self.open:
            one = self.open.pop()
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self.target))
            self.open += [client, server]
            budget, self.cut_after = self.cut_after, None
            for source, sink, limit in ((client, server, budget), (server, client, None)):
                threading.Thread(target=self._copy, args=(source, sink, limit), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(16384):
                sink.sendall(data)
                passed += len(data)
                if limit is not None and passed > limit:
                    self.on_cut()
                    break
        except OSError:
            pass
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
