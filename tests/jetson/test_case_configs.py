"""What a rendered config folder says about its case."""

import hashlib

import pytest
from jetson import cases
from jetson.errors import JetsonError


def read(folder, name="chosen-gpu"):
    files = {f"{name}/{path.name}": path for path in folder.iterdir()}
    return cases.read(name, folder, files)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_case(rendered):
    case = read(rendered("chosen-gpu", model=b"abc"))
    assert (case.model, case.engine, case.precision) == ("chosen", "gpu", "fp16")
    assert (case.streams, case.batch, case.perf_interval_s) == (2, 2, 1)
    assert case.model_file == "chosen-gpu/model.onnx"
    assert case.model_sha256 == hashlib.sha256(b"abc").hexdigest()


def test_model_name_with_a_dash(rendered):
    case = read(rendered("my-model-dla0"), "my-model-dla0")
    assert (case.model, case.engine) == ("my-model", "dla0")


def test_streams(rendered):
    folder = rendered("chosen-gpu")
    app = folder / "app.txt"
    app.write_text(app.read_text() + "[source1]\nenable=0\ntype=3\nnum-sources=9\n")
    assert read(folder).streams == 2
    replace(app, "enable=0", "enable=1")
    assert read(folder).streams == 11
    replace(app, "type=3\nnum-sources=9", "type=2\nnum-sources=9")
    assert read(folder).streams == 3


def test_int8_engine_follows_from_its_calibration(rendered):
    folder = rendered("chosen-gpu")
    infer = folder / "config_infer_primary.txt"
    fp16 = read(folder).engine_key("Jetson Nano", "8.2.1")
    replace(infer, "network-mode=2", "network-mode=1\nint8-calib-file=cal.bin")
    (folder / "cal.bin").write_bytes(b"one")
    one = read(folder).engine_key("Jetson Nano", "8.2.1")
    (folder / "cal.bin").write_bytes(b"two")
    two = read(folder).engine_key("Jetson Nano", "8.2.1")
    assert len({fp16, one, two}) == 3
    assert "int8" in one and "Jetson_Nano" in one and "trt8.2.1" in one


@pytest.mark.parametrize(
    "change",
    [
        {"board": "other", "tensorrt": "8.2.1"},
        {"board": "Jetson Nano", "tensorrt": "8.5.2"},
    ],
)
def test_engines_do_not_move(rendered, change):
    case = read(rendered("chosen-gpu"))
    assert case.engine_key(**change) != case.engine_key("Jetson Nano", "8.2.1")


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("app.txt", "enable-perf-measurement=1", "enable-perf-measurement=0", "would be measured"),
        ("app.txt", "[source0]\nenable=1", "[source0]\nenable=0", "no .sourceN. is enabled"),
        ("app.txt", "[primary-gie]", "[secondary-gie]", "'primary-gie' is missing"),
        ("app.txt", "config-file=", "config-file=../../", "which is not pushed"),
        ("config_infer_primary.txt", "network-mode=2", "network-mode=7", "network-mode=7"),
        ("config_infer_primary.txt", "network-mode=2", "", "'network-mode' is missing"),
        ("config_infer_primary.txt", "labels.txt", "/etc/labels.txt", "'/etc/labels.txt', which"),
        ("config_infer_primary.txt", "[property]", "[property", "not a .group."),
    ],
)
def test_configs_that_cannot_be_measured(rendered, file, old, new, complaint):
    folder = rendered("chosen-gpu")
    replace(folder / file, old, new)
    with pytest.raises(JetsonError, match=complaint) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["chosen", "../x-gpu", "a b-gpu", "-gpu", "x;y-gpu"])
def test_names_of_cases(rendered, name):
    with pytest.raises(JetsonError, match="is no name of a case"):
        read(rendered("chosen-gpu"), name)
