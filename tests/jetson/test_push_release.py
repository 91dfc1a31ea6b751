"""Pushes to a real sshd: only what changed, resumed, verified, and never half."""

import hashlib
import json
import logging
import os
import subprocess

import push as push_script
import pytest
from jetson import push
from jetson.errors import JetsonError

from .pushing import bring, current, local, release_of

KEY = "a\\very secret key"


def test_first_push(board, rendered):
    folder = rendered("chosen-gpu", model=os.urandom(300_000))
    (folder / "a name with blanks.txt").write_text("x")
    sent = bring(board, folder)
    assert current(board) == local(folder)
    assert sent.files == 6
    assert sent.bytes == sum(map(len, local(folder).values()))
    link = board.root / "current"
    assert str(link.readlink()) == f"releases/{release_of(folder).digest}"
    assert not (board.root / "incoming").exists()
    subprocess.run(["sha256sum", "-c", "--quiet", "release.sha256"], cwd=link, check=True)


def test_unchanged_push_sends_nothing(board, rendered):
    folder = rendered("chosen-gpu")
    bring(board, folder)
    before = (board.root / "current").resolve()
    sent = bring(board, folder)
    assert (sent.files, sent.bytes) == (0, 0)
    assert (board.root / "current").resolve() == before


def test_only_the_changed_file_is_sent_and_the_rest_is_linked(board, rendered):
    folder = rendered("chosen-gpu", model=b"m" * 50_000)
    bring(board, folder)
    first = (board.root / "current").resolve()
    (folder / "labels.txt").write_text("mask\nno-mask\nnew\n")
    sent = bring(board, folder)
    assert (sent.files, sent.bytes) == (1, len("mask\nno-mask\nnew\n"))
    assert current(board) == local(folder)
    model = board.root / "current/chosen-gpu/model.onnx"
    assert model.samefile(first / "chosen-gpu/model.onnx")
    assert (first / "chosen-gpu/labels.txt").read_text() == "mask\nno-mask\n"


def test_equal_files_are_sent_once(board, rendered):
    gpu, dla = rendered("chosen-gpu", model=b"m" * 9000), rendered("chosen-dla0", model=b"m" * 9000)
    sent = bring(board, gpu, dla)
    assert sent.bytes < 2 * 9000
    assert current(board) == local(gpu, dla)


def test_going_back_sends_nothing(board, rendered):
    folder = rendered("chosen-gpu")
    bring(board, folder)
    first = release_of(folder).digest
    (folder / "labels.txt").write_text("other\n")
    bring(board, folder)
    (folder / "labels.txt").write_text("mask\nno-mask\n")
    assert bring(board, folder).bytes == 0
    assert str((board.root / "current").readlink()) == f"releases/{first}"


def test_two_releases_stay(board, rendered):
    folder = rendered("chosen-gpu")
    digests = []
    for number in range(4):
        (folder / "labels.txt").write_text(f"{number}\n")
        bring(board, folder)
        digests.append(release_of(folder).digest)
    assert {path.name for path in (board.root / "releases").iterdir()} == set(digests[-2:])


def test_a_damaged_release_is_made_whole(board, rendered):
    folder = rendered("chosen-gpu", model=b"m" * 5000)
    bring(board, folder)
    (board.root / "current/chosen-gpu/model.onnx").write_bytes(b"damaged")
    assert bring(board, folder).bytes == 5000
    assert current(board) == local(folder)


def test_a_push_that_is_cut_goes_on_where_it_stopped(board, proxy, rendered):
    model = os.urandom(6_000_000)
    folder = rendered("chosen-gpu", model=model)
    proxy.cut_after = 2_000_000
    sent = bring(board, folder)
    assert proxy.connections == 2
    assert 0 < sent.resumed_bytes < len(model)
    assert current(board) == local(folder)


