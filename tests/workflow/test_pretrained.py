"""The first weights: copied, or downloaded with resume and digest."""

import hashlib
import http.server
import threading

import pytest
from pretrained import fetch

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A web server on loopback; `ranges` lists the Range headers that it saw."""
    ranges = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/weights.pth":
                self.send_error(404)
                return
            wanted = self.headers.get("Range")
            ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", ranges
        web.shutdown()
        thread.join()


def url(address, digest=DIGEST, name="weights.pth"):
    return {"source": "url", "url": f"{address}/{name}", "sha256": digest}


def test_download(server, tmp_path):
    output = tmp_path / "pretrained/weights.pth"
    fetch(url(server[0]), output)
    assert output.read_bytes() == CONTENT


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    output = tmp_path / "weights.pth"
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:1000])
    fetch(url(server[0]), output)
    assert server[1] == ["bytes=1000-"]
    assert output.read_bytes() == CONTENT


def test_complete_part_is_taken_after_its_digest(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    fetch(url(server[0]), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_wrong_digest_leaves_nothing(server, tmp_path):
    with pytest.raises(
        ValueError, match=r"train\.pretrained\.sha256: .* has [0-9a-f]{64}, not 000"
    ):
        fetch(url(server[0], digest="0" * 64), tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


def test_missing_on_the_server_is_one_line(server, tmp_path):
    with pytest.raises(ValueError, match=r"train\.pretrained\.url: http.*404"):
        fetch(url(server[0], name="other.pth"), tmp_path / "weights.pth")


def test_server_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="run again to go on"):
        fetch(url("http://127.0.0.1:9"), tmp_path / "weights.pth")


def test_file_is_copied(tmp_path):
    (tmp_path / "own.hdf5").write_bytes(b"weights")
    fetch({"source": "file", "path": str(tmp_path / "own.hdf5")}, tmp_path / "out/weights.hdf5")
    assert (tmp_path / "out/weights.hdf5").read_bytes() == b"weights"


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"train\.pretrained\.path: .*none\.hdf5 is no file"):
        fetch({"source": "file", "path": str(tmp_path / "none.hdf5")}, tmp_path / "weights.hdf5")
