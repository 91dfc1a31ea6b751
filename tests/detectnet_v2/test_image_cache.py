import os
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from detectnet_v2 import image_cache
from detectnet_v2.errors import DetectNetError
from detectnet_v2.image_cache import CachedImages, DecodedImages, content_digest, open_images
from detectnet_v2.images import read_image, stretch
from PIL import Image


@pytest.fixture
def files(tmp_path) -> list[Path]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    paths = []
    for i, (width, height, suffix) in enumerate([(20, 10, "png"), (8, 12, "jpg"), (5, 5, "png")]):
        path = folder / f"{i}.{suffix}"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def opened(files, tmp_path, **options):
    return open_images(files, directory=tmp_path / "cache", digest=content_digest(files), **options)


def test_cached_images_are_the_decoded_ones(files, tmp_path):
    images = opened(files, tmp_path)
    assert isinstance(images, CachedImages)
    assert len(images) == 3
    for image, path in zip([images[i] for i in range(3)], files, strict=True):
        assert image.dtype == np.uint8
        assert np.array_equal(image, read_image(path))
        assert not image.flags.writeable


def test_a_second_opening_decodes_nothing(files, tmp_path, monkeypatch):
    first = opened(files, tmp_path)[1].copy()
    digest = content_digest(files)
    monkeypatch.setattr(image_cache, "read_image", lambda path: pytest.fail(f"decoded {path}"))
    again = open_images(files, directory=tmp_path / "cache", digest=digest)
    assert np.array_equal(again[1], first)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()].count(".images") == 1


def test_a_changed_image_or_size_makes_another_file(files, tmp_path):
    opened(files, tmp_path)
    Image.new("RGB", (20, 10), (1, 2, 3)).save(files[0])
    assert opened(files, tmp_path)[0][0, 0].tolist() == [1, 2, 3]
    assert opened(files, tmp_path, size=(6, 4))[0].shape == (4, 6, 3)
    assert len(list((tmp_path / "cache").glob("*.images"))) == 3


def test_trainings_that_start_at_once_decode_once(files, tmp_path, monkeypatch):
    decoded = []

    def slow_read(path):
        decoded.append(path)
        time.sleep(0.05)
        return read_image(path)

    monkeypatch.setattr(image_cache, "read_image", slow_read)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(opened(files, tmp_path)[2].copy()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == sorted(files)
    assert len(results) == 4
    assert all(np.array_equal(result, results[0]) for result in results)


def test_a_damaged_image_is_named_and_leaves_no_cache(files, tmp_path):
    files[1].write_bytes(files[1].read_bytes()[:200])
    with pytest.raises(DetectNetError, match=r"1\.jpg: not a readable image"):
        opened(files, tmp_path)
    assert not list((tmp_path / "cache").glob("*.images*"))


def test_a_file_that_is_no_image_is_named(files, tmp_path):
    files[2].write_text("hello")
    with pytest.raises(DetectNetError, match=r"2\.png: not a readable image"):
        opened(files, tmp_path)


def test_an_image_too_big_for_pillow_is_named(tmp_path):
    path = tmp_path / "big.png"
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(DetectNetError, match=r"big\.png: image is too big .*: replace it$"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_levels(tmp_path, suffix):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(levels * 256 + 255 - levels).save(path)
    assert np.array_equal(read_image(path), np.stack([levels] * 3, axis=2))


def test_without_a_writable_folder_images_are_decoded_each_time(files, tmp_path, caplog):
    (tmp_path / "cache").write_text("in the way")
    images = opened(files, tmp_path, size=(6, 4))
    assert isinstance(images, DecodedImages)
    assert np.array_equal(images[0], stretch(read_image(files[0]), 6, 4))
    assert "native.cache_directory" in caplog.text


def test_without_room_on_the_disk_images_are_decoded_each_time(files, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "_SPARE_BYTES", 1 << 62)
    assert isinstance(opened(files, tmp_path), DecodedImages)
    assert not list((tmp_path / "cache").glob("*.images*"))


def test_caches_unused_for_long_are_removed(files, tmp_path):
    opened(files, tmp_path)
    old = next((tmp_path / "cache").glob("*.images"))
    os.utime(old, (0, 0))
    opened(files[:2], tmp_path)
    assert not old.exists()


def test_what_a_kill_has_left_is_removed_and_what_is_being_written_is_not(files, tmp_path):
    (tmp_path / "cache").mkdir()
    left, written = (tmp_path / f"cache/{name}.images.12.part" for name in "ab")
    for path in (left, written):
        path.write_bytes(b"pixels")
    os.utime(left, (0, 0))
    # One that another process takes away after it was listed.
    (tmp_path / "cache/c.images").symlink_to("nowhere")
    assert isinstance(opened(files, tmp_path), CachedImages)
    assert not left.exists()
    assert written.exists()


def test_the_digest_is_of_contents_not_of_names_or_times(files, tmp_path):
    digest = content_digest(files)
    os.utime(files[0], (0, 0))
    renamed = [path.rename(tmp_path / path.name) for path in files]
    assert content_digest(renamed) == digest
    assert content_digest(renamed[::-1]) != digest
    with pytest.raises(DetectNetError, match="cannot be read"):
        content_digest(files)


def test_stretching_reads_corner_to_corner_as_tensorflow_1():
    image = np.arange(4, dtype=np.uint8)[None, :, None] * np.full((1, 1, 3), 60, dtype=np.uint8)
    # Output pixel i is read at i * 4 / 8, the last one beyond the last pixel.
    expected = [0, 30, 60, 90, 120, 150, 180, 180]
    assert stretch(image, 8, 1)[0, :, 0].tolist() == expected
    assert stretch(image, 2, 1)[0, :, 0].tolist() == [0, 120]
