"""known_hosts and ~/.ssh/config as OpenSSH reads them."""

import getpass
import subprocess

import paramiko
import pytest
from jetson import known_hosts, ssh_config
from jetson.errors import HostKeyError, JetsonError
from paramiko import ECDSAKey


@pytest.fixture(scope="module")
def keys():
    return [ECDSAKey.generate() for _ in range(2)]


def line(names: str, key: paramiko.PKey, marker: str = "") -> str:
    return f"{marker} {names} {key.get_name()} {key.get_base64()} comment\n".lstrip()


def test_a_hashed_name_is_one_in_lower_case(tmp_path, keys):
    # As `ssh-keygen -H` makes of a file that ssh has written.
    file = tmp_path / "known_hosts"
    file.write_text(line("nano.local", keys[0]))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "nano" not in file.read_text()
    known_hosts.verify(known_hosts.read([file]), "Nano.local", 22, keys[0], file)


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("nano", "nano", 22),
        ("NANO", "nano", 22),
        ("other,nano", "nano", 22),
        ("*.lab", "nano.lab", 22),
        ("nano?", "nano1", 22),
        ("[10.0.0.7]:2222", "10.0.0.7", 2222),
        ("[*]:2222", "10.0.0.7", 2222),
    ],
)
def test_a_known_key_is_accepted(tmp_path, keys, names, host, port):
    file = tmp_path / "known_hosts"
    file.write_text("# comment\n\nbroken line\n" + line(names, keys[0]))
    known_hosts.verify(known_hosts.read([file]), host, port, keys[0], file)


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("nano", "nano", 2222),
        ("[nano]:2222", "nano", 22),
        ("nano", "nano1", 22),
        ("*.lab,!bad.lab", "bad.lab", 22),
    ],
)
def test_another_name_is_unknown(tmp_path, keys, names, host, port):
    file = tmp_path / "known_hosts"
    file.write_text(line(names, keys[0]))
    with pytest.raises(HostKeyError, match="unknown host key"):
        known_hosts.verify(known_hosts.read([file]), host, port, keys[0], file)


def test_any_of_several_known_keys_will_do(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text(line("nano", keys[0]) + line("nano", keys[1]))
    entries = known_hosts.read([file])
    for key in keys:
        known_hosts.verify(entries, "nano", 22, key, file)


def test_an_authority_is_no_host_key(tmp_path, keys):
    """Signed host keys are not supported; their authority's key must not pass for a host's."""
    file = tmp_path / "known_hosts"
    file.write_text(line("nano", keys[0], "@cert-authority"))
    with pytest.raises(HostKeyError, match="unknown"):
        known_hosts.verify(known_hosts.read([file]), "nano", 22, keys[0], file)


def test_a_missing_file_knows_nobody(tmp_path):
    assert known_hosts.read([tmp_path / "none"]) == []


def test_kinds_of_known_keys_come_first(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text(line("nano", keys[0]))
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")
    ordered = known_hosts.preferred_types(known_hosts.read([file]), "nano", offered)
    assert ordered == ["ecdsa-sha2-nistp256", "ssh-ed25519", "rsa-sha2-512"]


def test_alias(client_home):
    ssh = client_home / ".ssh"
    ssh.mkdir()
    (ssh / "config").write_text(
        "Include conf.d/*\nHost nano\n  HostName 10.0.0.7\n  Port 2200\n  User dev\n"
        "  IdentityFile ~/.ssh/id_nano\n  ProxyJump gate,inner\n"
        '  UserKnownHostsFile "/etc/my hosts" ~/.ssh/kh\n'
        "Host *\n  IdentitiesOnly yes\n"
    )
    (ssh / "conf.d").mkdir()
    (ssh / "conf.d" / "orin").write_text("Host orin\n  HostName 10.0.0.8\n")
    config = ssh_config.load()
    nano = ssh_config.resolve(config, "nano")
    assert (nano.host, nano.port, nano.user) == ("10.0.0.7", 2200, "dev")
    assert nano.identity_files == (str(ssh / "id_nano"),)
    assert nano.identities_only
    assert nano.jumps == ("gate", "inner")
    assert [str(path) for path in nano.user_known_hosts] == ["/etc/my hosts", str(ssh / "kh")]
    assert ssh_config.resolve(config, "orin").host == "10.0.0.8"
    other = ssh_config.resolve(config, "somebody@else:23", port=24)
    assert (other.host, other.port, other.user) == ("else", 24, "somebody")
    assert other.user_known_hosts[0] == ssh / "known_hosts"


def test_include_does_not_swallow_what_follows(client_home):
    ssh = client_home / ".ssh"
    ssh.mkdir()
    (ssh / "more").write_text("Host orin\n  User other\n")
    (ssh / "config").write_text("Include more\nPort 2345\n")
    endpoint = ssh_config.resolve(ssh_config.load(), "nano")
    assert (endpoint.port, endpoint.user) == (2345, getpass.getuser())


def test_include_cycle(client_home):
    ssh = client_home / ".ssh"
    ssh.mkdir()
    (ssh / "config").write_text("Include config\n")
    with pytest.raises(JetsonError, match="remove the cycle"):
        ssh_config.load()


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [("[::1]:2222", "::1", 2222), ("fe80::1", "fe80::1", 22), ("ssh://a@b:5/", "b", 5)],
)
def test_targets(client_home, target, host, port):
    endpoint = ssh_config.resolve(ssh_config.load(), target)
    assert (endpoint.host, endpoint.port) == (host, port)


@pytest.mark.parametrize("target", ["", "-oProxyCommand=x", "a b", "user@"])
def test_targets_that_are_none(client_home, target):
    with pytest.raises(JetsonError, match="does not fit"):
        ssh_config.resolve(ssh_config.load(), target)
