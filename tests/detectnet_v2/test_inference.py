"""The task inference on images, folders and videos with known detections."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from detectnet_v2 import cli, inference, overlay, spec, video
from detectnet_v2.errors import DetectNetError
from PIL import Image

LINE = "{} 0.00 0 0.00 {:.3f} {:.3f} {:.3f} {:.3f} 0.00 0.00 0.00 0.00 0.00 0.00 0.00 {}"


@pytest.fixture
def write_spec(repository, tmp_path, color_detector):
    """A function that writes the recipe's inference spec for the colour detector."""

    def write(*replacements):
        source = repository / "tests/detectnet_v2/specs/tlt2_inference_tlt.txt"
        text = source.read_text()
        model = "/home/detectnet_v2/experiment_dir_retrain/weights/resnet18_detector_pruned.tlt"
        for old, new in (
            ("image_width: 960", "image_width: 160"),
            ("image_height: 544", "image_height: 96"),
            ("confidence_threshold: 0.9", "confidence_threshold: 0.5"),
            ("coverage_threshold: 0.00", "coverage_threshold: 0.5"),
            ("batch_size: 16", "batch_size: 2"),
            (model, str(color_detector)),
            *replacements,
        ):
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "inference.txt"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def run(capsys, monkeypatch):
    """A function that runs the command line: exit status and standard error."""
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)

    def call(*arguments):
        status = cli.main(["inference", *map(str, arguments)])
        return status, capsys.readouterr().err

    return call


def test_a_folder_of_images(run, write_spec, paint, tmp_path):
    folder = tmp_path / "in"
    paint(folder / "b.png", {"mask": [(1, 1)], "no-mask": [(3, 4)]})
    paint(folder / "a.PNG", {})
    paint(folder / "c.bmp", {"mask": [(1, 1)]})
    assert run("-e", write_spec(), "-i", folder, "-r", tmp_path / "r", "-k", "key") == (0, "")
    assert sorted(
        str(item.relative_to(tmp_path / "r")) for item in (tmp_path / "r").rglob("*")
    ) == [
        "images_annotated",
        "images_annotated/a.PNG",
        "images_annotated/b.png",
        "labels",
        "labels/a.txt",
        "labels/b.txt",
        "status.json",
    ]
    assert (tmp_path / "r/labels/a.txt").read_text() == ""
    assert (tmp_path / "r/labels/b.txt").read_text().splitlines() == [
        LINE.format("mask", 16, 16, 32, 32, "0.881"),
        LINE.format("no-mask", 48, 64, 64, 80, "0.881"),
    ]
    status = [json.loads(line)["status"] for line in (tmp_path / "r/status.json").open()]
    assert status == ["STARTED", "SUCCESS"]
    with Image.open(tmp_path / "r/images_annotated/b.png") as image:
        # Lines of the class's colour grow outwards: four of them from the box.
        assert [image.getpixel((place, 30)) for place in (11, 13, 16, 35)] == [
            (0, 0, 0),
            (0, 255, 0),
            (0, 255, 0),
            (0, 255, 0),
        ]
        assert image.getpixel((45, 72)) == (255, 0, 0)


def test_one_image_is_stretched_and_its_boxes_are_scaled_back(run, write_spec, paint, tmp_path):
    path = tmp_path / "wide.png"
    paint(path, {"mask": [(2, 1)]})
    with Image.open(path) as image:
        image.resize((640, 192), Image.Resampling.NEAREST).save(path)
    assert run("-e", write_spec(), "-i", path, "-r", tmp_path / "r", "-b", 5)[0] == 0
    (line,) = (tmp_path / "r/labels/wide.txt").read_text().splitlines()
    assert line.startswith("mask 0.00 0 0.00 128.000 32.000 192.000 64.000 ")
    with Image.open(tmp_path / "r/images_annotated/wide.png") as image:
        assert image.size == (640, 192)


