"""The conversion of KITTI folders: partitions, order, names, content, output text."""

import json
import logging
import os
import random

import numpy as np
import pytest
from detectnet_v2 import cli, dataset_convert, spec, spec_pb2
from detectnet_v2.errors import DetectNetError
from detectnet_v2.tfrecord import decode_example, read_records
from PIL import Image

LINE = "{} 0.00 {} 0.00 {} {} {} {} 0.00 0.00 0.00 0.00 0.00 0.00 0.00\n"


@pytest.fixture
def folder(tmp_path):
    """A function that makes a KITTI folder; labels map stems to the text of their files."""

    def make(labels):
        for name in ("images", "labels"):
            (tmp_path / "data" / name).mkdir(parents=True)
        for stem, text in labels.items():
            Image.new("RGB", (64, 48)).save(tmp_path / "data/images" / f"{stem}.png")
            (tmp_path / "data/labels" / f"{stem}.txt").write_text(text)
        return tmp_path / "data"

    return make


def config(root, *, split=20.0, shards=1, **fields):
    kitti = spec_pb2.KITTIConfig(
        root_directory_path=str(root),
        image_dir_name="images",
        label_dir_name="labels",
        **{"partition_mode": "random", "num_partitions": 2} | fields,
        num_shards=shards,
        val_split=split,
    )
    return spec_pb2.DatasetExportConfig(kitti_config=kitti)


def examples(path):
    return [decode_example(record) for record in read_records(path)]


def frames(path):
    return [example["frame/id"][0].decode().removeprefix("images/") for example in examples(path)]


@pytest.mark.parametrize(
    ("count", "split", "validation", "training"),
    [
        (10, 20.0, [0, 1], [6, 9, 3, 8, 4, 2, 5, 7]),
        (7, 50.0, [0, 2, 1], [3, 6, 5, 4]),
    ],
)
def test_partitions_and_order_are_nvidias(folder, tmp_path, count, split, validation, training):
    root = folder({f"{number:06d}": "" for number in range(count)})
    random.seed(1)
    paths = dataset_convert.convert(config(root, split=split), tmp_path / "out/k")
    assert [path.name for path in paths] == [
        "k-fold-000-of-002-shard-00000-of-00001",
        "k-fold-001-of-002-shard-00000-of-00001",
    ]
    for path, expected in zip(paths, (validation, training), strict=True):
        assert frames(path) == [f"{number:06d}" for number in expected]


def test_the_global_random_numbers_are_left_alone(folder, tmp_path):
    random.seed(7)
    expected = random.random()
    random.seed(7)
    dataset_convert.convert(config(folder({"a": ""})), tmp_path / "k")
    assert random.random() == expected


def test_the_last_shard_takes_the_remainder(folder, tmp_path):
    root = folder({f"{number:06d}": "" for number in range(7)})
    paths = dataset_convert.convert(config(root, split=0, shards=3), tmp_path / "k")
    # Without validation data the training data is fold 0.
    assert [path.name for path in paths] == [
        f"k-fold-000-of-002-shard-0000{shard}-of-00003" for shard in range(3)
    ]
    assert [len(examples(path)) for path in paths] == [2, 2, 3]


def test_more_shards_than_images(folder, tmp_path, caplog):
    root = folder({"a": "", "b": ""})
    paths = dataset_convert.convert(config(root, split=0, shards=4), tmp_path / "k")
    assert [len(examples(path)) for path in paths] == [0, 0, 0, 2]
    assert "3 of 4 files are empty" in caplog.text


