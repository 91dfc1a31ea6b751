"""Fixtures that every area of the tests shares."""

import fcntl
import json
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from etlt.codec import Codec
from etlt.environment import find_interpreter, make_environment
from etlt.errors import EtltError

REPOSITORY = Path(__file__).resolve().parents[1]
# The folder of the tests that share the small run of the workflow.
WITH_SMALL_RUN = "tests/workflow/"
TENSORFLOW = ".venv-tensorflow"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--v=0"),
)
# Browser windows have a least width, frames have none.
FRAME = """
<iframe src="probed.html" style="border: 0; width: WIDTHpx; height: 2000px"></iframe>
<pre id="probe"></pre>
<script>
addEventListener("message", event => document.getElementById("probe").textContent = event.data);
</script>
"""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, as by nohup. What the tests start shall hear Ctrl-C all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.get("TEST_DEVICE") != "cuda":
    # The tests say the same on every machine, and only on CPUs do seeds repeat bit for bit.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; this must stand before PyTorch and NumPy are loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Let each process take a file's tests at a time, and one of them all of the small run's."""
    from xdist.scheduler import LoadScopeScheduling

    class FilesAndTheSmallRun(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return WITH_SMALL_RUN if file.startswith(WITH_SMALL_RUN) else file

    return FilesAndTheSmallRun(config, log)


# No cipher, but the key matters and the calls must be right.
STAND_IN = """
def encrypt_stream(source, target, key, encryption=True, rewind=True):
    assert encryption and not rewind and isinstance(key, bytes)
    target.write(bytes(byte ^ (sum(key) % 255 + 1) for byte in source.read()))

decrypt_stream = encrypt_stream
"""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs in the raw layouts, beside the checkout; the test skips without them."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real photographs in {folder}")
    return folder


@pytest.fixture
def short_files() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file can be longer than so many bytes: a write stops in its middle.

    What a full disk does, without a disk.
    """

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def terminal(monkeypatch) -> Callable[..., AbstractContextManager[bytearray]]:
    """A context in which stderr is a terminal; afterwards its value is what the terminal got.

    With `lines=True` the user has asked for lines instead of bars.
    """

    @contextmanager
    def make(*, lines: bool = False) -> Iterator[bytearray]:
        reading, writing = pty.openpty()
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        got = bytearray()

        def read() -> None:
            # A pseudo-terminal tells its end by an error.
            with suppress(OSError):
                while data := os.read(reading, 65536):
                    got.extend(data)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            with os.fdopen(writing, "w", encoding="utf-8") as stream, monkeypatch.context() as own:
                own.setattr(sys, "stderr", stream)
                own.setenv("TQDM_DISABLE", "1" if lines else "")
                yield got
        finally:
            reader.join()
            os.close(reading)

    return make


@pytest.fixture(scope="session")
def codec(tmp_path_factory) -> Codec:
    """A stand-in for NVIDIA's codec, in an interpreter of its own like the real one."""
    venv = tmp_path_factory.mktemp("codec") / "stand-in"
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


@pytest.fixture(scope="session")
def tensorflow(repository) -> Callable[..., None]:
    """A function that runs a command of tests/tensorflow/program.py in TensorFlow's environment.

    That has pins of its own, so it is not this one; the test skips without it.
    """
    python = repository / TENSORFLOW / "bin/python"
    if not python.exists():
        pytest.skip(f"needs {TENSORFLOW}, which `make test-all` makes")

    def run(*arguments: object) -> None:
        program = repository / "tests/tensorflow/program.py"
        command = [str(python), str(program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")

    return run


@pytest.fixture
def probe(tmp_path) -> Callable[..., tuple[Any, list[str]]]:
    """A function that opens a page at a width in Chromium, with a script added that posts JSON to
    the page's parent; returns that and the console's lines. The test skips without Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip(f"needs one of {', '.join(BROWSERS)} on the PATH")

    def run(page: Path, script: str, width: int, *flags: str) -> tuple[Any, list[str]]:
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.replace("WIDTH", str(width)))
        before, end, after = page.read_text(encoding="utf-8").rpartition("</body>")
        (tmp_path / "probed.html").write_text(f"{before}<script>{script}</script>{end}{after}")
        done = subprocess.run(
            [browser, *BROWSER_FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}",
             "--window-size=1500,2100", "--virtual-time-budget=10000", "--dump-dom",
             f"file://{frame}"],
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        found = re.search(r'<pre id="probe">(.+?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr[-2000:]
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return json.loads(unescape(found[1])), console

    return run


@pytest.fixture
def legible(probe, repository) -> Callable[..., dict[str, Any]]:
    """A function that opens a report at a width, asserts that all in it is legible, and returns its
    figures, pictures and tables."""
    script = (repository / "tests/report/layout.js").read_text(encoding="utf-8")

    def check(page: Path, width: int, *flags: str) -> dict[str, Any]:
        found, console = probe(page, script, width, *flags)
        assert console == []
        assert found["width"] == width
        assert found["page"] <= width
        for figure in found["figures"]:
            assert figure["inside"], figure
            assert figure["width"] >= min(0.8 * width, 480), figure
            assert figure["smallest"] >= 8.5, figure
            assert figure["outside"] == [], figure
            assert figure["covered"] == [], figure
        assert all(p["inside"] and p["pixels"] > 100 for p in found["pictures"])
        assert all(found["tables"])
        return found

    return check
