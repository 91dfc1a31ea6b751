"""Near-duplicate photographs: thumbnails, a perceptual hash for candidates, groups.

Two images are near-duplicates when the difference hashes of their grey thumbnails are within
`max_distance` bits of 64 and the thumbnails' correlation is at least `min_correlation`. The hash
alone is not enough: portraits before a white wall share most of its bits.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

THUMBNAIL = 32
HASH_BITS = 64
# Thumbnails with less contrast than this (grey levels) have no picture to compare.
MIN_CONTRAST = 2.0
# Candidates found among the pairs at exactly `max_distance`; closer pairs are found surer.
RECALL = 0.99
# A bucket with more images than this is compared only along the order of the whole hashes.
MAX_BUCKET = 500
NEIGHBOURS = 50
PAIRS_AT_ONCE = 100_000


def thumbnail(path: str | Path) -> np.ndarray | None:
    """Grey thumbnail (32, 32) uint8 of an image, stretched; None when it cannot be decoded.

    A JPEG is decoded at the smallest of its DCT scales that still has 64 pixels a side.
    """
    try:
        data = Path(path).read_bytes()
    except OSError:
        return None
    grey = None
    if data.startswith(b"\xff\xd8"):
        try:
            grey = simplejpeg.decode_jpeg(
                data, "GRAY", fastdct=True, min_height=64, min_width=64, strict=False
            )
        except ValueError:
            grey = None
    if grey is None and data:
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
        # A header that says more pixels than OpenCV takes is an error of its own.
        with suppress(cv2.error):
            grey = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if grey is None:
        return None
    return cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def difference_hash(thumbnails: np.ndarray) -> np.ndarray:
    """Bits (n, 64) bool: whether each of 8 x 9 cells is darker than its right neighbour."""
    cells = np.stack(
        [cv2.resize(image, (9, 8), interpolation=cv2.INTER_AREA) for image in thumbnails]
    )
    return (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(thumbnails), HASH_BITS)


def candidate_pairs(bits: np.ndarray, max_distance: int) -> np.ndarray:
    """Pairs (m, 2) of rows of `bits` (n, 64) that differ in at most `max_distance` bits.

    Locality-sensitive hashing by bit sampling (Indyk and Motwani 1998): in each of some tables,
    only images that agree in a few sampled bits are compared. The number of sampled bits grows
    with log n, so that the buckets stay small, the number of tables follows from `RECALL`.
    """
    count = len(bits)
    sampled = max(8, math.ceil(math.log2(max(count, 2))) - 2)
    agreement = (1 - max_distance / HASH_BITS) ** sampled
    tables = math.ceil(math.log(1 - RECALL) / math.log(1 - agreement)) if agreement < 1 else 1
    packed = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    rng = np.random.default_rng(0)
    # A pair is one number: sorting numbers is many times faster than sorting rows.
    found = np.empty(0, np.int64)
    for _ in range(tables):
        chosen = rng.choice(HASH_BITS, sampled, replace=False)
        keys = bits[:, chosen] @ (1 << np.arange(sampled, dtype=np.int64))
        new = [found]
        for first, second in _bucket_pairs(keys, packed):
            near = np.bitwise_count(packed[first] ^ packed[second]) <= max_distance
            low, high = np.minimum(first, second)[near], np.maximum(first, second)[near]
            new.append(low * count + high)
        found = np.unique(np.concatenate(new))
    return np.stack((found // count, found % count), axis=1)


def _bucket_pairs(keys: np.ndarray, packed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs of images with equal keys, those of all buckets at once, as two index arrays."""
    order = np.lexsort((packed, keys))
    ordered = keys[order]
    _, bucket, sizes = np.unique(ordered, return_inverse=True, return_counts=True)
    reach = np.where(sizes <= MAX_BUCKET, sizes, NEIGHBOURS)[bucket]
    for step in range(1, int(reach.max(initial=0))):
        left = np.flatnonzero((ordered[:-step] == ordered[step:]) & (reach[:-step] > step))
        if not len(left):
            return
        yield order[left], order[left + step]


def group_thumbnails(
    thumbnails: np.ndarray, max_distance: int, min_correlation: float
) -> np.ndarray:
    """Label (n,) of each thumbnail's group: the least index in it.

    Pairs are joined from the most alike on, and only while the mean thumbnails of their two
    groups still correlate: so a chain of small changes does not swallow a whole dataset.
    """
    labels = np.arange(len(thumbnails))
    usable = np.flatnonzero(thumbnails.std(axis=(1, 2)) >= MIN_CONTRAST)
    if not len(usable):
        return labels
    # Equal thumbnails are one from here on: copies would only fill the buckets.
    leader_of: dict[bytes, int] = {}
    position = [leader_of.setdefault(thumbnails[i].tobytes(), len(leader_of)) for i in usable]
    leaders = usable[np.unique(position, return_index=True)[1]]
    vectors = thumbnails[leaders].reshape(len(leaders), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = candidate_pairs(difference_hash(thumbnails[leaders]), max_distance)
    roots = _join(vectors, pairs, min_correlation)
    least = np.full(len(leaders), len(thumbnails))
    np.minimum.at(least, roots, leaders)
    labels[usable] = least[roots][position]
    return labels


def _join(vectors: np.ndarray, pairs: np.ndarray, min_correlation: float) -> np.ndarray:
    """Union-find over `pairs` of unit vectors; the root of each vector's group."""
    correlation = np.concatenate(
        [
            np.einsum("ij,ij->i", vectors[part[:, 0]], vectors[part[:, 1]])
            for part in np.array_split(pairs, max(1, len(pairs) // PAIRS_AT_ONCE))
        ]
    )
    alike = correlation >= min_correlation
    pairs, correlation = pairs[alike], correlation[alike]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -correlation))
    sums = vectors.copy()
    root = list(range(len(vectors)))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for one, other in pairs[order].tolist():
        into, absorbed = sorted((find(one), find(other)))
        if into == absorbed:
            continue
        lengths = np.linalg.norm(sums[into]) * np.linalg.norm(sums[absorbed])
        if sums[into] @ sums[absorbed] >= min_correlation * lengths:
            root[absorbed] = into
            sums[into] += sums[absorbed]
    return np.array([find(item) for item in range(len(vectors))])


def group_id(key: str, salt: int = 0) -> str:
    """8 hex digits that depend on nothing but a group's least key (and the salt, when not 0)."""
    text = key if not salt else f"{key}\0{salt}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def key_of(dataset: str, image: str) -> str:
    """The key of an image among all datasets; `image` as the tables hold it."""
    return f"{dataset}/{image}"


def label_groups(keys: Sequence[str], labels: Sequence[int]) -> list[str]:
    """The group id of each image, from the least key in its group."""
    least: dict[int, str] = {}
    for key, label in zip(keys, labels, strict=True):
        least[label] = min(key, least.get(label, key))
    ids = {label: group_id(key) for label, key in least.items()}
    return [ids[label] for label in labels]