def test_everything_into_fold_0_is_tlt_2s_way_for_test_sets(folder, tmp_path):
    root = folder({"a": "", "b": ""})
    (path,) = dataset_convert.convert(config(root, split=100), tmp_path / "k")
    assert path.name == "k-fold-000-of-002-shard-00000-of-00001"
    assert sorted(frames(path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("folds", "shards", "name"),
    [(0, 0, "k"), (0, 2, "k-shard-00001-of-00002"), (3, 0, "k-fold-001-of-003")],
)
def test_names_without_folds_or_shards(tmp_path, folds, shards, name):
    kitti = spec_pb2.KITTIConfig(num_partitions=folds, num_shards=shards)
    assert dataset_convert.shard_path(tmp_path / "k", kitti, 1, 1) == tmp_path / name


def test_sequences_are_dealt_by_length(folder, tmp_path):
    sequences = {"s1": ["a"], "s2": ["b", "c", "d"], "s3": ["e", "f"], "s4": ["g"]}
    root = folder({frame: "" for part in sequences.values() for frame in part})
    (root / "sequences.json").write_text(json.dumps(sequences))
    fields = {"partition_mode": "sequence", "kitti_sequence_to_frames_file": "sequences.json"}
    paths = dataset_convert.convert(config(root, num_partitions=3, **fields), tmp_path / "k")
    # s2, s3 and s1 are dealt to the three folds, s4 to the first; then the order is reversed.
    assert [sorted(frames(path)) for path in paths] == [["a"], ["e", "f"], ["b", "c", "d", "g"]]
    (path,) = dataset_convert.convert(config(root, num_partitions=1, **fields), tmp_path / "one")
    assert sorted(frames(path)) == list("abcdefg")


def test_the_features_of_a_frame(folder, tmp_path):
    text = (
        "Mask 0.25 1 -1.5 1.25 2.5 33.75 44.5 1 2 3 4 5 6 7\n\n"
        "DontCare -1 -1 -10 -5.5 2 70 90.5 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    (path,) = dataset_convert.convert(config(folder({"a": text}), split=0), tmp_path / "k")
    (example,) = examples(path)
    expected = {
        "frame/id": [b"images/a"],
        "frame/height": [48],
        "frame/width": [64],
        "target/object_class": [b"mask", b"dontcare"],
        "target/truncation": [0.25, -1],
        "target/occlusion": [1, -1],
        "target/observation_angle": [-1.5, -10],
        "target/coordinates_x1": [1.25, -5.5],
        "target/coordinates_y1": [2.5, 2],
        "target/coordinates_x2": [33.75, 70],
        "target/coordinates_y2": [44.5, 90.5],
        "target/world_bbox_h": [1, -1],
        "target/world_bbox_w": [2, -1],
        "target/world_bbox_l": [3, -1],
        "target/world_bbox_x": [4, -1000],
        "target/world_bbox_y": [5, -1000],
        "target/world_bbox_z": [6, -1000],
        "target/world_bbox_rot_y": [7, -10],
    }
    assert {name: list(values) for name, values in example.items()} == expected
    assert example["target/occlusion"].dtype == np.int64
    assert example["target/truncation"].dtype == np.float32


def test_a_frame_without_objects_has_empty_lists(folder, tmp_path):
    (path,) = dataset_convert.convert(config(folder({"a": "\n"}), split=0), tmp_path / "k")
    (example,) = examples(path)
    assert len(example) == 18
    assert len(example["target/coordinates_x1"]) == 0


def test_point_clouds_and_calibrations(folder, tmp_path):
    root = folder({"a": ""})
    (root / "calib").mkdir()
    rows = {
        "P2": [2, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1, 0],
        "R0_rect": [0, 1, 0, 1, 0, 0, 0, 0, 1],
        "Tr_velo_to_cam": [1, 0, 0, 5, 0, 1, 0, 6, 0, 0, 1, 7],
    }
    (root / "calib/a.txt").write_text(
        "\n".join(f"{name}: {' '.join(map(str, values))}" for name, values in rows.items())
    )
    fields = {"point_clouds_dir": "velodyne", "calibrations_dir": "calib"}
    (path,) = dataset_convert.convert(config(root, split=0, **fields), tmp_path / "k")
    (example,) = examples(path)
    assert example["point_cloud/id"] == [b"velodyne/a"]
    assert example["point_cloud/num_input_channels"].tolist() == [4]
    to_camera = [[0, 1, 0, 6], [1, 0, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]]
    assert example["calibration/T_lidar_to_camera"].reshape(4, 4).tolist() == to_camera
    to_image = example["calibration/P_lidar_to_image"].reshape(3, 4)
    assert to_image.tolist() == [[0, 2, 0, 13], [2, 0, 0, 11], [0, 0, 1, 7]]


def test_boxes_without_area_in_whole_pixels_are_left_out(folder, tmp_path, caplog):
    boxes = [(1.9, 5, 1.1, 9), (1.2, 5, 1.9, 9), (1.9, 5, 2.1, 9), (4, 9, 8, 2)]
    root = folder({"a": "".join(LINE.format("mask", 0, *box) for box in boxes)})
    (path,) = dataset_convert.convert(config(root, split=0), tmp_path / "k")
    (example,) = examples(path)
    assert example["target/coordinates_x1"].tolist() == [np.float32(1.9)]
    label = root / "labels/a.txt"
    assert json.loads((tmp_path / "k_warning.json").read_text()) == {
        f"{label}_0": [1, 5, 1, 9],
        f"{label}_1": [1, 5, 1, 9],
        f"{label}_3": [4, 9, 8, 2],
    }


def test_the_output_comes_in_nvidias_order(folder, tmp_path, capfd):
    folder(
        {
            "a": LINE.format("mask", 0, 1, 1, 9, 9),
            "b": LINE.format("No-Mask", 0, 1, 1, 9, 9) + LINE.format("mask", 0, 1, 1, 9, 9),
        }
    )
    path = tmp_path / "spec.txt"
    path.write_text(
        f'kitti_config {{ root_directory_path: "{tmp_path}/data" image_dir_name: "images" '
        'label_dir_name: "labels" partition_mode: "random" num_partitions: 2 val_split: 50 '
        "num_shards: 1 }"
    )
    arguments = ["-d", str(path), "-o", f"{tmp_path}/out/k", "-r", f"{tmp_path}/results"]
    assert cli.main(["dataset_convert", *arguments]) == 0
    logging.getLogger().handlers.clear()
    output, errors = capfd.readouterr()
    lines = [line.rpartition(" - INFO - ")[2] for line in errors.splitlines()]
    assert [line for line in lines if line] == [
        "Instantiating a kitti converter",
        "Num images in",
        "Train: 1\tVal: 1",
        "Validation data in partition 0. Hence, while choosing the validation set during training "
        "choose validation_fold 0.",
        "Writing partition 0, shard 0",
        "Wrote the following numbers of objects:",
        "b'mask': 1",
        "Writing partition 1, shard 0",
        "Wrote the following numbers of objects:",
        "b'no-mask': 1",
        "b'mask': 1",
        "Cumulative object statistics",
        "Wrote the following numbers of objects:",
        "b'mask': 2",
        "b'no-mask': 1",
        "Class map. ",
        "Label in GT: Label in tfrecords file ",
        "b'mask': b'mask'",
        "b'No-Mask': b'no-mask'",
        "Tfrecords generation complete.",
    ]
    assert output.splitlines()[0].startswith("For the dataset_config in the experiment_spec")
    assert output.splitlines()[-1] == "Execution status: PASS"
    status = [json.loads(line) for line in (tmp_path / "results/status.json").open()]
    assert [entry["status"] for entry in status[:1] + status[-1:]] == ["STARTED", "SUCCESS"]
    assert status[-1]["categorical"] == {"num_objects": {"mask": 2, "no-mask": 1}}
    assert status[-1]["kpi"] == {"num_images": 2}


def modified(root, **settings):
    mapping = {"mask": "mask", "no-mask": "no-mask"}
    result = config(root, split=50)
    result.sample_modifier_config.CopyFrom(
        spec_pb2.DatasetExportConfig.SampleModifierConfig(
            source_to_target_class_mapping=mapping, **settings
        )
    )
    return result


def test_the_sample_modifier_leaves_the_validation_fold_alone(folder, tmp_path):
    mask, face = LINE.format("mask", 0, 1, 1, 9, 9), LINE.format("no-mask", 0, 1, 1, 9, 9)
    root = folder({"a": mask, "b": face, "c": mask, "d": mask + face + face})
    settings = modified(
        root,
        filter_samples_containing_only=["mask"],
        dominant_target_classes=["mask"],
        num_duplicates=2,
    )
    validation, training = dataset_convert.convert(settings, tmp_path / "k", 0)
    assert sorted(frames(validation)) == ["a", "b"]
    assert frames(training) == ["d", "d", "d"]


def test_the_sample_modifier_caps_the_training_folds(folder, tmp_path):
    root = folder({name: "" for name in "abcdef"})
    settings = modified(root, max_training_samples=2)
    validation, training = dataset_convert.convert(settings, tmp_path / "k", 0)
    assert (len(frames(validation)), len(frames(training))) == (3, 2)


def test_a_failed_conversion_leaves_nothing(folder, tmp_path):
    root = folder({"a": "", "b": "mask 0\n"})
    with pytest.raises(DetectNetError, match=r"b.txt:1: 2 fields, a KITTI label has 15"):
        dataset_convert.convert(config(root, split=50), tmp_path / "out/k")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_the_files_of_before(folder, tmp_path, short_files):
    root = folder({f"{number:04d}": LINE.format("mask", 0, 1, 2, 30, 40) for number in range(20)})
    settings = config(root, split=50)
    paths = dataset_convert.convert(settings, tmp_path / "out/k")
    before = [path.read_bytes() for path in paths]
    with short_files(4000), pytest.raises(DetectNetError) as caught:
        dataset_convert.convert(settings, tmp_path / "out/k")
    assert str(caught.value) == f"cannot write {paths[0]}: File too large"
    assert sorted((tmp_path / "out").iterdir()) == paths
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "labels/a.txt").unlink(), r"a.txt: label file is missing"),
        (
            lambda root: (root / "labels/a.txt").write_text(LINE.format("m", 0, 1, 2, 3, "x")),
            r"a.txt:1: no KITTI label: could not convert",
        ),
        (
            lambda root: (root / "labels/a.txt").write_text(LINE.format("m", 0, 1, 2, 3, "nan")),
            r"a.txt:1: no KITTI label: cannot convert float NaN",
        ),
        (lambda root: (root / "images/a.png").write_bytes(b"x"), r"a.png: image header is damaged"),
        (
            lambda root: (root / "images/a.png").rename(root / "a"),
            r"images: no file ends with .png",
        ),
        (
            lambda root: (root / "images/a.png").rename(root / "images" / os.fsdecode(b"\xff.png")),
            r"images: the name of image '\\udcff.png' is no UTF-8, .* rename it",
        ),
    ],
)
def test_bad_folders_are_named(folder, tmp_path, break_it, message):
    root = folder({"a": ""})
    break_it(root)
    with pytest.raises(DetectNetError, match=message):
        dataset_convert.convert(config(root, split=0), tmp_path / "k")