def test_a_cut_push_leaves_the_last_release_in_place(board, proxy, rendered):
    folder = rendered("chosen-gpu", model=b"first")
    bring(board, folder)
    good = current(board)
    (folder / "model.onnx").write_bytes(os.urandom(3_000_000))
    proxy.cut_after = 1_000_000
    proxy.on_cut = proxy.refuse
    with pytest.raises(JetsonError):
        bring(board, folder, reconnect_timeout_s=0)
    assert current(board) == good
    (partial,) = (board.root / "incoming").glob("*.part")
    # What was under way when the connection broke is still being written for a moment.
    board.settle()
    assert 0 < partial.stat().st_size < 3_000_000
    board.write_ssh_config()
    sent = bring(board, folder)
    assert sent.resumed_bytes > 0
    assert current(board) == local(folder)


def test_a_damaged_upload_is_not_resumed(board, rendered):
    model = os.urandom(400_000)
    folder = rendered("chosen-gpu", model=model)
    incoming = board.root / "incoming"
    incoming.mkdir(parents=True)
    name = hashlib.sha256(model).hexdigest()
    (incoming / f"{name}.part").write_bytes(b"wrong" + model[5:200_000])
    assert bring(board, folder).resumed_bytes == 0
    assert current(board) == local(folder)


def test_a_complete_upload_with_another_content_is_sent_again(board, rendered):
    model = os.urandom(4000)
    folder = rendered("chosen-gpu", model=model)
    incoming = board.root / "incoming"
    incoming.mkdir(parents=True)
    (incoming / hashlib.sha256(model).hexdigest()).write_bytes(b"not the model")
    bring(board, folder)
    assert current(board) == local(folder)


