"""Fixtures of the device tests: a board on loopback, a desk's home, rendered configs."""

from pathlib import Path

import pytest

from .benching import Bench
from .loopback_board import SSHD, Board, CuttingProxy

APP = """\
[application]
enable-perf-measurement=1
perf-measurement-interval-sec=1

[source0]
enable=1
type=3
uri=file:///clip.mp4
num-sources=2

[primary-gie]
enable=1
batch-size=2
config-file=config_infer_primary.txt
"""
INFER = """\
[property]
{model_key}={model}
labelfile-path=labels.txt
network-mode=2
batch-size=2
"""


def pytest_collection_modifyitems(items):
    """Skip what needs a server where there is none."""
    if SSHD is not None:
        return
    skip = pytest.mark.skip(reason="needs sshd: apt-get install openssh-server")
    for item in items:
        if "board" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)


@pytest.fixture
def client_home(tmp_path, monkeypatch) -> Path:
    """A home for the desk's side, so that nobody's ~/.ssh is read or written."""
    home = tmp_path / "desk"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def board(tmp_path, client_home):
    """A board that is up."""
    board = Board(tmp_path / "board", client_home)
    board.start()
    yield board
    board.stop()


@pytest.fixture
def bench(board, rendered, tmp_path) -> Bench:
    """A release to push to the board and to measure there."""
    return Bench(board, rendered, tmp_path / "out")


@pytest.fixture
def proxy(board):
    """A proxy before the board; the alias `board` goes through it."""
    proxy = CuttingProxy(board.port)
    board.trust(proxy.port)
    board.write_ssh_config(port=proxy.port)
    yield proxy
    proxy.close()


@pytest.fixture
def rendered(tmp_path):
    """A function that writes a rendered config folder, small but with all that a case needs."""

    def render(name: str, *, model: bytes = b"model", behaviour: str = "", etlt: bool = False):
        folder = tmp_path / "rendered" / name
        folder.mkdir(parents=True, exist_ok=True)
        file = "model.etlt" if etlt else "model.onnx"
        key = "tlt-encoded-model" if etlt else "onnx-file"
        (folder / "app.txt").write_text(APP)
        (folder / "config_infer_primary.txt").write_text(INFER.format(model_key=key, model=file))
        (folder / "labels.txt").write_text("mask\nno-mask\n")
        (folder / file).write_bytes(model)
        (folder / "behaviour.txt").write_text(behaviour)
        return folder

    return render
