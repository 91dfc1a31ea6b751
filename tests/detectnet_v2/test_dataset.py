"""Samples: folds, classes, sizes, paths, and what is said about broken data."""

import numpy as np
import pytest
from detectnet_v2 import dataset, dataset_convert, spec
from detectnet_v2.errors import DetectNetError
from detectnet_v2.tfrecord import (
    decode_example,
    encode_example,
    part_of,
    read_records,
    write_part,
)


@pytest.fixture
def data(tmp_path, paint, label, tfrecords_spec):
    """A function that converts five images; the first two are fold 0."""

    def make(*extra):
        for number in range(5):
            stem = f"{number:06d}"
            paint(tmp_path / "data/images" / f"{stem}.png", {})
            lines = [label("mask", number, 1), label("No-Mask", number, 3), *extra]
            path = tmp_path / "data/labels" / f"{stem}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
        config = spec.load_dataset_export(tfrecords_spec)
        return dataset_convert.convert(config, tmp_path / "data/tfrecords/k")

    return make


@pytest.fixture
def load(small_spec):
    return lambda *replacements: spec.load_experiment(small_spec(*replacements))


def stems(samples):
    return sorted(sample.image.stem for sample in samples)


def test_folds_and_content(data, load, tmp_path):
    data()
    experiment = load()
    assert dataset.target_classes(experiment) == ["mask", "no-mask"]
    training = dataset.training_samples(experiment)
    validation = dataset.validation_samples(experiment)
    assert stems(validation) == ["000000", "000001"]
    assert stems(training) == ["000002", "000003", "000004"]
    sample = next(item for item in validation if item.image.stem == "000001")
    assert sample.image == tmp_path / "data/images/000001.png"
    assert sample.frame_id == "images/000001"
    assert (sample.width, sample.height, sample.source_weight) == (160, 96, 1.0)
    assert sample.boxes.dtype == np.float32
    assert sample.boxes.tolist() == [[16, 16, 32, 32], [16, 48, 32, 64]]
    assert sample.classes.dtype == np.int32
    assert sample.classes.tolist() == [0, 1]


def test_without_a_split_everything_is_for_training(data, load):
    data()
    experiment = load(("  validation_fold: 0\n", ""))
    assert len(dataset.training_samples(experiment)) == 5
    assert dataset.validation_samples(experiment) == []


def test_fold_0_is_a_fold_and_other_folds_work(data, load):
    data()
    experiment = load(("validation_fold: 0", "validation_fold: 1"))
    assert stems(dataset.training_samples(experiment)) == ["000000", "000001"]
    assert stems(dataset.validation_samples(experiment)) == ["000002", "000003", "000004"]


def test_a_validation_source_of_its_own(data, load, tmp_path):
    data()
    source = (
        f'validation_data_source {{ tfrecords_path: "{tmp_path}/data/tfrecords/*fold-001*" '
        f'image_directory_path: "{tmp_path}/data" source_weight: 0.5 }}'
    )
    experiment = load(("validation_fold: 0", source))
    validation = dataset.validation_samples(experiment)
    assert stems(validation) == ["000002", "000003", "000004"]
    assert validation[0].source_weight == 0.5
    assert len(dataset.training_samples(experiment)) == 5


def test_classes_are_mapped_and_others_dropped(data, load, label):
    data(label("hat", 0, 0))
    both = ('key: "no-mask"\n    value: "no-mask"', 'key: "no-mask"\n    value: "mask"')
    experiment = load(both)
    assert dataset.validation_samples(experiment)[0].classes.tolist() == [0, 0]


def test_boxes_below_a_pixel_are_dropped(data, load):
    data("mask 0 0 0 10.95 10 11.90 30 0 0 0 0 0 0 0", "mask 0 0 0 10.95 10 11.95 30 0 0 0 0 0 0 0")
    boxes = dataset.validation_samples(load())[0].boxes
    assert len(boxes) == 3
    assert boxes[2, 2] == np.float32(11.95)


def test_relative_paths_start_at_the_data_folder(data, load, tmp_path, monkeypatch):
    data()
    monkeypatch.setenv("DATA_BASE_PATH", str(tmp_path))
    experiment = load((f"{tmp_path}/data", "data"))
    assert dataset.training_samples(experiment)[0].image.parent == tmp_path / "data/images"
    # A folder's brackets are no pattern.
    (tmp_path / "run [2]").mkdir()
    (tmp_path / "data").rename(tmp_path / "run [2]/data")
    monkeypatch.setenv("DATA_BASE_PATH", str(tmp_path / "run [2]"))
    assert len(dataset.training_samples(experiment)) == 3
    monkeypatch.delenv("DATA_BASE_PATH")
    assert dataset.data_path("a").parts[-2:] == ("datasets", "a")


