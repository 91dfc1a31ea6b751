"""The first weights: copied, or downloaded with resume and digest."""

import hashlib
import http.server
import json
import socket
import threading

import pytest
from pretrained import fetch, fetch_ngc, main, part_of

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A web server on loopback: its address, the Range headers that it saw, and NGC's paths.

    It hangs up after the number of bytes in its fourth part, when that is not zero.
    """
    ranges, paths, drops = [], [], [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            if self.path == "/v2/models/org/private/thing/v1/files?redirect=true&path=v1.hdf5":
                self.send_error(401)
                return
            if self.path != "/weights.pth" and not self.path.startswith("/v2/models/org/nvidia/"):
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
            # Promises all, and hangs up early.
            self.wfile.write(CONTENT[start : start + (drops[0] or len(CONTENT))])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", ranges, paths, drops
        web.shutdown()
        thread.join()


def url(address, digest=DIGEST, name="weights.pth"):
    return {"source": "url", "url": f"{address}/{name}", "sha256": digest}


def test_download(server, tmp_path):
    output = tmp_path / "pretrained/weights.pth"
    fetch(url(server[0]), output)
    assert output.read_bytes() == CONTENT


def test_a_long_download_tells_how_far_it_is(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("detectnet_v2.progress.SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr("pretrained.CHUNK", 1 << 18)
    with caplog.at_level("INFO"):
        fetch(url(server[0]), tmp_path / "first.hdf5")
    assert caplog.messages[0].startswith("1 of 4 MiB of first.hdf5, ")


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    output = tmp_path / "weights.pth"
    part_of(f"{server[0]}/weights.pth", output).write_bytes(CONTENT[:1000])
    fetch(url(server[0]), output)
    assert server[1] == ["bytes=1000-"]
    assert output.read_bytes() == CONTENT


def test_complete_part_is_taken_after_its_digest(server, tmp_path):
    output = tmp_path / "weights.pth"
    part_of(f"{server[0]}/weights.pth", output).write_bytes(CONTENT)
    fetch(url(server[0]), output)
    assert output.read_bytes() == CONTENT


def test_what_another_address_sent_is_not_gone_on_with(server, tmp_path):
    output = tmp_path / "weights.hdf5"
    part_of("http://elsewhere/weights.hdf5", output).write_bytes(b"other" * 200)
    (tmp_path / "weights.hdf5.part").write_bytes(b"copied" * 200)
    fetch_ngc("nvidia/thing:v1", None, output, site=server[0])
    assert output.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [output]


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


@pytest.mark.parametrize("name", ["own.hdf5", "own.tlt"])
def test_file_with_another_digest_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(CONTENT)
    source = {"source": "file", "path": str(tmp_path / name), "sha256": DIGEST}
    output = tmp_path / "out/weights.hdf5"
    fetch(source, output)
    output.unlink()
    (tmp_path / name).write_bytes(b"other")
    codec = [tmp_path / "environment.json"] if name.endswith(".tlt") else []
    told = rf"train\.pretrained\.sha256: {tmp_path}/own.* has [0-9a-f]{{64}}, not {DIGEST}; is it"
    with pytest.raises(ValueError, match=told):
        fetch(source, output, *codec)
    assert list(output.parent.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, short_files, capsys):
    (tmp_path / "own.hdf5").write_bytes(CONTENT)
    (tmp_path / "out").mkdir()
    source = json.dumps({"source": "file", "path": str(tmp_path / "own.hdf5")})
    with short_files(1000):
        assert main([source, str(tmp_path / "out/weights.hdf5")]) == 1
    assert "File too large" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"train\.pretrained\.path: .*none\.hdf5 is no file"):
        fetch({"source": "file", "path": str(tmp_path / "none.hdf5")}, tmp_path / "weights.hdf5")


def test_connection_that_drops_is_taken_up_until_the_file_is_whole(server, tmp_path):
    server[3][0] = 300_000
    output = tmp_path / "weights.pth"
    fetch(url(server[0]), output)
    assert server[1] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert output.read_bytes() == CONTENT


def test_server_that_sends_no_more_is_given_up_and_the_part_kept(tmp_path):
    """Answers the first request with a piece and the rest with nothing."""
    output = tmp_path / "weights.pth"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for body in (CONTENT[:1000], b"", b"", b""):
                connection, _ = listener.accept()
                with connection:
                    request = connection.recv(4096)
                    status = b"206 Partial" if b"Range:" in request else b"200 OK"
                    length = str(len(CONTENT)).encode()
                    connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: " + length)
                    connection.sendall(b"\r\n\r\n" + body)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ValueError, match="run again to go on"):
            fetch(url(address), output)
        thread.join()
    assert part_of(f"{address}/weights.pth", output).read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (
            "nvidia/tlt_pretrained_detectnet_v2:resnet18",
            "org/nvidia/tlt_pretrained_detectnet_v2/resnet18/files?redirect=true&path=resnet18.hdf5",
        ),
        (
            "nvidia/tao/pretrained_detectnet_v2:resnet18",
            "org/nvidia/team/tao/pretrained_detectnet_v2/resnet18/files?redirect=true"
            "&path=resnet18.hdf5",
        ),
    ],
)
def test_backbone_of_ngc_by_its_url(server, tmp_path, monkeypatch, model, path):
    monkeypatch.setenv("PATH", str(tmp_path))
    fetch_ngc(model, DIGEST, tmp_path / "weights.hdf5", site=server[0])
    assert server[2] == [f"/v2/models/{path}"]
    assert (tmp_path / "weights.hdf5").read_bytes() == CONTENT


def test_backbone_of_ngc_with_another_digest(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"train\.pretrained\.sha256: "):
        fetch_ngc("nvidia/x:resnet18", "0" * 64, tmp_path / "weights.hdf5", site=server[0])
    assert list(tmp_path.iterdir()) == []


def test_model_that_ngc_wants_a_login_for(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"401.*install its program `ngc`, run `ngc config set`"):
        fetch_ngc("private/thing:v1", None, tmp_path / "weights.hdf5", site=server[0])


NGC_PROGRAM = """#!/bin/sh
[ "$1 $2 $3 $4 $5" = "registry model download-version nvidia/thing:resnet18 --dest" ] || exit 2
mkdir "$6/thing_vresnet18" && printf weights > "$6/thing_vresnet18/resnet18.hdf5"
"""


@pytest.fixture
def ngc(tmp_path, monkeypatch):
    """A folder on the PATH: a function that puts a program `ngc` there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(text):
        (folder / "ngc").write_text(text)
        (folder / "ngc").chmod(0o755)

    return write


def test_backbone_of_ngc_with_its_own_program(ngc, tmp_path):
    ngc(NGC_PROGRAM)
    output = tmp_path / "pretrained/weights.hdf5"
    fetch({"source": "ngc", "model": "nvidia/thing:resnet18"}, output)
    assert output.read_bytes() == b"weights"
    assert [path.name for path in output.parent.iterdir()] == ["weights.hdf5"]


def test_ngc_without_a_login_is_one_line(ngc, tmp_path):
    ngc("#!/bin/sh\necho 'Error: Invalid apikey' >&2\nexit 1\n")
    with pytest.raises(
        ValueError, match=r"Invalid apikey; `ngc config set` takes your NGC API key"
    ):
        fetch({"source": "ngc", "model": "nvidia/thing:resnet18"}, tmp_path / "weights.hdf5")
