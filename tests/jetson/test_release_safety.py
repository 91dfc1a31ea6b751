"""What lies in a release's folder besides the release, and pushes that end half-way."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
import time

import push as push_script
import pytest
from jetson import push
from jetson.errors import JetsonError
from jetson.session import device_script

from .pushing import bring, current, local, release_of

ENGINE = "model.onnx_b2_gpu0_fp16.engine"
# Ends the script that calls it at its Nth call.
FATAL = """\
#!/bin/sh
count=$(($(cat "$JETSON_ROOT/calls" 2>/dev/null || echo 0) + 1))
echo "$count" >"$JETSON_ROOT/calls"
[ "$count" -eq {number} ] && kill -KILL $PPID
exec /usr/bin/{program} "$@"
"""


def run_by_hand(board) -> None:
    """Leave what deepstream-app and a person leave in the folder they ran it in."""
    folder = board.root / "current/chosen-gpu"
    (folder / ENGINE).write_text("built by hand")
    (folder / "video.mp4").write_bytes(b"video")
    (folder / "kitti").mkdir()
    (folder / "kitti/00_000_000000.txt").write_text("mask 0.0 0\n")


def with_tensorrt(board, seconds_ago: float) -> None:
    """Let dpkg have installed TensorRT some time before the newest engine was built."""
    path = board.system / "var/lib/dpkg/info/libnvinfer8.list"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    built = (board.root / "current/chosen-gpu" / ENGINE).stat().st_mtime
    os.utime(path, (built - seconds_ago, built - seconds_ago))


def push_with_preflight(board, tmp_path, folder) -> dict:
    output = tmp_path / "receipt.json"
    return push_script.push("nano", board.section(), {folder.name: folder}, "MODEL_KEY", output)


def test_a_run_by_hand_does_not_change_the_release(board, rendered):
    folder = rendered("chosen-gpu", model=b"m" * 9000)
    bring(board, folder)
    run_by_hand(board)
    live = (board.root / "current/chosen-gpu/model.onnx").stat().st_ino
    assert bring(board, folder).files == 0
    assert (board.root / "current/chosen-gpu/model.onnx").stat().st_ino == live
    assert set(current(board)) - set(local(folder)) == {
        f"chosen-gpu/{name}" for name in (ENGINE, "video.mp4", "kitti/00_000_000000.txt")
    }


def test_mending_a_release_leaves_what_else_lies_there(board, rendered):
    folder = rendered("chosen-gpu")
    bring(board, folder)
    run_by_hand(board)
    (board.root / "current/chosen-gpu/labels.txt").write_text("edited there")
    assert bring(board, folder).files == 1
    assert local(folder).items() <= current(board).items()
    assert (board.root / "current/chosen-gpu/video.mp4").exists()
    assert (board.root / "current/chosen-gpu" / ENGINE).exists()


def test_an_old_release_goes_but_for_what_somebody_left_there(board, rendered):
    folder = rendered("chosen-gpu")
    bring(board, folder)
    run_by_hand(board)
    old = (board.root / "current").resolve()
    for number in range(2):
        (folder / "labels.txt").write_text(f"{number}\n")
        bring(board, folder)
    left = {str(path.relative_to(old)) for path in old.rglob("*") if path.is_file()}
    assert left == {"chosen-gpu/video.mp4", "chosen-gpu/kitti/00_000_000000.txt"}


def test_an_engine_built_by_hand_outlives_its_release(board, rendered, tmp_path):
    folder = rendered("chosen-gpu")
    push_with_preflight(board, tmp_path, folder)
    run_by_hand(board)
    with_tensorrt(board, seconds_ago=60)
    for number in range(2):
        (folder / "labels.txt").write_text(f"{number}\n")
        receipt = push_with_preflight(board, tmp_path, folder)
    (case,) = release_of(folder).cases
    key = case.engine_key(receipt["versions"]["model"], receipt["versions"]["tensorrt"])
    assert (board.root / "engines" / key / ENGINE).read_text() == "built by hand"


def adopt(board, *words: str) -> list[str]:
    """Run adopt_engine on the board; return the names of the caches."""
    script = device_script("common", "engines") + '\nroot=$1; shift; adopt_engine "$@"'
    subprocess.run(
        ["/bin/sh", "-c", script, "sh", board.root, *words],
        env={**os.environ, "JETSON_ROOT": str(board.system)},
        check=True,
    )
    return sorted(path.name for path in (board.root / "engines").glob("*"))


@pytest.mark.parametrize("installed_s_ago", [60, -60, None])
def test_an_engine_older_than_tensorrt_is_not_taken(board, rendered, installed_s_ago):
    folder = rendered("chosen-gpu", model=b"m")
    bring(board, folder)
    run_by_hand(board)
    if installed_s_ago is not None:
        with_tensorrt(board, installed_s_ago)
    model = next(file.sha256 for file in release_of(folder).files if file.path.endswith(".onnx"))
    assert adopt(board, "key", model, "-", ENGINE) == (["key"] if installed_s_ago == 60 else [])


def test_an_engine_of_another_model_name_or_calibration_is_not_taken(board, rendered):
    folder = rendered("chosen-gpu", model=b"m")
    bring(board, folder)
    run_by_hand(board)
    with_tensorrt(board, seconds_ago=60)
    digests = {file.path: file.sha256 for file in release_of(folder).files}
    model, labels = digests["chosen-gpu/model.onnx"], digests["chosen-gpu/labels.txt"]
    assert adopt(board, "key", "0" * 64, "-", ENGINE) == []
    assert adopt(board, "key", model, "-", "model.onnx_b1_gpu0_fp16.engine") == []
    assert adopt(board, "key", model, "0" * 64, ENGINE) == []
    # Any file of the folder stands for the calibration cache here.
    assert adopt(board, "key", model, labels, ENGINE) == ["key"]


@pytest.mark.parametrize("program", ["mv", "sync", "ln", "rm"])
def test_a_push_of_the_same_release_that_ends_half_way(board, rendered, program):
    """Mends two files of the live release; whenever it ends, nothing is missing from it."""
    folder = rendered("chosen-gpu", model=b"m" * 3000)
    bring(board, folder)
    good = current(board)
    calls = board.system / "calls"
    for number in range(1, 30):
        for name in ("labels.txt", "app.txt"):
            (board.root / "current/chosen-gpu" / name).write_text("damaged")
        damaged = current(board)
        calls.write_text("0")
        board.install(program, FATAL.format(number=number, program=program))
        with contextlib.suppress(JetsonError):
            bring(board, folder, reconnect_timeout_s=0)
        assert set(current(board)) == set(good)
        for path, content in current(board).items():
            assert content in (good[path], damaged[path]), path
        if int(calls.read_text()) < number:
            break
    assert number > 2
    assert current(board) == good


@pytest.mark.parametrize("program", ["mv", "ln", "rm"])
def test_a_push_of_another_release_that_ends_half_way(board, rendered, program):
    """Whenever it ends, the last release or the new one is there, and all of it."""
    folder = rendered("chosen-gpu", model=b"m" * 3000)
    bring(board, folder)
    calls = board.system / "calls"
    for number in range(1, 30):
        good = current(board)
        (folder / "labels.txt").write_text(f"{number}\n")
        calls.write_text("0")
        board.install(program, FATAL.format(number=number, program=program))
        with contextlib.suppress(JetsonError):
            bring(board, folder, reconnect_timeout_s=0)
        assert current(board) in (good, local(folder))
        if int(calls.read_text()) < number:
            break
    assert number > 2
    assert current(board) == local(folder)
    assert len(list((board.root / "releases").glob("[0-9a-f]*"))) == 2


def test_the_clock_of_the_board_does_not_choose_what_is_removed(board, rendered):
    """A board without a battery starts in the past: what is old looks new."""
    folder = rendered("chosen-gpu")
    for number in range(3):
        (folder / "labels.txt").write_text(f"{number}\n")
        bring(board, folder)
        before = (board.root / "current").resolve()
        for release in (board.root / "releases").iterdir():
            os.utime(release, (4e9 - number, 4e9 - number))
    (folder / "labels.txt").write_text("newest\n")
    bring(board, folder)
    assert current(board) == local(folder)
    kept = {path.name for path in (board.root / "releases").iterdir()}
    assert kept == {before.name, release_of(folder).digest}


def test_no_push_beside_a_benchmark(board, rendered):
    """One that starts while files are sent keeps its release."""
    folder = rendered("chosen-gpu")
    bring(board, folder)
    (folder / "labels.txt").write_text("new\n")
    (board.root / "benchmark.lock").touch()
    (board.root / "benchmark.owner").write_text("abc since noon\n")
    # Free when the push begins, taken when it would install.
    asked = '"$JETSON_ROOT/asked"'
    stub = f'#!/bin/sh\n[ "$1" = -n ] || exit 0\n[ -e {asked} ] || exec touch {asked}\nexit 1\n'
    board.install("flock", stub)
    with pytest.raises(JetsonError, match="benchmark abc since noon is running there"):
        bring(board, folder)
    assert (board.system / "asked").exists()
    assert current(board)["chosen-gpu/labels.txt"] == b"mask\nno-mask\n"


def test_pushes_of_two_desks_change_the_releases_one_after_the_other(board, rendered):
    """What the other one has just made current must neither go nor be taken for an old release."""
    folder = rendered("chosen-gpu")
    bring(board, folder)
    (folder / "labels.txt").write_text("other\n")
    with (board.root / "push.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sent = []
        thread = threading.Thread(target=lambda: sent.append(bring(board, folder)))
        thread.start()
        deadline = time.monotonic() + 60
        while not list((board.root / "incoming").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        assert not sent
        theirs = board.root / "releases/0123456789abcdef"
        theirs.mkdir()
        (theirs / "release.sha256").write_text("")
        (board.root / "new").symlink_to(f"releases/{theirs.name}")
        (board.root / "new").rename(board.root / "current")
    thread.join()
    assert sent and current(board) == local(folder)
    mine = release_of(folder).digest
    assert {path.name for path in (board.root / "releases").iterdir()} == {mine, theirs.name}


@pytest.mark.parametrize("before", ["_copy", "_script"])
def test_uploads_that_another_push_cleared_away(board, rendered, monkeypatch, before):
    """While a file is sent, or between the last one and the installation."""
    folder = rendered("chosen-gpu")
    original = getattr(push, before)

    def cleared(*arguments):
        shutil.rmtree(board.root / "incoming")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(push, before, cleared)
        with pytest.raises(JetsonError, match=r"another push came to its end.*; push again"):
            bring(board, folder)
    bring(board, folder)
    assert current(board) == local(folder)
