"""TensorFlow reads the tfrecords of the small run as the converter of NVIDIA would leave them."""

import json
import random

import pytest
from PIL import Image

KINDS = {
    "frame/id": "bytes_list",
    "frame/height": "int64_list",
    "frame/width": "int64_list",
    "target/object_class": "bytes_list",
    "target/truncation": "float_list",
    "target/occlusion": "int64_list",
    "target/observation_angle": "float_list",
    **{f"target/coordinates_{corner}": "float_list" for corner in ("x1", "y1", "x2", "y2")},
    **{
        f"target/world_bbox_{name}": "float_list"
        for name in ("h", "w", "l", "x", "y", "z", "rot_y")
    },
}
PREFIX = "kitti_trainval"


def nvidias_shards(names, val_split, shards):
    """Names of the images in each file, by the documented steps of NVIDIA's converter.

    Python's generator is seeded with 42; each partition is shuffled when it is made and again
    when it is written; the last shard takes the remainder; an empty partition has no file.
    """
    random.seed(42)
    count = int(val_split / 100 * len(names))
    partitions = [names[:count], names[count:]]
    for _ in range(2):
        for partition in partitions:
            random.shuffle(partition)
    files = {}
    for fold, partition in enumerate(partition for partition in partitions if partition):
        size = len(partition) // shards
        for shard in range(shards):
            end = (shard + 1) * size if shard < shards - 1 else len(partition)
            name = f"fold-{fold:03d}-of-002-shard-{shard:05d}-of-{shards:05d}"
            files[name] = partition[shard * size : end]
    return files


def labels_of(path):
    """The columns of a KITTI label by what Examples call them."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    columns = [
        *("object_class", "truncation", "occlusion", "observation_angle"),
        *("coordinates_x1", "coordinates_y1", "coordinates_x2", "coordinates_y2"),
        *(f"world_bbox_{name}" for name in ("h", "w", "l", "x", "y", "z", "rot_y")),
    ]
    values = {f"target/{name}": [row[i] for row in rows] for i, name in enumerate(columns)}
    numbers = {
        name: [float(value) for value in column]
        for name, column in values.items()
        if name != "target/object_class"
    }
    return values | numbers


@pytest.mark.slow
@pytest.mark.parametrize(("split", "val_split"), [("train", 20), ("val", 0)])
def test_tensorflow_reads_every_file(finished_checkout, tensorflow, tmp_path, split, val_split):
    folder = finished_checkout / "results/kitti" / split
    names = sorted(path.stem for path in (folder / "images").iterdir())
    expected = nvidias_shards(names, val_split, shards=2)
    written = sorted((finished_checkout / "results/tfrecords" / split).glob(f"{PREFIX}-fold-*"))
    assert [path.name for path in written] == [f"{PREFIX}-{name}" for name in sorted(expected)]
    tensorflow("records", tmp_path / "records.json", *written)
    files = json.loads((tmp_path / "records.json").read_text(encoding="utf-8"))
    assert sum(len(file) for file in files) == len(names)
    for path, file in zip(written, files, strict=True):
        frames = [record["frame/id"][1] for record in file]
        stems = expected[path.name.removeprefix(f"{PREFIX}-")]
        assert frames == [[f"images/{stem}"] for stem in stems]
        for stem, record in zip(stems, file, strict=True):
            assert {key: kind for key, (kind, _) in record.items()} == KINDS
            values = {key: value for key, (_, value) in record.items()}
            with Image.open(folder / "images" / f"{stem}.jpg") as image:
                assert (values["frame/width"], values["frame/height"]) == (
                    [image.width],
                    [image.height],
                )
            for key, wanted in labels_of(folder / "labels" / f"{stem}.txt").items():
                assert values[key] == (
                    wanted if key == "target/object_class" else pytest.approx(wanted, rel=1e-6)
                )
