"""Connections to a real sshd: who is let in, who is refused, and what the refusal says."""

import base64
import socket
import subprocess

import pytest
from jetson.errors import AuthenticationError, ConnectionLost, HostKeyError, JetsonError
from jetson.session import Session
from jetson.settings import Remote

from .loopback_board import free_port, make_key


def refusal(board, kind, **settings) -> str:
    with pytest.raises(kind) as caught:
        board.session(**settings).connect()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_arguments_arrive_as_they_are(board):
    words = ["a blank", "it's", '"$HOME" `id` $(id)', "", "*", "-n", "zwei\nZeilen"]
    with board.session() as session:
        output = session.run("""for word in "$@"; do printf '<%s>' "$word"; done""", *words)
    assert output == "".join(f"<{word}>" for word in words)


def test_a_script_cut_short_does_nothing(board):
    """What a broken connection leaves of a script must not run."""
    with board.session() as session:
        channel = session._transport().open_session()
        channel.exec_command("""exec /bin/sh -c 'eval "$(cat)"'""")
        channel.sendall(b"{\ntouch half-done\n")
        channel.shutdown_write()
        assert channel.recv_exit_status() != 0
        assert session.run("ls half-done 2>/dev/null || echo none") == "none\n"


def test_a_script_that_fails_is_one_line(board):
    with board.session() as session, pytest.raises(JetsonError) as caught:
        session.run("echo first >&2; echo second >&2; exit 3")
    assert str(caught.value) == "nano: first second (exit status 3)"


def test_unknown_host_key_is_refused_with_the_command_that_adds_it(board):
    board.known_hosts.write_text("")
    message = refusal(board, HostKeyError)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", board.host_key], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    assert "unknown host key" in message and shown in message
    command = message.rpartition("add it with: ")[2]
    # The key itself: what another look at the network brings may be another key.
    public = " ".join(board.host_key.with_suffix(".pub").read_text().split()[:2])
    assert command == f"echo '[127.0.0.1]:{board.port} {public}' >> '{board.known_hosts}'"
    subprocess.run(command, shell=True, check=True, capture_output=True)
    with board.session() as session:
        assert session.run("echo in") == "in\n"


def test_changed_host_key_is_refused_and_nothing_is_sent(board, tmp_path):
    board.known_hosts.write_text("")
    board.trust(board.port, make_key(tmp_path / "another_host_key"))
    message = refusal(board, HostKeyError)
    assert "CHANGED" in message and "Somebody may be in between" in message
    assert f"ssh-keygen -f '{board.known_hosts}' -R '[127.0.0.1]:{board.port}'" in message
    assert f"{board.known_hosts}:1" in message
    assert "Accepted" not in (board.folder / "sshd.log").read_text()


def test_revoked_host_key_is_refused_though_it_is_known(board):
    revoked = board.host_key.with_suffix(".pub").read_text()
    with board.known_hosts.open("a") as file:
        file.write(f"@revoked * {revoked}")
    assert "revoked" in refusal(board, HostKeyError)


def test_hashed_known_hosts_are_understood(board):
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", board.known_hosts], check=True)
    assert "127.0.0.1" not in board.known_hosts.read_text()
    with board.session() as session:
        assert session.connected


def test_host_key_alias(board):
    """Boards that take turns at one address have their keys listed by name."""
    board.write_ssh_config(extra="  HostKeyAlias nano-on-the-desk\n")
    assert "nano-on-the-desk: unknown host key" in refusal(board, HostKeyError)
    public = board.host_key.with_suffix(".pub").read_text()
    board.known_hosts.write_text(f"nano-on-the-desk {public}")
    with board.session() as session:
        assert session.run("echo in") == "in\n"


def test_known_key_of_another_kind_is_asked_for(board):
    """A host with several keys must show the one that is known."""
    ecdsa = board.folder / "host_key_ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", ecdsa], check=True)
    board.stop()
    board.host_key.rename(board.folder / "first")
    config_key = board.host_key
    config_key.write_bytes(ecdsa.read_bytes() + (board.folder / "first").read_bytes())
    board.host_key = board.folder / "first"
    (board.folder / "first").chmod(0o600)
    board.start()
    with board.session() as session:
        assert session.connected


def test_wrong_user(board):
    message = refusal(board, AuthenticationError, user="nobody-here")
    assert "does not let user nobody-here in" in message
    assert f"ssh-copy-id -p {board.port} nobody-here@127.0.0.1" in message


def test_wrong_key(board):
    other = make_key(board.ssh / "id_other")
    message = refusal(board, AuthenticationError, identity_file=str(other))
    assert f"tried: {other}" in message


def test_key_with_passphrase_and_no_agent(board):
    locked = make_key(board.ssh / "id_locked", "secret")
    message = refusal(board, AuthenticationError, identity_file=str(locked))
    assert f"needs its passphrase; run: ssh-add '{locked}'" in message