def test_what_the_spec_leaves_out(run, write_spec, paint, tmp_path):
    paint(tmp_path / "in/a.png", {"mask": [(1, 1)], "no-mask": [(3, 4)]})
    path = write_spec(
        ("disable_overlay: false", 'disable_overlay: true postproc_classes: "no-mask"'),
        ('output_map: "no-mask"', 'output_map: "bare"'),
    )
    assert run("-e", path, "-i", tmp_path / "in", "-o", tmp_path / "r")[0] == 0
    assert not (tmp_path / "r/images_annotated").exists()
    (line,) = (tmp_path / "r/labels/a.txt").read_text().splitlines()
    assert line.startswith("bare ")
    path = write_spec(("kitti_dump: true", "kitti_dump: false"))
    assert run("-e", path, "-i", tmp_path / "in", "-r", tmp_path / "r2")[0] == 0
    assert not (tmp_path / "r2/labels").exists()


def test_a_class_of_the_default_entry_keeps_its_name(write_spec):
    settings = spec.load_inference(write_spec(('key:"no-mask"', 'key:"other"')))
    styles = overlay.class_styles(settings)
    assert [(style.name, style.color) for style in styles] == [
        ("mask", (0, 255, 0)),
        ("no-mask", (255, 255, 255)),
    ]


def test_boxes_are_clipped_to_the_frame_before_they_are_scaled():
    boxes = np.array([[-10, 20, 200, 50], [170, 10, 180, 20]], np.float32)
    moved = overlay.to_frame(boxes, (160, 96), (320, 96))
    assert moved.tolist() == [[0, 20, 320, 50], [320, 10, 320, 20]]


def test_a_damaged_image_does_not_keep_the_others_from_being_done(run, write_spec, paint, tmp_path):
    for name in ("a", "c"):
        paint(tmp_path / "in" / f"{name}.png", {"mask": [(1, 1)]})
    (tmp_path / "in/b.jpg").write_bytes(b"\xff\xd8\xff")
    status, errors = run("-e", write_spec(), "-i", tmp_path / "in", "-r", tmp_path / "r")
    assert status == cli.FAILED
    assert len(errors.splitlines()) == 1
    assert "b.jpg" in errors
    assert sorted(item.name for item in (tmp_path / "r/labels").iterdir()) == ["a.txt", "c.txt"]


XPM = """/* XPM */
static char *picture[] = {
"1 1 1 1",
"a c #ff0000",
"a"
};
"""


def test_an_image_that_cannot_be_drawn_on_is_refused_unless_nothing_is_drawn(
    run, write_spec, tmp_path
):
    path = tmp_path / "a.xpm"
    path.write_text(XPM)
    status, errors = run("-e", write_spec(), "-i", path, "-r", tmp_path / "r")
    assert status == cli.FAILED
    assert f"{path}: an overlay cannot be written as .xpm: convert the image to .png" in errors
    assert len(errors.splitlines()) == 1
    without = write_spec(("disable_overlay: false", "disable_overlay: true"))
    assert run("-e", without, "-i", path, "-r", tmp_path / "r") == (0, "")
    assert (tmp_path / "r/labels/a.txt").is_file()


@pytest.mark.parametrize(
    ("name", "reason"), [("a.png", "File too large"), ("a.msp", "cannot write mode RGB as MSP")]
)
def test_an_overlay_that_cannot_be_written_leaves_no_part(short_files, tmp_path, name, reason):
    pixels = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with short_files(5000), pytest.raises(DetectNetError) as caught:
        overlay.write_image(Image.fromarray(pixels), tmp_path / "out" / name)
    assert str(caught.value) == f"cannot write {tmp_path / 'out' / name}: {reason}"
    assert list((tmp_path / "out").iterdir()) == []


