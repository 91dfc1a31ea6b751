"""Near-duplicates: found among copies, not among strangers, and without long chains."""

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from datasets import duplicates, tables
from datasets.duplicates import (
    candidate_pairs,
    difference_hash,
    group_thumbnails,
    thumbnail,
)
from group_duplicates import group_duplicates
from PIL import Image, ImageEnhance

DISTANCE, CORRELATION = 12, 0.87


def test_candidates_hold_nearly_all_close_pairs_and_no_far_one():
    rng = np.random.default_rng(1)
    base = rng.random((600, 64)) < 0.5
    near = base.copy()
    for row, flips in zip(near, itertools.cycle(range(13)), strict=False):
        chosen = rng.choice(64, flips, replace=False)
        row[chosen] ^= True
    bits = np.concatenate((base, near))
    pairs = candidate_pairs(bits, DISTANCE)
    distances = (bits[pairs[:, 0]] != bits[pairs[:, 1]]).sum(axis=1)
    assert distances.max() <= DISTANCE
    assert (pairs[:, 0] < pairs[:, 1]).all()
    planted = set(map(tuple, pairs.tolist())) & {(n, n + 600) for n in range(600)}
    assert len(planted) >= 0.98 * 600


def variants(path):
    """A photograph saved smaller, worse, brighter, and a little cropped."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    yield image.resize((width // 2, height // 2))
    yield ImageEnhance.Brightness(image).enhance(1.2)
    yield image.crop((width // 50, height // 50, width, height))


def test_real_photographs_group_with_their_variants_only(shared_data, tmp_path):
    folder = shared_data / "raw" / "mafa" / "train-images" / "images"
    paths = sorted(folder.iterdir())[:200:4]
    thumbnails, origin = [], []
    for number, path in enumerate(paths):
        thumbnails.append(thumbnail(path))
        origin.append(number)
        for image in variants(path):
            image.save(tmp_path / "variant.jpg", quality=60)
            thumbnails.append(thumbnail(tmp_path / "variant.jpg"))
            origin.append(number)
    labels = group_thumbnails(np.stack(thumbnails), DISTANCE, CORRELATION)
    origin = np.array(origin)
    assert all(len(set(origin[labels == label])) == 1 for label in set(labels))
    assert np.mean([labels[i] == labels[np.argmax(origin == origin[i])] for i in range(200)]) > 0.97


def test_a_chain_of_small_changes_does_not_become_one_group():
    rng = np.random.default_rng(2)
    start, end = (rng.integers(0, 255, (8, 8)).astype(float) for _ in range(2))
    frames = [
        np.asarray(
            Image.fromarray((start + (end - start) * step / 60).astype(np.uint8)).resize((32, 32))
        )
        for step in range(61)
    ]
    labels = group_thumbnails(np.stack(frames), DISTANCE, CORRELATION)
    assert labels[0] != labels[60]
    assert labels[0] == labels[1]


def test_images_without_contrast_are_no_duplicates_of_each_other():
    frames = np.stack([np.full((32, 32), level, np.uint8) for level in (0, 1, 255)])
    assert group_thumbnails(frames, DISTANCE, CORRELATION).tolist() == [0, 1, 2]


def test_copies_are_one_group_however_many():
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 255, (32, 32), dtype=np.uint8)
    frames = np.stack([frame.T.copy(), *[frame] * 3000])
    assert group_thumbnails(frames, DISTANCE, CORRELATION).tolist() == [0, *[1] * 3000]


def test_a_big_bucket_is_searched_along_the_order_of_the_hashes(monkeypatch):
    """Many images that agree in all sampled bits must not cost their square."""
    monkeypatch.setattr(duplicates, "MAX_BUCKET", 100)
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 10)
    bits = np.zeros((800, 64), bool)
    bits[:, 63] = np.arange(800) % 2
    assert 800 <= len(candidate_pairs(bits, DISTANCE)) < 800 * 2 * 10


def test_hash_compares_neighbours():
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    assert difference_hash(np.stack([ramp]))[0].tolist() == [True] * 64
    assert not difference_hash(np.stack([ramp[:, ::-1]])).any()


@pytest.mark.parametrize("threads", [1, 2])
def test_groups_over_datasets(tmp_path, photo, log, threads):
    roots = {name: tmp_path / name for name in ("a", "b")}
    indexes = {}
    for name, root in roots.items():
        for seed in range(40):
            # Picture 7 is in both, at another size.
            other = seed if seed == 7 or name == "a" else seed + 100
            photo(root / f"{seed}.jpg", (200, 150) if name == "a" else (320, 240), other)
        (root / "corrupt.jpg").write_bytes(b"\xff\xd8")
        indexes[name] = tmp_path / f"{name}.csv"
        rows = [(f"{seed}.jpg", 200, 150, "mask", 1, 1, 9, 9, "") for seed in range(40)]
        rows += [("corrupt.jpg", 9, 9, "mask", 1, 1, 9, 9, ""), ("z.jpg", *[""] * 7, "no")]
        tables.write(indexes[name], tables.INDEX, rows)
    rows = group_duplicates(indexes, roots, DISTANCE, CORRELATION, log, threads)
    groups = {row[:2]: row[2] for row in rows}
    assert len(groups) == 82
    assert groups["a", "7.jpg"] == groups["b", "7.jpg"]
    assert len(set(groups.values())) == 81
    assert "2 undecodable" in log.text()
    apart = group_duplicates(indexes, {}, DISTANCE, CORRELATION, log, threads, enabled=False)
    assert [row[:2] for row in apart] == [row[:2] for row in rows]
    assert len({row[2] for row in apart}) == 82


def test_an_image_of_more_pixels_than_can_be_decoded_has_no_thumbnail(tmp_path, photo):
    path = photo(tmp_path / "a.png")
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 100_000, 100_000) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    assert thumbnail(path) is None


def test_a_missing_file_has_no_thumbnail(tmp_path):
    assert thumbnail(Path(tmp_path, "gone.jpg")) is None