def test_the_order_is_that_of_files_and_records(data, load):
    files = data()
    expected = [
        decode_example(record)["frame/id"][0].decode()
        for file in sorted(files)
        if "fold-001" in file.name
        for record in read_records(file)
    ]
    assert [sample.frame_id for sample in dataset.training_samples(load())] == expected


def test_samples_know_their_data_source(data, load):
    data()
    experiment = load()
    sources = experiment.dataset_config.data_sources
    sources.add().CopyFrom(sources[0])
    assert [sample.source for sample in dataset.training_samples(experiment)] == [0] * 3 + [1] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tfrecords/*", "tfrecord/*"), r"data_sources: no tfrecords match .*tfrecord/\*"),
        (
            ("tfrecords/*", "tfrecords/*fold-000*"),
            "validation_fold: 0: all files of .* in that fol",
        ),
        (('"png"', '"jpg"'), r"0000..jpg: image of the tfrecords is not there \(3 of 3 missing\)"),
        (
            ('key: "mask"\n    value: "mask"', 'key: "Mask"\n    value: "Mask"'),
            None,
        ),
    ],
)
def test_what_does_not_fit_is_named(data, load, change, message):
    data()
    experiment = load(change)
    if message is None:
        # One class of two is left, which is no error: NVIDIA's mapping is as case-sensitive.
        assert dataset.training_samples(experiment)[0].classes.tolist() == [1]
        return
    with pytest.raises(DetectNetError, match=message):
        dataset.training_samples(experiment)


def test_a_mapping_that_drops_everything(data, load):
    data()
    experiment = load(
        ('key: "mask"\n    value: "mask"', 'key: "Mask"\n    value: "Mask"'),
        (
            'key: "no-mask"\n    value: "no-mask"',
            'key: "mask"\n    value: "hat" } target_class_mapping { key: "hat" value: "hat"',
        ),
    )
    with pytest.raises(DetectNetError) as error:
        dataset.training_samples(experiment)
    assert "\n" not in str(error.value)
    assert "drops all 6 objects of" in str(error.value)
    assert 'the tfrecords have "mask", "no-mask"' in str(error.value)


def test_a_source_may_hold_hard_negatives_only(data, load, tmp_path):
    files = data()
    experiment = load()
    sources = experiment.dataset_config.data_sources
    sources.add().CopyFrom(sources[0])
    sources[1].tfrecords_path = f"{tmp_path}/data/negatives/*"
    for file in files:
        objects = {name: np.array([8, 40], np.float32) for name in dataset.COORDINATES[:2]}
        objects |= {name: np.array([24, 56], np.float32) for name in dataset.COORDINATES[2:]}
        objects["target/object_class"] = [b"dontcare", b"hat"]
        path = tmp_path / "data/negatives" / file.name
        path.parent.mkdir(exist_ok=True)
        records = [decode_example(record) for record in read_records(file)]
        write_part(path, [encode_example(record | objects) for record in records])
        part_of(path).replace(path)
    for samples in (dataset.training_samples(experiment), dataset.validation_samples(experiment)):
        with_boxes = [len(sample.boxes) > 0 for sample in samples]
        assert with_boxes == [True] * (len(samples) // 2) + [False] * (len(samples) // 2)
    del sources[0]
    for read in (dataset.training_samples, dataset.validation_samples):
        with pytest.raises(DetectNetError, match=r"drops all . objects of .*negatives"):
            read(experiment)


def test_a_fold_without_files(data, load):
    data()
    with pytest.raises(DetectNetError, match="validation_fold: 5: no tfrecords of that fold"):
        dataset.validation_samples(load(("validation_fold: 0", "validation_fold: 5")))


def test_an_empty_file_beside_full_ones_is_no_error(data, load):
    files = sorted(data())
    for fold in ("fold-000", "fold-001"):
        next(file for file in files if fold in file.name).write_bytes(b"")
    assert len(dataset.validation_samples(load())) == 1
    assert 1 <= len(dataset.training_samples(load())) <= 2


def test_damaged_tfrecords_are_named(data, load):
    path = data()[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DetectNetError, match=f"{path.name}: ends within a record"):
        dataset.validation_samples(load())
    path.write_bytes(content[:20] + b"~" + content[21:])
    with pytest.raises(DetectNetError, match=f"{path.name}: has a wrong checksum"):
        dataset.validation_samples(load())


def test_records_that_are_no_kitti_examples(data, load):
    path = data()[0]

    def write(features):
        write_part(path, [encode_example(features)])
        part_of(path).replace(path)

    write({"frame/id": [b"x"]})
    with pytest.raises(DetectNetError, match=f"{path.name}: record 0 is no KITTI example"):
        dataset.validation_samples(load())
    features = dict.fromkeys(dataset.COORDINATES, np.zeros(2, np.float32))
    features |= {"frame/id": [b"x"], "target/object_class": [b"mask"]}
    write(features)
    with pytest.raises(DetectNetError, match=r"no KITTI example \(1 classes for 2 boxes\)"):
        dataset.validation_samples(load())
