"""Headers, messages, and round trips through the codec's own interpreter."""

import io
import os
import stat
import sys

import onnx
import pytest
from etlt.codec import KEY_VARIABLE, Codec, key_from_environment
from etlt.container import HDF5, ONNX, payload_kind, read_header, write_header
from etlt.environment import Environment, find_interpreter, make_environment
from etlt.errors import EtltError
from onnx import TensorProto, helper

HDF5_FILE = b"\x89HDF\r\n\x1a\n" + bytes(range(200))


@pytest.fixture
def model(tmp_path):
    """A small ONNX file."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    onnx.save(helper.make_model(graph, producer_name="test"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def executable(tmp_path):
    """Write a program named as an interpreter; returns the folder for the PATH."""

    def make(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path.parent

    return make


@pytest.mark.parametrize("name", ["", "input_1"])
def test_header_holds_the_name(name):
    file = io.BytesIO()
    write_header(file, name)
    assert file.getvalue() == len(name).to_bytes(4, "little") + name.encode()
    file.write(b"rest")
    file.seek(0)
    assert read_header(file, "a.etlt") == name
    assert file.read() == b"rest"


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"version https://git-lfs", b"\xff\xff\xff\xff", b"\x05\0\0\0ab"]
)
def test_what_is_no_etlt_is_refused(content):
    with pytest.raises(EtltError, match=r"a\.etlt: not an \.etlt"):
        read_header(io.BytesIO(content), "a.etlt")


def test_payloads_are_known_by_their_first_bytes(model):
    assert payload_kind(model.read_bytes()) == ONNX
    assert payload_kind(HDF5_FILE) == HDF5
    assert payload_kind(b"\x91\x5a\x00\x17") is None
    assert payload_kind(b"") is None


def test_round_trip(codec, model, tmp_path):
    codec.encrypt(model, tmp_path / "out/model.etlt", "a key")
    written = (tmp_path / "out/model.etlt").read_bytes()
    assert written[:4] == bytes(4)
    assert model.read_bytes() not in written
    assert codec.decrypt(tmp_path / "out/model.etlt", tmp_path / "back.onnx", "a key") == ""
    assert (tmp_path / "back.onnx").read_bytes() == model.read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_uff_payload_keeps_its_name(codec, tmp_path):
    (tmp_path / "model.uff").write_bytes(b"any bytes")
    codec.encrypt(tmp_path / "model.uff", tmp_path / "model.etlt", "k", name="input_1")
    assert codec.decrypt(tmp_path / "model.etlt", tmp_path / "back.uff", "k") == "input_1"
    assert (tmp_path / "back.uff").read_bytes() == b"any bytes"


def test_tlt_is_the_cipher_alone(codec, tmp_path):
    (tmp_path / "model.hdf5").write_bytes(HDF5_FILE)
    codec.encrypt_tlt(tmp_path / "model.hdf5", tmp_path / "model.tlt", "k")
    assert len((tmp_path / "model.tlt").read_bytes()) == len(HDF5_FILE)
    codec.decrypt_tlt(tmp_path / "model.tlt", tmp_path / "back.hdf5", "k")
    assert (tmp_path / "back.hdf5").read_bytes() == HDF5_FILE
    with pytest.raises(EtltError, match=f"no HDF5 file: the key in {KEY_VARIABLE} is not"):
        codec.decrypt_tlt(tmp_path / "model.tlt", tmp_path / "wrong.hdf5", "other")


def test_wrong_key_and_missing_file_leave_nothing(codec, model, tmp_path):
    codec.encrypt(model, tmp_path / "model.etlt", "a key")
    with pytest.raises(EtltError, match=r"no ONNX file: the key in ETLT_KEY is not the one"):
        codec.decrypt(tmp_path / "model.etlt", tmp_path / "back.onnx", "another")
    with pytest.raises(EtltError, match=r"gone\.onnx: no such file"):
        codec.encrypt(tmp_path / "gone.onnx", tmp_path / "gone.etlt", "k")
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["model.etlt", "model.onnx"]


def test_failure_of_the_codec_is_one_line(model, tmp_path):
    codec = Codec(sys.executable)
    assert not codec.works()
    with pytest.raises(EtltError, match=r"cannot encrypt it: ModuleNotFoundError") as caught:
        codec.encrypt(model, tmp_path / "a.etlt", "k")
    assert "\n" not in str(caught.value)
    with pytest.raises(EtltError, match="does not start"):
        Codec(tmp_path / "nothing").encrypt(model, tmp_path / "a.etlt", "k")


def test_key_is_on_no_command_line(model, tmp_path, executable):
    folder = executable(
        "spy", f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nenv >> {tmp_path}/arguments\n'
    )
    Codec(folder / "spy").encrypt(model, tmp_path / "a.etlt", "very secret")
    assert "encrypt" in (tmp_path / "arguments").read_text()
    assert "very secret" not in (tmp_path / "arguments").read_text()


def test_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a key")
    assert key_from_environment() == "a key"
    monkeypatch.setenv(KEY_VARIABLE, "")
    with pytest.raises(EtltError, match="set the environment variable ETLT_KEY"):
        key_from_environment()
    monkeypatch.setenv(KEY_VARIABLE, "with a\ntab")
    with pytest.raises(EtltError, match="control signs"):
        key_from_environment()


def test_codec_of_the_environment(codec, monkeypatch):
    monkeypatch.setenv("ETLT_CODEC_PYTHON", str(codec.python))
    assert Codec.from_environment().python == codec.python
    monkeypatch.setenv("ETLT_CODEC_PYTHON", "/nowhere/python")
    with pytest.raises(EtltError, match=r"/nowhere/python has no NVIDIA codec.*ETLT_CODEC_PYTHON"):
        Codec.from_environment()


def test_shims_are_no_interpreters(executable, monkeypatch, tmp_path):
    folder = executable("python3.12", "#!/bin/sh\necho 'version not set' >&2\nexit 127\n")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(
        EtltError, match=r"needs Python 3\.12 or 3\.10, and none starts here"
    ) as error:
        find_interpreter()
    assert str(folder / "python3.12") in str(error.value)
    pyenv = tmp_path / "pyenv/versions/3.10.4/bin"
    pyenv.mkdir(parents=True)
    (pyenv / "python").write_text("#!/bin/sh\nexit 0\n")
    (pyenv / "python").chmod(0o755)
    assert find_interpreter() == pyenv / "python"


def test_named_interpreter_must_be_of_the_right_version(executable):
    folder = executable("python", "#!/bin/sh\nexit 1\n")
    with pytest.raises(EtltError, match=r"export\.codec_python: .* is not Python 3\.12 or 3\.10"):
        find_interpreter(str(folder / "python"))


def test_environment_file(tmp_path, executable):
    with pytest.raises(EtltError, match="delete it and run again"):
        Environment.read(tmp_path / "environment.json")
    python = executable("python", "#!/bin/sh\nexit 0\n") / "python"
    # It starts and has the codec: taken as it is, nothing is installed.
    made = make_environment(tmp_path / "codec", tmp_path / "none.txt", named=str(python))
    assert made.python == python
    assert not (tmp_path / "codec/venv").exists()
    assert Environment.read(tmp_path / "codec/environment.json") == made
    python.unlink()
    with pytest.raises(EtltError, match="is gone; delete this file"):
        Environment.read(tmp_path / "codec/environment.json")


def test_failed_installation_is_one_line(tmp_path, executable):
    text = """#!/bin/sh
    case "$*" in
        *venv*) echo "no ensurepip"; exit 1;;
        *tao_codec*) exit 1;;
    esac
    """
    python = executable("python", text) / "python"
    with pytest.raises(EtltError, match=r"makes no virtual environment in .*: no ensurepip"):
        make_environment(tmp_path / "codec", tmp_path / "none.txt", named=str(python))
    assert not (tmp_path / "codec/environment.json").exists()


@pytest.mark.slow
def test_nvidias_codec_gives_back_every_byte(real_codec, model, tmp_path):
    real_codec.encrypt(model, tmp_path / "model.etlt", "nvidia_tlt")
    size = len(model.read_bytes())
    assert len((tmp_path / "model.etlt").read_bytes()) == 4 + size + 16
    assert real_codec.decrypt(tmp_path / "model.etlt", tmp_path / "back.onnx", "nvidia_tlt") == ""
    assert (tmp_path / "back.onnx").read_bytes() == model.read_bytes()
    with pytest.raises(EtltError, match="the key in ETLT_KEY is not the one"):
        real_codec.decrypt(tmp_path / "model.etlt", tmp_path / "wrong.onnx", "tlt_encode")
    (tmp_path / "model.hdf5").write_bytes(HDF5_FILE + os.urandom(100_000))
    real_codec.encrypt_tlt(tmp_path / "model.hdf5", tmp_path / "model.tlt", "k")
    real_codec.decrypt_tlt(tmp_path / "model.tlt", tmp_path / "back.hdf5", "k")
    assert (tmp_path / "back.hdf5").read_bytes() == (tmp_path / "model.hdf5").read_bytes()