@pytest.mark.parametrize("named_by", ["SSH_AUTH_SOCK", "IdentityAgent", "public half"])
def test_key_with_passphrase_from_the_agent(board, monkeypatch, tmp_path, named_by):
    locked = make_key(board.ssh / "id_locked", "secret")
    (board.folder / "authorized_keys").write_text(locked.with_suffix(".pub").read_text())
    sock = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    try:
        if named_by == "IdentityAgent":
            monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
            with (board.ssh / "config").open("a") as config:
                config.write(f'\nHost *\nIdentityAgent "{sock}"\n')
        else:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        asking = board.folder / "askpass"
        asking.write_text("#!/bin/sh\necho secret\n")
        asking.chmod(0o755)
        while not sock.exists():
            assert agent.poll() is None
        subprocess.run(
            ["ssh-add", "-q", locked],
            env={
                "SSH_AUTH_SOCK": str(sock),
                "SSH_ASKPASS": str(asking),
                "SSH_ASKPASS_REQUIRE": "force",
                "PATH": "/usr/bin:/bin",
            },
            check=True,
            stderr=subprocess.DEVNULL,
        )
        if named_by == "public half":
            # As for a key that never leaves its agent.
            locked.unlink()
            locked = locked.with_suffix(".pub")
        with board.session(identity_file=str(locked)) as session:
            assert session.connected
    finally:
        agent.terminate()
        agent.wait()


def test_key_of_a_security_token_is_passed_over(board, caplog):
    """`Host *` of many people names one; the key file beside it must do."""
    token = board.ssh / "id_ed25519_sk"
    token.write_bytes(token_key())
    board.write_ssh_config(f"Host *\n  IdentityFile {token}\n")
    with board.session() as session:
        assert session.connected
    config = board.ssh / "config"
    config.write_text(config.read_text().replace(str(board.client_key), str(token)))
    assert "tried: no key found" in refusal(board, AuthenticationError)
    assert f"{token}: " in caplog.text and "skipped, ssh-add offers it" in caplog.text


def token_key() -> bytes:
    """Make a private key file whose key stays in a token (OpenSSH's PROTOCOL.key, PROTOCOL.u2f)."""

    def text(content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + content

    public = text(b"sk-ssh-ed25519@openssh.com") + text(bytes(32)) + text(b"ssh:")
    private = bytes(8) + public + b"\1" + text(bytes(64)) + text(b"") + text(b"token")
    private += bytes(range(1, 1 + -len(private) % 8))
    blob = b"openssh-key-v1\0" + text(b"none") + text(b"none") + text(b"") + (1).to_bytes(4, "big")
    lines = base64.encodebytes(blob + text(public) + text(private)).decode()
    kind = "OPENSSH PRIVATE KEY"
    return f"-----BEGIN {kind}-----\n{lines}-----END {kind}-----\n".encode()


def test_missing_identity_file(board):
    with pytest.raises(JetsonError, match=r"identity_file: /none does not exist"):
        board.session(identity_file="/none")


def test_dead_host_refuses(board):
    message = refusal(board, ConnectionLost, host=f"127.0.0.1:{free_port()}")
    assert "Connection refused" in message and "is sshd running there?" in message


def test_host_that_is_silent(board):
    """A device that hangs takes the connection but never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = refusal(board, ConnectionLost, host=f"127.0.0.1:{port}", connect_timeout_s=0.3)
    assert "is an SSH server listening there?" in message or "no answer within" in message


def test_unknown_name(board):
    message = refusal(board, ConnectionLost, host="no-such-board.invalid")
    assert "no such host" in message


def test_settings_win_over_ssh_config(board):
    board.write_ssh_config(port=free_port())
    with board.session(port=board.port) as session:
        assert session.endpoint.port == board.port


def test_jump_host(board):
    """The way to the board goes through another host, whose key is verified like any other."""
    board.write_ssh_config(
        f"Host behind\n  HostName 127.0.0.1\n  Port {board.port}\n  ProxyJump board\n"
        f"  IdentityFile {board.client_key}\n  UserKnownHostsFile {board.known_hosts}\n"
    )
    with board.session(host="behind") as session:
        assert len(session._clients) == 2
        assert session.run("echo through") == "through\n"
    with board.session(
        host=f"127.0.0.1:{board.port}", jump_host="board", identity_file=str(board.client_key)
    ) as session:
        assert len(session._clients) == 2


def test_jump_host_with_unknown_key(board):
    board.known_hosts.write_text("")
    message = refusal(board, HostKeyError, jump_host="board")
    assert "unknown host key" in message


def test_connection_is_made_anew(board, proxy):
    with board.session() as session:
        assert session.run("echo one") == "one\n"
        proxy.cut()
        assert session.persist(lambda: session.run("echo two"), patience_s=10) == "two\n"
    assert proxy.connections == 2


def test_persistence_ends_without_progress(board):
    session = Session(Remote("nano", f"127.0.0.1:{free_port()}", connect_timeout_s=1))
    with pytest.raises(ConnectionLost):
        session.persist(lambda: session.run("true"), patience_s=0.1)


def test_script_of_a_dying_connection_is_a_lost_connection(board, proxy):
    with board.session() as session:
        session.run("true")
        proxy.cut()
        with pytest.raises(ConnectionLost):
            session.run("echo never")
