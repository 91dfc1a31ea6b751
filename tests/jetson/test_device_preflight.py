"""Preflight against a real sshd: one line a problem, each with its remedy."""

import fcntl
import json

import preflight_device as preflight_script
import pytest
from deepstream import devices
from jetson import preflight
from jetson.errors import JetsonError
from jetson.session import device_script, facts

from .loopback_board import NANO


def problems(board, name: str = "nano", **settings) -> list[str]:
    with board.session(**settings) as session, pytest.raises(JetsonError) as caught:
        preflight.check(session, devices.resolve(name, board.section(**settings)))
    return str(caught.value).splitlines()


def only(board, **settings) -> str:
    lines = problems(board, **settings)
    assert len(lines) == 1, lines
    return lines[0]


def test_ready(board, tmp_path):
    output = tmp_path / "nano.json"
    found = preflight_script.preflight_device("nano", board.section(), output)
    assert found == json.loads(output.read_text())
    assert found["model"] == NANO and found["board"] == "nano"
    assert (found["l4t"], found["deepstream"], found["cuda"]) == ("32.7.6", "6.0.1", "10.2")
    assert found["tensorrt"].startswith("8.2")
    assert found["memory_mb"] == 3964
    assert not board.root.exists()


def test_a_look_leaves_nothing_behind(board):
    (board.home / "work").mkdir()
    with board.session(folder="work/face masks/nano 1") as session:
        assert preflight.probe(session)[1]["writable"] == "yes"
    assert not list((board.home / "work").iterdir())


def test_one_round_trip(board):
    with board.session() as session:
        opened = []
        transport = session._transport()
        original = transport.open_session
        transport.open_session = lambda *a, **k: opened.append(1) or original(*a, **k)
        preflight.probe(session)
    assert len(opened) == 1


def test_login_noise_does_not_matter(board):
    (board.home / ".bashrc").write_text("echo 'Welcome to your board!'\necho '@user\tmallory'\n")
    with board.session() as session:
        seen = preflight.check(session, devices.resolve("nano", board.section()))
    assert seen.deepstream == "6.0.1"


def test_no_deepstream_app(board):
    (board.programs / "deepstream-app").unlink()
    assert "no deepstream-app on the PATH; install DeepStream 6.0.1 (JetPack 4.6.1)" in only(board)


def test_deepstream_app_elsewhere(board):
    (board.programs / "deepstream-app").unlink()
    program = board.system / "opt/nvidia/deepstream/deepstream-6.0/bin/deepstream-app"
    program.parent.mkdir(parents=True)
    program.touch()
    assert f"link it with: sudo ln -s {program} /usr/local/bin/" in only(board)


def test_user_without_the_gpu(board):
    gpu = board.system / "dev/nvmap"
    gpu.parent.mkdir()
    gpu.touch()
    with board.session() as session:
        seen, raw = preflight.probe(session)
        assert raw["gpu"] == "yes"
        # Tests may run as root, who may write to everything.
        denied = device_script("common", "preflight").replace('[ -w "$gpu" ]', "false")
        raw = facts(session.run(denied, session.remote.folder, session.remote.clip, "", "no"))
    (line,) = preflight._program_problems(seen, raw, devices.resolve("nano", board.section()))
    assert "may not use the GPU (/dev/nvmap); run there: sudo usermod -aG video" in line


def test_broken_deepstream_app(board):
    board.install("deepstream-app", "#!/bin/sh\necho libnvinfer.so.8: cannot open\nexit 1\n")
    assert "tells no version but: libnvinfer.so.8: cannot open;" in only(board)


@pytest.mark.parametrize(("told", "release"), [("5.1", "5.1"), ("6.0.0", "6.0")])
def test_other_deepstream(board, told, release):
    text = (board.programs / "deepstream-app").read_text()
    board.install("deepstream-app", text.replace("DeepStreamSDK 6.0.1", f"DeepStreamSDK {told}"))
    line = only(board)
    assert f"has DeepStream {told}, the config expects 6.0.1" in line
    assert f"set deploy.devices.nano.deepstream: '{release}' and render the configs again" in line
    with board.session() as session:
        preflight.check(session, devices.resolve("nano", board.section(deepstream=release)))


def test_deepstream_that_the_config_could_not_name(board):
    text = (board.programs / "deepstream-app").read_text()
    board.install("deepstream-app", text.replace("DeepStreamSDK 6.0.1", "DeepStreamSDK 6.0.9"))
    line = only(board)
    assert line.endswith("has DeepStream 6.0.9, the config expects 6.0.1; flash JetPack 4.6.1")


def test_tensorrt_too_old_for_the_models(board):
    text = (board.programs / "deepstream-app").read_text()
    board.install("deepstream-app", text.replace("TensorRT Version: 8.2", "TensorRT Version: 7.1"))
    assert "reads ONNX up to opset 11, the config allows 13; set" in only(board)


