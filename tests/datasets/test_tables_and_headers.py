"""The tables between the steps, image headers against Pillow, and the fingerprint."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import headers, tables
from datasets.errors import DatasetError
from datasets.fingerprint import fingerprint, walk
from datasets.headers import ImageHeaderError, image_size
from PIL import Image


@pytest.mark.parametrize(
    "path", ["a/b c(1).jpg", "a\\b", "a\\\\x41", "\udce9\udcff.jpg", "line\nbreak\r", "口罩", "\\n"]
)
def test_escape_round_trip(path):
    text = tables.escape(path)
    text.encode("utf-8")
    assert "\n" not in text
    assert tables.unescape(text) == path


def test_a_table_appears_whole_or_not_at_all(tmp_path):
    def rows():
        yield ("kaggle", "a.jpg", "0" * 8)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "deep" / "groups.csv"
    with pytest.raises(OSError, match="No space left"):
        tables.write(path, tables.GROUPS, rows())
    assert list(path.parent.iterdir()) == []


def test_a_table_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("dataset,image\n")
    with pytest.raises(DatasetError, match=r"columns are dataset,image, not dataset,image,group"):
        list(tables.read(path, tables.GROUPS))


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF"])
def test_sizes_of_all_formats(suffix, tmp_path):
    path = tmp_path / "image"
    Image.new("RGB", (123, 45)).save(path, suffix)
    assert image_size(path) == (123, 45)


def test_jpeg_with_a_header_longer_than_one_read(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (70, 50)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    for size in (5000, headers.HEADER_BYTES - 20, headers.HEADER_BYTES, 60000):
        segment = b"\xff\xe1" + (size + 2).to_bytes(2, "big") + bytes(size)
        path = tmp_path / "exif.jpg"
        path.write_bytes(data[:2] + segment * 3 + b"\xff" + data[2:])
        assert image_size(path) == (70, 50)


def test_every_truncation_of_a_header_is_an_error(tmp_path, photo):
    data = photo(tmp_path / "a.jpg").read_bytes()
    frame = data.index(b"\xff\xc0")
    path = tmp_path / "cut.jpg"
    for length in (*range(0, frame + 8, 7), frame + 8):
        path.write_bytes(data[:length])
        with pytest.raises(ImageHeaderError):
            image_size(path)


def test_headers_agree_with_pillow_on_real_photographs(shared_data):
    paths = [entry.path for entry in walk(shared_data / "raw" / "medical-masks" / "images")]
    for path in paths[::5]:
        with Image.open(path) as image:
            assert image_size(path) == image.size


def test_fingerprint_follows_files(voc):
    dataset = voc({"a.jpg": [], "b/c.jpg": []})
    first = fingerprint(dataset, "train")
    assert fingerprint(dataset, "train") == first
    label = Path(dataset["root"], "labels/b/c.xml")
    os.utime(label, ns=(1, 1))
    second = fingerprint(dataset, "train")
    assert second != first
    label.unlink()
    assert fingerprint(dataset, "train") not in (first, second)


def test_fingerprint_never_raises(voc, tmp_path):
    dataset = voc({"a.jpg": []})
    missing = {**dataset, "root": str(tmp_path / "gone")}
    assert fingerprint(missing, "train").startswith("missing: ")
    assert str(tmp_path / "gone") in fingerprint(missing, "train")
    assert fingerprint(dataset, "val").startswith("missing")
    assert fingerprint({}, "train").startswith("missing")


def test_fingerprint_ends_where_links_make_a_circle(voc):
    dataset = voc({"a.jpg": []})
    Path(dataset["root"], "images/again").symlink_to(Path(dataset["root"], "images"))
    assert not fingerprint(dataset, "train").startswith("missing")


@pytest.mark.parametrize("target", ["nowhere.jpg", "b.jpg"])
def test_fingerprint_follows_the_other_files_beside_a_broken_link(voc, target):
    dataset = voc({"a.jpg": []})
    whole = fingerprint(dataset, "train")
    link = Path(dataset["root"], "images/b.jpg")
    link.symlink_to(target)
    first = fingerprint(dataset, "train")
    os.utime(link.with_name("a.jpg"), ns=(1, 1))
    second = fingerprint(dataset, "train")
    assert len({whole, first, second}) == 3
    assert not second.startswith("missing")


def test_a_walk_goes_on_after_a_folder_that_cannot_be_listed(tmp_path):
    for name in ("a.jpg", "gone/b.jpg", "there/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    faults = []
    entries = walk(tmp_path, faults.append)
    found = [next(entries).name]
    shutil.rmtree(tmp_path / "gone")
    assert [*found, *(entry.name for entry in entries)] == ["a.jpg", "c.jpg"]
    assert [fault.filename for fault in faults] == [str(tmp_path / "gone")]
    with pytest.raises(FileNotFoundError):
        list(walk(tmp_path / "gone"))


def test_parsing_rules_imports_nothing_heavy(repository):
    code = (
        "import sys; sys.path.insert(0, 'scripts');"
        "import datasets.fingerprint, datasets.errors, datasets;"
        "heavy = ('numpy', 'pandas', 'PIL', 'scipy', 'cv2', 'torch');"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