def write_video(path, columns, width=160, height=96, pix_fmt="yuv420p", **options):
    """Write a frame for each column, in which a cell of the second row is red."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for column in columns:
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[16:32, 16 * column : 16 * column + 16] = 255, 0, 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_video(run, write_spec, tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, range(3))
    # The colours of a video are not exact.
    path_of_spec = write_spec(("coverage_threshold: 0.5", "coverage_threshold: 0.4"))
    assert run("-e", path_of_spec, "-i", path, "-r", tmp_path / "r")[0] == 0
    for number in range(3):
        text = (tmp_path / f"r/labels/clip/{number:06d}.txt").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("mask")]
        assert [float(value) for value in line.split()[4:8]] == [
            16 * number,
            16,
            16 * number + 16,
            32,
        ]
    with av.open(str(tmp_path / "r/images_annotated/clip.mp4")) as container:
        frames = list(container.decode(video=0))
        assert len(frames) == 3
        assert (frames[0].width, frames[0].height) == (160, 96)
        assert float(container.streams.video[0].average_rate) == 10


def test_a_video_with_odd_sides_loses_its_last_row_and_column(run, write_spec, tmp_path):
    path = tmp_path / "odd.mp4"
    write_video(path, range(2), width=161, height=97, pix_fmt="yuv444p")
    assert run("-e", write_spec(), "-i", path, "-r", tmp_path / "r")[0] == 0
    assert len(list((tmp_path / "r/labels/odd").iterdir())) == 2
    with av.open(str(tmp_path / "r/images_annotated/odd.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(160, 96)] * 2


def spoil(path):
    """Overwrite the middle of a video of noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for pixels in rng.integers(0, 255, (30, 96, 160, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(content)


def cut(path):
    """Leave nothing of the index, which is at the end."""
    write_video(path, range(10))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def index_alone(path):
    """Leave the index of a video that begins with it."""
    write_video(path, range(10), movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])


def only_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (spoil, "clip.mp4: video is damaged: Invalid data found"),
        (cut, "clip.mp4: video cannot be opened: Invalid data found"),
        (index_alone, "clip.mp4: video has no frame that can be read: replace it"),
        (only_sound, "clip.mp4: has no video stream"),
    ],
)
def test_a_video_that_cannot_be_read_is_one_line(run, write_spec, tmp_path, make, message):
    path = tmp_path / "clip.mp4"
    make(path)
    status, errors = run("-e", write_spec(), "-i", path, "-r", tmp_path / "r")
    assert status == cli.FAILED
    lines = [line for line in errors.splitlines() if line.startswith("detectnet_v2 ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in errors
    assert not list((tmp_path / "r").rglob("*.mp4*"))


def test_damaged_files_of_a_folder_do_not_keep_the_videos_from_being_done(
    run, write_spec, tmp_path
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"\xff\xd8\xff")
    spoil(tmp_path / "in/b.mp4")
    write_video(tmp_path / "in/c.mp4", range(3))
    status, errors = run("-e", write_spec(), "-i", tmp_path / "in", "-r", tmp_path / "r")
    assert status == cli.FAILED
    assert "a.jpg" in errors and "b.mp4: video is damaged" in errors
    assert len(list((tmp_path / "r/labels/c").iterdir())) == 3
    assert [item.name for item in (tmp_path / "r/images_annotated").iterdir()] == ["c.mp4"]


def test_a_video_that_cannot_be_written_leaves_no_part(short_files, tmp_path):
    rng = np.random.default_rng(0)
    target = tmp_path / "out/clip.mp4"
    with (
        short_files(5000),
        pytest.raises(DetectNetError) as caught,
        video.video_writer(target, Fraction(10)) as writer,
    ):
        for pixels in rng.integers(0, 255, (60, 96, 160, 3), np.uint8):
            writer.write(pixels)
    assert str(caught.value) == f"cannot write {target}: File too large"
    assert list(target.parent.iterdir()) == []


def test_inputs_of_one_stem_keep_their_results(run, write_spec, paint, tmp_path, caplog):
    for name, column in (("a.png", 1), ("a.ppm", 2), ("a.png.png", 3), ("b.png", 4)):
        paint(tmp_path / "in" / name, {"mask": [(column, 1)]})
    assert run("-e", write_spec(), "-i", tmp_path / "in", "-r", tmp_path / "r")[0] == 0
    columns = {
        path.name: float(path.read_text().split()[4]) / 16
        for path in (tmp_path / "r/labels").iterdir()
    }
    assert columns == {"a.png.txt": 1, "a.ppm.txt": 2, "a.png.png.txt": 3, "b.txt": 4}
    assert "a.png, a.ppm have the same stem" in caplog.text


def test_videos_of_one_stem_keep_their_results(run, write_spec, tmp_path):
    (tmp_path / "in").mkdir()
    for name, column in (("a.mp4", 1), ("a.mkv", 2)):
        write_video(tmp_path / "in" / name, [column])
    path_of_spec = write_spec(("coverage_threshold: 0.5", "coverage_threshold: 0.4"))
    assert run("-e", path_of_spec, "-i", tmp_path / "in", "-r", tmp_path / "r")[0] == 0
    for name, column in (("a.mp4", 1), ("a.mkv", 2)):
        text = (tmp_path / f"r/labels/{name}/000000.txt").read_text()
        assert float(text.split()[4]) == 16 * column
        assert (tmp_path / f"r/images_annotated/{name}.mp4").is_file()


def test_cameras_by_number_and_device(tmp_path):
    assert inference.find_inputs("/dev/video3")[1:] == ([inference.Path("/dev/video3")], True)
    assert inference.find_inputs("12")[1:] == ([inference.Path("/dev/video12")], True)


def test_a_camera_until_ctrl_c(run, write_spec, tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", range(3))
    opened, really_open, frames_of = [], av.open, video.VideoSource.__iter__

    def open_stand_in(name, *mode, format=None):
        if name != "/dev/video5":
            return really_open(name, *mode, format=format)
        opened.append(format)
        return really_open(str(tmp_path / "clip.mp4"))

    def two_frames(source):
        frames = frames_of(source)
        yield next(frames)
        yield next(frames)
        raise KeyboardInterrupt

    monkeypatch.setattr(video.av, "open", open_stand_in)
    monkeypatch.setattr(video.VideoSource, "__iter__", two_frames)
    path_of_spec = write_spec(("coverage_threshold: 0.5", "coverage_threshold: 0.4"))
    assert run("-e", path_of_spec, "-i", "5", "-r", tmp_path / "r") == (0, "")
    assert opened == ["v4l2"]
    labels = sorted((tmp_path / "r/labels/video5").iterdir())
    assert [path.name for path in labels] == ["000000.txt", "000001.txt"]
    assert all("mask" in path.read_text() for path in labels)
    with really_open(str(tmp_path / "r/images_annotated/video5.mp4")) as container:
        assert len(list(container.decode(video=0))) == 2


def test_a_camera_that_is_not_there(run, write_spec, tmp_path):
    status, errors = run("-e", write_spec(), "-i", "99", "-r", tmp_path / "r")
    assert status == cli.FAILED
    assert "/dev/video99: camera cannot be opened" in errors


def test_nothing_to_detect_in(run, write_spec, paint, tmp_path):
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "picture.png", {})
    (tmp_path / "picture.png").rename(tmp_path / "picture")
    for name, message in (
        ("empty", "no image (.jpg .png .jpeg .ppm) and no video"),
        ("x", "no suc"),
        ("picture", "has no suffix of an image or a video"),
    ):
        status, errors = run("-e", write_spec(), "-i", tmp_path / name, "-r", tmp_path / "r")
        assert status == cli.FAILED
        assert message in errors
        assert len(errors.splitlines()) == 1


def test_models_that_do_not_fit(run, write_spec, paint, tmp_path, repository):
    paint(tmp_path / "a.png", {})
    arguments = ("-i", tmp_path / "a.png", "-r", tmp_path / "r")
    _, errors = run("-e", write_spec(("image_width: 160", "image_width: 176")), *arguments)
    assert "image_width 176 and image_height 96: the model takes 160 x 96" in errors
    engine = repository / "tests/detectnet_v2/specs/tlt2_inference_etlt.txt"
    _, errors = run("-e", engine, *arguments)
    assert "int8_v100.trt: a TensorRT engine runs on its own device only" in errors
    _, errors = run("-e", write_spec(), *arguments, "-b", "-1")
    assert errors == "detectnet_v2 inference: -b -1: at least 1 image a batch is needed\n"
    with pytest.raises(DetectNetError, match="names no model"):
        inference._model_of(spec.spec_pb2.InferencerConfig())