def test_settings_that_nvidia_refuses(folder, tmp_path):
    root = folder({"a": ""})
    with pytest.raises(DetectNetError, match='num_partitions: 3 must be 2 for partition_mode "ran'):
        dataset_convert.convert(config(root, num_partitions=3), tmp_path / "k")
    with pytest.raises(DetectNetError, match="kitti_sequence_to_frames_file: is needed"):
        dataset_convert.convert(config(root, partition_mode="sequence"), tmp_path / "k")
    fields = {"partition_mode": "sequence", "kitti_sequence_to_frames_file": "sequences.json"}
    for text, message in (("[", "list of sequences cannot be read"), ("[]", "must map sequences")):
        (root / "sequences.json").write_text(text)
        with pytest.raises(DetectNetError, match=f"sequences.json: {message}"):
            dataset_convert.convert(config(root, **fields), tmp_path / "k")
    path = tmp_path / "spec.txt"
    path.write_text('kitti_config { partition_mode: "both" root_directory_path: "x" }')
    with pytest.raises(DetectNetError) as error:
        spec.load_dataset_export(path)
    assert 'partition_mode: "both" must be "random" or "sequence"' in str(error.value)


def test_files_of_another_conversion_are_pointed_out(folder, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/k-fold-000-of-002-shard-00007-of-00010").write_bytes(b"")
    dataset_convert.convert(config(folder({"a": ""}), split=0), tmp_path / "out/k")
    assert "1 more files of an earlier conversion" in caplog.text
