"""A .tlt becomes the HDF5 that it holds, by the codec's stand-in and by NVIDIA's own."""

import json
import os
import subprocess
import sys

import pytest
from decrypt_model import decrypt_model
from etlt.errors import EtltError
from pretrained import fetch

CONTENT = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 40
KEY = "nvidia_tlt"


@pytest.fixture
def key(monkeypatch):
    """The key in the environment."""
    monkeypatch.setenv("ETLT_KEY", KEY)


@pytest.fixture
def encrypted(tmp_path):
    """A function that writes a .tlt with a codec; returns it and the codec's environment.json."""

    def write(codec):
        (tmp_path / "plain.hdf5").write_bytes(CONTENT)
        codec.encrypt_tlt(tmp_path / "plain.hdf5", tmp_path / "model.tlt", KEY)
        assert (tmp_path / "model.tlt").read_bytes() != CONTENT
        (tmp_path / "environment.json").write_text(json.dumps({"python": str(codec.python)}))
        return tmp_path / "model.tlt", tmp_path / "environment.json"

    return write


def test_decrypted(codec, encrypted, key, tmp_path):
    tlt, environment = encrypted(codec)
    decrypt_model(tlt, tmp_path / "out/model.hdf5", environment)
    assert (tmp_path / "out/model.hdf5").read_bytes() == CONTENT


@pytest.mark.slow
def test_decrypted_by_nvidias_codec(real_codec, encrypted, key, tmp_path):
    tlt, environment = encrypted(real_codec)
    decrypt_model(tlt, tmp_path / "model.hdf5", environment)
    assert (tmp_path / "model.hdf5").read_bytes() == CONTENT


def test_first_weights_of_a_tlt(codec, encrypted, key, tmp_path):
    tlt, environment = encrypted(codec)
    fetch({"source": "file", "path": str(tlt)}, tmp_path / "weights.hdf5", environment)
    assert (tmp_path / "weights.hdf5").read_bytes() == CONTENT


def test_another_key_leaves_nothing(codec, encrypted, monkeypatch, tmp_path):
    tlt, environment = encrypted(codec)
    monkeypatch.setenv("ETLT_KEY", "another")
    with pytest.raises(EtltError, match="the key in ETLT_KEY is not the one"):
        decrypt_model(tlt, tmp_path / "model.hdf5", environment)
    with pytest.raises(ValueError, match=r"train\.pretrained\.path: .*ETLT_KEY is not the one"):
        fetch({"source": "file", "path": str(tlt)}, tmp_path / "weights.hdf5", environment)
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "model.hdf5").exists()


def test_as_a_program(codec, encrypted, key, repository, tmp_path):
    tlt, _ = encrypted(codec)
    script = repository / "scripts/decrypt_model.py"
    done = subprocess.run(
        [sys.executable, script, tlt, tmp_path / "model.hdf5"],
        env=os.environ | {"ETLT_CODEC_PYTHON": str(codec.python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.hdf5").read_bytes() == CONTENT