@pytest.fixture
def small_disk(board):
    """A file system of 4 MB where the releases go."""
    board.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", board.root]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield board.root
    subprocess.run(["umount", "-l", board.root], check=True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(board, small_disk, rendered):
    folder = rendered("chosen-gpu", model=b"first")
    bring(board, folder)
    good = current(board)
    (folder / "model.onnx").write_bytes(os.urandom(5_000_000))
    with pytest.raises(JetsonError, match=r"4\.8 MB are to be sent but .* MB free; make room"):
        bring(board, folder)
    assert current(board) == good
    assert not list((small_disk / "incoming").iterdir())


def test_a_disk_that_fills_up_meanwhile(board, small_disk, proxy, rendered, monkeypatch):
    """Somebody else takes the room while the push is under way."""
    folder = rendered("chosen-gpu", model=b"first")
    bring(board, folder)
    good = current(board)
    (folder / "model.onnx").write_bytes(os.urandom(3_000_000))
    original = push._upload

    def upload(*arguments):
        (small_disk / "filler").write_bytes(bytes(2_500_000))
        original(*arguments)

    monkeypatch.setattr(push, "_upload", upload)
    with pytest.raises(JetsonError, match=r"disk of .* is full .*model\.onnx was sent; make room"):
        bring(board, folder)
    assert current(board) == good
    monkeypatch.setattr(push, "_upload", original)
    (small_disk / "filler").unlink()
    assert bring(board, folder).resumed_bytes > 0
    assert current(board) == local(folder)


def test_folder_that_cannot_be_written(board, rendered):
    with pytest.raises(JetsonError, match="mkdir"):
        bring(board, rendered("chosen-gpu"), folder="/dev/null/x")


def test_key_goes_only_to_the_device(board, rendered, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    folder = rendered("chosen-gpu", etlt=True)
    monkeypatch.setenv("MODEL_KEY", KEY)
    receipt = tmp_path / "receipt.json"
    push_script.push("nano", board.section(), {"chosen-gpu": folder}, "MODEL_KEY", receipt)
    config = board.root / "current/chosen-gpu/config_infer_primary.txt"
    assert (
        "tlt-encoded-model=model.etlt\ntlt-model-key=a\\\\very secret key\n" in config.read_text()
    )
    assert config.stat().st_mode & 0o777 == 0o600
    assert (board.root / "current/chosen-gpu/labels.txt").stat().st_mode & 0o777 == 0o644
    assert "tlt-model-key" not in (folder / config.name).read_text()
    written = receipt.read_text()
    entry = {file["path"]: file for file in json.loads(written)["files"]}[
        "chosen-gpu/config_infer_primary.txt"
    ]
    rendered_digest = hashlib.sha256((folder / config.name).read_bytes()).hexdigest()
    assert entry["sha256"] == rendered_digest and entry["mode"] == "600"
    on_device = hashlib.sha256(config.read_bytes()).hexdigest()
    for secret in ("very secret", on_device):
        assert secret not in written
        assert secret not in caplog.text


def test_another_key_is_another_release(rendered):
    folder = rendered("chosen-gpu", etlt=True)
    digests = {release_of(folder, key=key).digest for key in ("one", "two", "one")}
    assert len(digests) == 2


def test_a_key_in_the_rendered_config_is_replaced(rendered, tmp_path):
    folder = rendered("chosen-gpu", etlt=True)
    config = folder / "config_infer_primary.txt"
    config.write_text(config.read_text() + "tlt-model-key=old\n")
    (file,) = (file for file in release_of(folder, key="new").files if file.keyed)
    text = file.content.decode()
    assert text.count("tlt-model-key") == 1 and "tlt-model-key=new" in text


def test_an_encrypted_model_needs_its_key(rendered):
    with pytest.raises(JetsonError, match="set the environment variable MODEL_KEY"):
        release_of(rendered("chosen-gpu", etlt=True))


def test_a_key_is_measured_in_bytes(rendered):
    folder = rendered("chosen-gpu", etlt=True)
    longest = "ß" * 511 + "s"
    assert any(file.keyed for file in release_of(folder, key=longest).files)
    with pytest.raises(JetsonError, match="longer than 1023 bytes"):
        release_of(folder, key=longest + "s")


def test_receipt_lists_every_file(board, rendered, tmp_path):
    folder = rendered("chosen-gpu", model=b"m" * 1000)
    output = tmp_path / "receipt.json"
    push_script.push("nano", board.section(), {"chosen-gpu": folder}, "MODEL_KEY", output)
    receipt = json.loads(output.read_text())
    assert {file["path"]: file["sha256"] for file in receipt["files"]} == {
        path: hashlib.sha256(content).hexdigest() for path, content in local(folder).items()
    }
    assert receipt["release"] == release_of(folder).digest
    assert receipt["versions"]["deepstream"] == "6.0.1"
    assert receipt["cases"][0]["model_sha256"] == hashlib.sha256(b"m" * 1000).hexdigest()
    assert receipt["cases"][0]["streams"] == 2
    assert receipt["folder"] == str(board.root)
    assert not output.with_name("receipt.json.part").exists()


def test_a_config_that_names_what_is_not_there(rendered):
    folder = rendered("chosen-gpu")
    (folder / "model.onnx").unlink()
    with pytest.raises(JetsonError, match=r"name 'model.onnx', which is not pushed"):
        release_of(folder)


def test_what_desk_runs_leave_is_not_pushed(rendered):
    folder = rendered("chosen-gpu")
    expected = release_of(folder).digest
    (folder / "parity.json").write_text("{}")
    (folder / "model.onnx_b2_gpu0_fp16.engine").write_text("x")
    (folder / "kitti").mkdir()
    (folder / "kitti" / "00_000_000000.txt").write_text("x")
    assert release_of(folder).digest == expected


def test_folder_is_missing(tmp_path):
    with pytest.raises(JetsonError, match="render the configs of chosen-gpu first"):
        release_of(tmp_path / "chosen-gpu")


def test_no_hard_links(board, rendered):
    """SD cards with exFAT have none: files are copied instead."""
    board.install("ln", '#!/bin/sh\n[ "$1" = -s ] && exec /bin/ln "$@"\nexit 1\n')
    folder = rendered("chosen-gpu", model=b"m" * 1000)
    bring(board, folder)
    (folder / "labels.txt").write_text("x\n")
    bring(board, folder)
    assert current(board) == local(folder)


def test_power_cut_while_installing_leaves_the_last_release(board, rendered):
    """Whatever the moment: `current` points to a whole release."""
    folder = rendered("chosen-gpu")
    bring(board, folder)
    good = current(board)
    (folder / "labels.txt").write_text("new\n")
    for program in ("sync", "mv"):
        board.install(program, "#!/bin/sh\nkill -KILL $PPID\n")
        with pytest.raises(JetsonError):
            bring(board, folder, reconnect_timeout_s=0)
        assert current(board) == good
        (board.programs / program).unlink()
    bring(board, folder)
    assert current(board) == local(folder)
