"""What a device is asked before a deployment, and the reason to push that comes of it."""

import json

import check_device as check_script
import push as push_script
import pytest
from jetson.errors import JetsonError


class Desk:
    """A receipt and the reason to push, as the rules have them."""

    def __init__(self, board, folder, rendered) -> None:
        self.board, self.folder, self.rendered = board, folder, rendered
        self.receipt, self.reason = folder / "receipt.json", folder / "push_reason.json"

    def check(self) -> str:
        """Ask the board; return the file's text."""
        check_script.check_device("nano", self.board.section(), self.receipt, self.reason)
        return self.reason.read_text()

    def push(self, receipt=None) -> None:
        push_script.push(
            "nano",
            self.board.section(),
            {"chosen-gpu": self.rendered},
            "MODEL_KEY",
            receipt or self.receipt,
            reason=self.reason,
        )


@pytest.fixture
def desk(board, rendered, tmp_path):
    desk = Desk(board, tmp_path, rendered("chosen-gpu"))
    desk.check()
    desk.push()
    return desk


def test_what_is_there_gives_the_reason_of_before(desk):
    before = desk.reason.read_text()
    assert json.loads(before)["reason"] == "nothing was pushed yet"
    # Snakemake removes an output before its job begins.
    desk.reason.unlink()
    assert desk.check() == before


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (lambda board: board.stop(), "is it switched on, is sshd running there"),
        (
            lambda board: (board.programs / "deepstream-app").unlink(),
            "no deepstream-app on the PATH; install DeepStream 6.0.1",
        ),
    ],
)
def test_what_would_stop_the_first_push_is_told_before_it(board, tmp_path, trouble, line):
    trouble(board)
    output = tmp_path / "push_reason.json"
    with pytest.raises(JetsonError, match=line):
        check_script.check_device("nano", board.section(), tmp_path / "receipt.json", output)
    assert not output.exists()


def test_a_damaged_file(desk, board):
    (board.root / "current/chosen-gpu/model.onnx").write_bytes(b"damaged")
    assert "is damaged there" in desk.check()
    desk.push()
    again = desk.check()
    assert "is damaged there" in again
    assert desk.check() == again


def test_a_file_that_is_gone(desk, board):
    (board.root / "current/chosen-gpu/labels.txt").unlink()
    assert "is damaged there" in desk.check()


def test_another_release_was_pushed_from_elsewhere(desk, tmp_path):
    (desk.rendered / "labels.txt").write_text("other\n")
    desk.push(tmp_path / "other.json")
    assert "its current release is" in desk.check()


def test_a_run_by_hand_is_no_reason(desk, board):
    before = desk.reason.read_text()
    (board.root / "current/chosen-gpu/video.mp4").write_bytes(b"video")
    assert desk.check() == before


def test_a_benchmark_that_goes_on_is_not_disturbed(desk, board):
    before = desk.reason.read_text()
    (board.root / "current/chosen-gpu/model.onnx").write_bytes(b"would be read")
    (board.root / "benchmark.lock").touch()
    board.install("flock", "#!/bin/sh\nexit 1\n")
    assert desk.check() == before


def test_a_device_that_is_off_is_a_line(desk, board):
    board.stop()
    with pytest.raises(JetsonError, match=r"nano: .*; is it switched on, is sshd running there"):
        desk.check()


def test_a_receipt_that_is_cut_short(desk):
    desk.receipt.write_text(desk.receipt.read_text()[:50])
    assert "nothing was pushed yet" in desk.check()
