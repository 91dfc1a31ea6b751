"""A stand-in for NVIDIA's package, for what does not need the real one, and the real one."""

import subprocess
import sys
from pathlib import Path

import pytest
from etlt.codec import Codec
from etlt.environment import find_interpreter, make_environment
from etlt.errors import EtltError

# No cipher, but the key matters and the calls must be right.
STAND_IN = """
def encrypt_stream(source, target, key, encryption=True, rewind=True):
    assert encryption and not rewind and isinstance(key, bytes)
    target.write(bytes(byte ^ (sum(key) % 255 + 1) for byte in source.read()))

decrypt_stream = encrypt_stream
"""


@pytest.fixture
def codec(tmp_path) -> Codec:
    """An interpreter with the stand-in, started as the real one would be."""
    venv = tmp_path / "stand-in"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (package,) = venv.glob("lib/python*/site-packages")
    (package / "eff_tao_encryption").mkdir()
    (package / "eff_tao_encryption/__init__.py").touch()
    (package / "eff_tao_encryption/tao_codec.py").write_text(STAND_IN)
    return Codec(venv / "bin/python")


@pytest.fixture(scope="session")
def real_codec(tmp_path_factory, repository) -> Codec:
    """NVIDIA's codec in an environment of its own; skips where it cannot be installed."""
    folder: Path = tmp_path_factory.mktemp("codec")
    try:
        find_interpreter()
        return Codec(make_environment(folder, repository / "envs/codec.txt").python)
    except EtltError as error:
        pytest.skip(f"NVIDIA's codec is not available: {error}")
