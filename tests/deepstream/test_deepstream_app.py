"""The desk deepstream-app on rendered releases: what it prints, dumps, draws and returns."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from deepstream import appconfig
from deepstream.cli import main
from deepstream.errors import DeepStreamError
from deepstream.pipeline import Pipeline

PERF_HEADER = re.compile(r"^\*\*PERF:  (FPS \d+ \(Avg\)\t)+$")
PERF_VALUE = re.compile(r"^\*\*PERF:  (\d+\.\d\d \(\d+\.\d\d\)\t)+$")


@pytest.fixture
def edited(release, monkeypatch):
    """A release with replaced lines in its files, as the working directory."""

    def make(changes: dict[str, dict[str, str]] | None = None, **options) -> Path:
        folder = release(**options)
        (folder / "kitti").mkdir(exist_ok=True)
        for name, replacements in (changes or {}).items():
            text = (folder / name).read_text()
            for old, new in replacements.items():
                assert old in text, f"{name} has no {old!r}"
                text = text.replace(old, new)
            (folder / name).write_text(text)
        monkeypatch.chdir(folder)
        return folder

    return make


@pytest.fixture
def program(repository):
    """Start the program in a folder as a process of its own."""
    started = []

    def start(folder: Path, *arguments: str, **options) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "deepstream", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(repository / "scripts")},
            stdin=options.pop("stdin", subprocess.PIPE),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run_pipeline(path: Path, **options) -> Pipeline:
    pipeline = Pipeline(appconfig.load(path), **options)
    pipeline.start()
    assert pipeline.finished.wait(60)
    pipeline.close()
    return pipeline


def dumped(folder: Path) -> dict[str, list[list[str]]]:
    return {
        path.name: [line.split() for line in path.read_text().splitlines()]
        for path in sorted((folder / "kitti").iterdir())
    }


def read_video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_kitti_dump_has_every_frame_and_the_true_boxes(edited):
    folder = edited()
    pipeline = run_pipeline(folder / "app_video.txt")
    assert pipeline.perf.frames == [6]
    found = dumped(folder)
    assert list(found) == [f"00_000_{number:06d}.txt" for number in range(6)]
    for number, rows in enumerate(found.values()):
        assert [row[0] for row in rows] == ["mask", "no-mask"]
        for row in rows:
            assert len(row) == 16
            assert row[1:4] == ["0.0", "0", "0.0"] and row[8:15] == ["0.0"] * 7
        box = [float(value) for value in rows[0][4:8]]
        # The square moves by one grid cell a frame; the codec costs a little coverage, no geometry.
        assert box == pytest.approx([16 + 16 * number, 48, 64 + 16 * number, 96], abs=1e-3)
        assert 0.9 < float(rows[0][15]) <= 1.0


def test_video_shows_the_boxes(edited, synthetic):
    folder = edited()
    run_pipeline(folder / "app_video.txt")
    pictures = read_video(folder / "video.mp4")
    assert len(pictures) == 6
    assert pictures[0].shape == (synthetic.height, synthetic.width, 3)
    # The border of mask is green and lies on the red square's edge, column 16 of frame 0.
    edge = pictures[0][60:90, 15:18].reshape(-1, 3).mean(axis=0)
    assert edge[1] > 150 and edge[0] < 120
    # The label stands above the box: white on dark where the background is grey.
    label = pictures[0][28:46, 16:100]
    assert label.max() > 180 and label.min() < 50
    assert not list(folder.glob("*.part"))


def test_boxes_are_in_streammux_pixels(edited):
    folder = edited({"app_video.txt": {"width=320": "width=640", "height=192": "height=576"}})
    run_pipeline(folder / "app_video.txt")
    rows = dumped(folder)["00_000_000000.txt"]
    assert [float(value) for value in rows[0][4:8]] == pytest.approx([32, 144, 128, 288], abs=0.5)
    assert read_video(folder / "video.mp4")[0].shape == (576, 640, 3)


def test_several_streams_batch_and_tile(edited, synthetic):
    changes = {
        "app_video.txt": {
            "type=2\nuri=file://clip.mp4": "type=3\nuri=file://clip.mp4\nnum-sources=3",
            "batch-size=1": "batch-size=3",
            "[tiled-display]\nenable=0": "[tiled-display]\nenable=1\nrows=2\ncolumns=2\n"
            f"width={2 * synthetic.width}\nheight={2 * synthetic.height}",
        }
    }
    folder = edited(changes, streams=3)
    pipeline = run_pipeline(folder / "app_video.txt")
    assert pipeline.perf.frames == [6, 6, 6]
    found = dumped(folder)
    assert len(found) == 18
    assert found["00_000_000002.txt"] == found["00_001_000002.txt"] == found["00_002_000002.txt"]
    pictures = read_video(folder / "video.mp4")
    assert len(pictures) == 6
    tiles = pictures[3].reshape(2, synthetic.height, 2, synthetic.width, 3)
    assert np.abs(tiles[0, :, 0].astype(int) - tiles[1, :, 0]).mean() < 3
    assert tiles[1, :, 1].max() < 30


def test_one_stream_of_several_goes_to_a_file(edited):
    changes = {
        "app_video.txt": {
            "type=2\nuri=file://clip.mp4": "type=3\nuri=file://clip.mp4\nnum-sources=2",
            "batch-size=1": "batch-size=2",
            "output-file=video.mp4": "output-file=second.mkv\nsource-id=1\n",
            "container=1": "container=2",
        }
    }
    folder = edited(changes, streams=2)
    run_pipeline(folder / "app_video.txt")
    assert len(read_video(folder / "second.mkv")) == 6
    missing = {"app_video.txt": {"bitrate=4000000": "source-id=5"}}
    with pytest.raises(DeepStreamError, match="source-id=5, there are 1 sources"):
        Pipeline(appconfig.load(edited(missing) / "app_video.txt"))


def test_results_do_not_depend_on_the_number_of_workers(edited):
    folder = edited()
    run_pipeline(folder / "app_video.txt", workers=1)
    one = dumped(folder)
    run_pipeline(folder / "app_video.txt", workers=4)
    assert dumped(folder) == one


def test_drop_frame_interval_and_interval(edited):
    changes = {
        "app_video.txt": {"uri=file://clip.mp4": "uri=file://clip.mp4\ndrop-frame-interval=2"}
    }
    folder = edited(changes)
    assert run_pipeline(folder / "app_video.txt").perf.frames == [3]
    second = dumped(folder)["00_000_000001.txt"]
    assert float(second[0][4]) == pytest.approx(48, abs=1e-3)
    folder = edited({"app_video.txt": {"plugin-type=0": "plugin-type=0\ninterval=1"}})
    run_pipeline(folder / "app_video.txt")
    assert [len(rows) for rows in dumped(folder).values()] == [2, 0, 2, 0, 2, 0]


def test_a_missing_dump_folder_is_noticed(edited, caplog):
    folder = edited()
    (folder / "kitti").rmdir()
    run_pipeline(folder / "app_video.txt")
    assert "kitti does not exist, nothing is dumped" in caplog.text


def test_padding_keeps_the_aspect_ratio(edited):
    changes = {"app_video.txt": {"height=192": "height=320\nenable-padding=1"}}
    folder = edited(changes)
    run_pipeline(folder / "app_video.txt")
    picture = read_video(folder / "video.mp4")[0]
    assert picture.shape == (320, 320, 3)
    assert picture[200:].max() < 30 and picture[:190, 300:].min() > 40


def test_batches_larger_than_the_engines_are_refused(edited):
    folder = edited(
        {
            "app_video.txt": {
                "[streammux]\ngpu-id=0\nbatch-size=1": "[streammux]\ngpu-id=0\nbatch-size=2"
            }
        }
    )
    with pytest.raises(DeepStreamError, match="batch-size=2 exceeds batch-size=1"):
        Pipeline(appconfig.load(folder / "app_video.txt"))


def test_end_of_stream_is_success(edited, capfd):
    edited()
    assert main(["-c", "app_video.txt"]) == 0
    printed = capfd.readouterr().out.splitlines()
    assert "** INFO: Received EOS. Exiting ..." in printed
    assert printed[-2:] == ["Quitting", "App run successful"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"app.txt": {"uri=file://clip.mp4": "uri=file://none.mp4"}}, "none.mp4: cannot be opened"),
        ({"app.txt": {"uri=file://clip.mp4": "uri=file://labels.txt"}}, "labels.txt"),
        ({"config_infer_primary.txt": {"3;192;320": "3;320;192"}}, "swapped?"),
        ({"config_infer_primary.txt": {"=model.onnx\n": "=labels.txt\n"}}, "cannot load it"),
    ],
)
def test_failure_is_255_with_one_line(edited, capfd, changes, message):
    edited(changes)
    assert main(["-c", "app.txt"]) == 255
    printed = capfd.readouterr()
    assert printed.out.splitlines()[-1] == "App run failed"
    errors = [line for line in printed.err.splitlines() if line.startswith("** ERROR")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in printed.err


def test_no_config_and_versions(capfd):
    assert main([]) == 255
    assert main(["--version-all"]) == 0
    printed = capfd.readouterr().out
    assert "Specify config file with -c option" in printed
    assert "ONNX Runtime Version: " in printed and "nvinfer semantics" in printed


def lines_until(process: subprocess.Popen, wanted: str, *, seconds: float = 60) -> list[str]:
    lines, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        line = process.stdout.readline()
        if not line:
            break
        lines.append(line.rstrip("\n"))
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted!r} did not come: {lines} {process.stderr.read()}")


def frames_until(process: subprocess.Popen, count: int) -> list[str]:
    """Read PERF lines of one second each until they add up to so many frames of stream 0."""
    lines, frames = [], 0.0
    while frames < count:
        lines += lines_until(process, "**PERF:  ")
        if PERF_VALUE.match(lines[-1]):
            frames += float(lines[-1].split()[1])
    return lines


def test_perf_lines_look_like_nvidias_and_sigint_ends_well(edited, program):
    folder = edited(streams=2, perf_interval_s=1)
    process = program(folder, "-c", "app.txt")
    lines = lines_until(process, "Pipeline running")
    # file-loop: more frames than the clip's six.
    lines += frames_until(process, 13)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.splitlines()[-2:] == ["Quitting", "App run successful"]
    perf = [line for line in lines if line.startswith("**PERF")]
    assert PERF_HEADER.match(perf[0]) and perf[0].count("FPS") == 2
    assert lines[lines.index(perf[0]) - 1] == ""
    assert all(PERF_VALUE.match(line) for line in perf[1:])


def test_keys_on_standard_input(edited, program):
    folder = edited(perf_interval_s=1)
    process = program(folder, "-c", "app.txt")
    lines_until(process, "Pipeline running")
    process.stdin.write("h")
    process.stdin.flush()
    lines_until(process, "Runtime commands:")
    process.stdin.write("p")
    process.stdin.flush()
    # Paused: sooner or later a whole interval without a frame.
    assert lines_until(process, "**PERF:  0.00 (")
    process.stdin.write("rq")
    process.stdin.flush()
    assert process.wait(timeout=60) == 0
    assert process.stdout.read().endswith("Quitting\nApp run successful\n")


def test_an_ended_standard_input_is_quiet(edited, program):
    folder = edited()
    process = program(folder, "-c", "app_video.txt", stdin=subprocess.DEVNULL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "\n\n\n" not in out


def test_sigint_finishes_the_video(edited, program):
    folder = edited({"app_video.txt": {"file-loop=0": "file-loop=1"}}, perf_interval_s=1)
    process = program(folder, "-c", "app_video.txt")
    frames_until(process, 13)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    pictures = read_video(folder / "video.mp4")
    # The loop goes on seamlessly: frame 6 is frame 0 again.
    assert len(pictures) >= 12
    assert np.abs(pictures[6].astype(int) - pictures[0]).mean() < 2


def test_two_configs_at_once_number_their_lines(edited, program):
    folder = edited(perf_interval_s=1)
    process = program(folder, "-c", "app.txt", "-c", "app.txt")
    assert lines_until(process, "PERF(1):  ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