@pytest.mark.parametrize(("package", "fits"), [("8.2.1-1+cuda10.2", True), ("8.2.3-1", False)])
def test_calibration_of_another_tensorrt(board, package, fits):
    board.become("NVIDIA Jetson AGX Xavier Developer Kit")
    board.install("dpkg-query", f"#!/bin/sh\necho '{package} '\n")
    section = board.section(precision="int8", deepstream="6.0.1")
    expected = devices.resolve("xavier", section)
    with board.session() as session:
        if fits:
            assert preflight.check(session, expected).tensorrt == "8.2.1"
            return
        with pytest.raises(JetsonError, match=r"has TensorRT 8\.2\.3, which skips") as caught:
            preflight.check(session, expected)
    assert "deploy.devices.xavier.precision: fp16" in str(caught.value)


def test_other_board(board):
    board.become("NVIDIA Jetson Xavier NX Developer Kit")
    line = only(board)
    assert "is a NVIDIA Jetson Xavier NX Developer Kit, the config expects a Jetson Nano" in line
    assert "deploy.devices.nano.board: xavier_nx" in line


def test_no_disk(board):
    line = only(board, min_free_disk_mb=10**9)
    assert "MB of disk free for" in line and "make room" in line


def test_no_memory(board):
    assert "only 2929 MB of memory free, 3000 MB wanted" in only(board, min_free_memory_mb=3000)


def test_unwritable_folder(board):
    line = only(board, folder="/dev/null/models")
    assert "cannot write to /dev/null/models; set deploy.devices.nano.folder" in line


def test_no_clip(board):
    assert "clip /none.mp4 is not there; set deploy.devices.nano.clip" in only(
        board, clip="/none.mp4"
    )


def test_deepstream_app_is_running(board):
    process = board.system / "proc/4711"
    process.mkdir()
    (process / "comm").write_text("deepstream-app\n")
    assert "running there as process 4711" in only(board)


def test_benchmark_is_running(board):
    board.root.mkdir()
    lock = board.root / "benchmark.lock"
    lock.touch()
    (board.root / "benchmark.owner").write_text("0123456789ab since 2026-01-01 10:00:00 +0000\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        line = only(board)
    assert "benchmark 0123456789ab since 2026-01-01 10:00:00 +0000 is running there" in line


def test_sudo_asks_for_a_password(board):
    board.install("sudo", "#!/bin/sh\necho sudo: a password is required >&2\nexit 1\n")
    lines = problems(board, nvpmodel=0, jetson_clocks=True)
    assert [line.split(": ", 1)[1].split()[0] for line in lines] == ["nvpmodel", "jetson_clocks"]
    assert all("/etc/sudoers.d" in line for line in lines)


def test_every_problem_is_told_at_once(board):
    (board.programs / "deepstream-app").unlink()
    assert len(problems(board, clip="/none.mp4", min_free_disk_mb=10**9)) == 3


@pytest.mark.parametrize(
    ("model", "board_name"),
    [
        (NANO, "nano"),
        ("NVIDIA Jetson Nano 2GB Developer Kit", "nano"),
        ("quill", "tx2"),
        ("NVIDIA Jetson TX2 Developer Kit", "tx2"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "xavier_nx"),
        ("Jetson-AGX", "xavier"),
        ("NVIDIA Jetson AGX Xavier Developer Kit", "xavier"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "orin"),
        ("NVIDIA Orin Nano Developer Kit", "orin_nano"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "orin_nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "orin_nx"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "thor"),
        ("Raspberry Pi 4 Model B", None),
        ("", None),
    ],
)
def test_board_names(model, board_name):
    assert preflight.board_of(model) == board_name
    assert board_name is None or board_name in devices.BOARDS


def test_settings_that_do_not_fit(board):
    for settings, complaint in (
        ({"host": " "}, "host: ' ' does not fit"),
        ({"duration_s": 0}, "duration_s: 0 does not fit"),
        ({"clip": "videos/a.mp4"}, "clip: 'videos/a.mp4' does not fit; give the whole path"),
        ({"clip": "/videos/50%.mp4"}, "clip: '/videos/50%.mp4' does not fit; .* rename it"),
        ({"clip": "/videos/a#1.mp4"}, "clip: '/videos/a#1.mp4' does not fit; .* rename it"),
        ({"folder": "a\nb"}, "folder"),
        ({"warm_up_s": -1}, "warm_up_s"),
    ):
        with pytest.raises(JetsonError, match=complaint):
            board.remote(**settings)
    with pytest.raises(JetsonError, match=r"nano\.host is missing"):
        preflight_script.preflight_device("nano", {}, None)
