"""Calibration tensorfiles: NVIDIA's HDF5 layout, and which images are in them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from detectnet_v2 import cli
from detectnet_v2.errors import DetectNetError
from detectnet_v2.tensorfile import read_tensorfile, write_tensorfile
from PIL import Image

SPEC = Path(__file__).parent / "specs" / "tlt2_train.txt"
WIDTH, HEIGHT = 64, 48
COUNT = 10


def color(number):
    """The colour of image `number`, by which it is known again; exact in a PNG."""
    return (10 * number + 5, 255 - 20 * number, 77)


@pytest.fixture
def spec(tmp_path):
    """A spec over ten images of one colour each, two of them in the validation fold, batch 3."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for number in range(COUNT):
        # A little smaller than the network: padded with black on the right and below.
        pixels = np.full((HEIGHT - 8, WIDTH - 4, 3), color(number), np.uint8)
        Image.fromarray(pixels).save(images / f"{number:02d}.png")
        (labels / f"{number:02d}.txt").write_text("mask 0 0 0 10 10 30 30 0 0 0 0 0 0 0\n")
    (tmp_path / "convert.txt").write_text(
        f'kitti_config {{ root_directory_path: "{tmp_path}" image_dir_name: "images" '
        'label_dir_name: "labels" image_extension: ".png" partition_mode: "random" '
        f'num_partitions: 2 val_split: 20 num_shards: 1 }} image_directory_path: "{tmp_path}"'
    )
    arguments = ["-d", str(tmp_path / "convert.txt"), "-o", str(tmp_path / "tfrecords" / "kitti")]
    assert cli.main(["dataset_convert", *arguments]) == 0
    text = SPEC.read_text()
    for old, new in (
        ("/home/data/tfrecords/kitti_train", str(tmp_path / "tfrecords")),
        ("/home/data/train", str(tmp_path)),
        ('image_extension: "jpg"', 'image_extension: "png"'),
        ("output_image_width: 960", f"output_image_width: {WIDTH}"),
        ("output_image_height: 544", f"output_image_height: {HEIGHT}"),
        ("batch_size_per_gpu: 24", "batch_size_per_gpu: 3"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "spec.txt"
    path.write_text(text)
    return path


def make(spec, output, *arguments):
    return cli.main(["calibration_tensorfile", "-e", str(spec), "-o", str(output), *arguments])


def images_of(path):
    """Numbers of the images in the file, batch by batch, by their colour."""
    known = {color(number): number for number in range(COUNT)}
    return [
        [known[tuple(np.rint(image[:, 0, 0] * 255).astype(int).tolist())] for image in batch]
        for batch in read_tensorfile(path)
    ]


def test_layout_is_nvidias(tmp_path):
    batches = [np.random.default_rng(i).random((2, 3, 16, 32), np.float32) for i in range(3)]
    path = tmp_path / "calibration.tensor"
    assert write_tensorfile(path, batches) == 3
    with h5py.File(path) as file:
        assert file.attrs["count"] == 3
        assert tuple(file.attrs["shape"]) == (2, 3, 16, 32)
        assert sorted(file) == [f"_tensorfile_array_key__{i}" for i in range(3)]
        for i, batch in enumerate(batches):
            dataset = file[f"_tensorfile_array_key__{i}"]["_tensorfile_array_key_"]
            assert dataset.compression == "gzip"
            assert dataset.dtype == np.float32
            assert np.array_equal(dataset, batch)
    assert all(map(np.array_equal, read_tensorfile(path), batches))


def test_training_images_come_shuffled_and_unchanged(spec, tmp_path):
    output = tmp_path / "calibration.tensor"
    assert make(spec, output, "-m", "2") == 0
    first, second = images_of(output)
    assert len({*first, *second}) == 6
    # Fold 0 holds the first fifth of the names.
    assert not {0, 1} & {*first, *second}
    assert [*first, *second] != sorted([*first, *second])
    for numbers, batch in zip((first, second), read_tensorfile(output), strict=True):
        assert batch.dtype == np.float32
        for number, image in zip(numbers, batch, strict=True):
            inside = image[:, : HEIGHT - 8, : WIDTH - 4]
            expected = np.array(color(number), np.float32)[:, None, None] / 255
            assert np.array_equal(inside, np.broadcast_to(expected, inside.shape))
            assert not image[:, HEIGHT - 8 :].any()
            assert not image[:, :, WIDTH - 4 :].any()


def test_the_specs_seed_decides_the_order(spec, tmp_path):
    make(spec, tmp_path / "one.tensor", "-m", "1")
    make(spec, tmp_path / "two.tensor", "-m", "1")
    assert (tmp_path / "one.tensor").read_bytes() == (tmp_path / "two.tensor").read_bytes()
    orders = set()
    for seed in range(5):
        text = spec.read_text().replace("random_seed: 42", f"random_seed: {seed + 100}")
        (tmp_path / "seed.txt").write_text(text)
        make(tmp_path / "seed.txt", tmp_path / f"{seed}.tensor", "-m", "1")
        orders.add(tuple(images_of(tmp_path / f"{seed}.tensor")[0]))
    assert len(orders) > 1


def test_all_batches_by_default_filled_up_from_the_start(spec, tmp_path):
    output = tmp_path / "calibration.tensor"
    assert make(spec, output) == 0
    batches = images_of(output)
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert {number for batch in batches for number in batch} == set(range(2, 10))


def test_validation_images_come_in_order(spec, tmp_path):
    output = tmp_path / "calibration.tensor"
    assert make(spec, output, "--use_validation_set") == 0
    (batch,) = images_of(output)
    assert batch[0] == batch[2]
    assert set(batch) == {0, 1}


def refused(capfd, spec, output, message, *arguments):
    capfd.readouterr()
    assert make(spec, output, *arguments) == cli.FAILED
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("detectnet_v2 calibration_tensorfile: ")
    assert message in error[0]


def test_more_batches_than_there_are_is_an_error(spec, tmp_path, capfd):
    output = tmp_path / "calibration.tensor"
    refused(
        capfd, spec, output, "4 batches asked for: the training set has 3 batches of 3", "-m", "4"
    )
    refused(capfd, spec, output, "0 batches asked for", "-m", "0")
    assert not output.exists()


def test_existing_file_is_kept(spec, tmp_path, capfd):
    output = tmp_path / "calibration.tensor"
    output.write_text("precious")
    refused(capfd, spec, output, "exists already", "-m", "1")
    assert output.read_text() == "precious"


def test_damaged_image_ends_with_one_line_and_no_file(spec, tmp_path, capfd):
    (tmp_path / "images" / "05.png").write_bytes(b"no image")
    output = tmp_path / "calibration.tensor"
    refused(capfd, spec, output, "05.png")
    assert not output.exists()
    assert not output.with_name("calibration.tensor.part").exists()


def test_batches_of_different_shapes_are_refused(tmp_path):
    shapes = ((2, 3, 16, 16), (1, 3, 16, 16))
    with pytest.raises(DetectNetError, match=r"batch 1 of .* has the shape"):
        write_tensorfile(tmp_path / "x.tensor", [np.zeros(s, np.float32) for s in shapes])
    assert not list(tmp_path.iterdir())


def test_reading_what_is_no_tensorfile_is_refused(tmp_path):
    with pytest.raises(DetectNetError, match="no tensorfile at"):
        list(read_tensorfile(tmp_path / "absent"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DetectNetError, match="damaged or no tensorfile"):
        list(read_tensorfile(tmp_path / "text"))
    with h5py.File(tmp_path / "other", "w") as file:
        file["x"] = 1
    with pytest.raises(DetectNetError, match="damaged or no tensorfile"):
        list(read_tensorfile(tmp_path / "other"))
