"""Model files: the layout that Keras and TAO read, round trips, what is refused."""

import json

import h5py
import numpy as np
import pytest
import torch
from detectnet_v2.errors import DetectNetError
from detectnet_v2.keras_config import keras_order
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_detector, load_model, save_model

SMALL = {"input_height": 32, "input_width": 48}


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def assert_same(left, right):
    assert left.state_dict().keys() == right.state_dict().keys()
    for (name, value), other in zip(
        left.state_dict().items(), right.state_dict().values(), strict=True
    ):
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, other), name


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 18, "num_classes": 3},
        {"num_layers": 18, "num_classes": 1, "all_projections": True},
        {"num_layers": 10, "num_classes": 2, "use_batch_norm": False},
        {"num_layers": 10, "num_classes": 2, "use_pooling": True},
        {"num_layers": 50, "num_classes": 1},
        {
            "num_layers": 10,
            "num_classes": 2,
            "widths": {"conv1": 24, "block_1a_conv_1": 8, "block_4a_conv_1": 101},
        },
    ],
)
def test_round_trip_is_exact(make_model, tmp_path, options):
    model = make_model(**options, **SMALL)
    save_model(model, tmp_path / "model.hdf5")
    loaded = load_model(tmp_path / "model.hdf5")
    assert loaded.architecture == model.architecture
    assert loaded.widths == model.widths
    assert (loaded.input_height, loaded.input_width) == (32, 48)
    assert not loaded.training
    assert_same(model, loaded)


def test_a_network_too_coarse_to_detect_is_no_detector(make_model, tmp_path):
    path = tmp_path / "model.hdf5"
    save_model(make_model(10, 2, use_pooling=True, input_height=224, input_width=224), path)
    assert load_model(path).architecture.stride == 224
    with pytest.raises(DetectNetError, match="use_pooling, whose cells of 224 pixels are too coar"):
        load_detector(path)


def test_class_names_travel_with_the_file(stored):
    _, path = stored
    assert load_model(path, classes=["mask", "no-mask"]).class_names == ("mask", "no-mask")


def test_equal_models_give_equal_bytes_and_no_part_is_left(stored, tmp_path):
    model, path = stored
    save_model(model, tmp_path / "again.hdf5")
    assert (tmp_path / "again.hdf5").read_bytes() == path.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"model.hdf5", "again.hdf5"}


def test_layout_is_the_one_keras_2_2_4_reads(stored):
    model, path = stored
    with h5py.File(path) as file:
        # Of variable length, and ASCII: h5py 2, of Keras 2.2.4's time, gives bytes for these.
        text = h5py.check_string_dtype(file.attrs.get_id("model_config").dtype)
        assert (text.encoding, text.length) == ("ascii", None)
        config = json.loads(file.attrs["model_config"])
        group = file["model_weights"]
        assert group.attrs["layer_names"].dtype.kind == "S"
        names = [name.decode() for name in group.attrs["layer_names"]]
        kernel = group["conv1/conv1/kernel:0"]
        assert kernel.shape == (7, 7, 3, 64)
        assert kernel.dtype == np.float32
        assert kernel.chunks is None
        assert np.array_equal(kernel[2, 5, 1], model.conv1.weight[:, 1, 2, 5].detach().numpy())
        assert list(group["bn_conv1"].attrs["weight_names"]) == [
            b"bn_conv1/gamma:0",
            b"bn_conv1/beta:0",
            b"bn_conv1/moving_mean:0",
            b"bn_conv1/moving_variance:0",
        ]
        assert list(group["conv1"].attrs["weight_names"]) == [b"conv1/kernel:0", b"conv1/bias:0"]
        assert group["activation_1"].attrs["weight_names"].shape == (0,)
        assert group["activation_1"].attrs["weight_names"].dtype == np.float64
    assert config["class_name"] == "Model"
    assert config["config"]["name"] == "resnet10_nopool_bn_detectnet_v2"
    assert [layer["name"] for layer in config["config"]["layers"]] == names
    layers = {layer["name"]: layer["config"] for layer in config["config"]["layers"]}
    assert layers["input_1"]["batch_input_shape"] == [None, 3, 32, 48]
    assert layers["block_2a_conv_shortcut"]["padding"] == "valid"
    assert layers["block_2a_conv_1"]["padding"] == "same"
    assert layers["block_2a_conv_1"]["strides"] == [2, 2]
    assert layers["output_cov"]["activation"] == "sigmoid"
    assert layers["bn_conv1"]["axis"] == 1
    assert layers["bn_conv1"]["epsilon"] == 1e-3
    assert config["config"]["output_layers"] == [["output_bbox", 0, 0], ["output_cov", 0, 0]]


def test_layers_are_in_keras_order_by_depth():
    names = [layer.name for layer in keras_order(DetectNetV2(18, 2).layers)]
    start = names.index("block_2a_conv_2")
    assert names[:5] == ["input_1", "conv1", "bn_conv1", "activation_1", "block_1a_conv_1"]
    assert names[start : start + 6] == [
        "block_2a_conv_2",
        "block_2a_conv_shortcut",
        "block_2a_bn_2",
        "block_2a_bn_shortcut",
        "add_3",
        "block_2a_relu",
    ]
    assert names[-2:] == ["output_bbox", "output_cov"]


def test_reader_follows_weight_names(stored):
    model, path = stored

    def rename(file):
        group = file["model_weights/conv1"]
        group.move("conv1", "conv1_1")
        group.attrs["weight_names"] = np.array([b"conv1_1/kernel:0", b"conv1_1/bias:0"])

    edit(path, rename)
    assert_same(model, load_model(path))


def test_reader_accepts_text_where_bytes_are_usual(stored):
    model, path = stored

    def as_text(file):
        group = file["model_weights"]
        group.attrs["layer_names"] = [name.decode() for name in group.attrs["layer_names"]]
        file.attrs["model_config"] = str(file.attrs["model_config"])

    edit(path, as_text)
    assert_same(model, load_model(path))


def test_reader_looks_into_a_nested_model(stored):
    model, path = stored

    def nest(file):
        weights = file["model_weights"]
        heads = [b"output_bbox", b"output_cov"]
        inner = [name for name in weights.attrs["layer_names"] if name not in heads]
        nested = weights.create_group("resnet10")
        names = []
        for layer in inner:
            for name in weights[layer].attrs["weight_names"]:
                nested[name] = weights[layer][name][()]
                names.append(name)
            del weights[layer]
        nested.attrs["weight_names"] = np.array(names)
        weights.attrs["layer_names"] = np.array([b"resnet10", *heads])
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        config["config"]["layers"] = [
            {"name": "resnet10", "class_name": "Model", "config": {"layers": layers[:-2]}},
            *layers[-2:],
        ]
        file.attrs["model_config"] = json.dumps(config)

    edit(path, nest)
    assert_same(model, load_model(path))


def test_epsilon_of_the_file_is_used(stored):
    _, path = stored

    def change(file):
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace('"epsilon": 0.001', '"epsilon": 0.00001')

    edit(path, change)
    assert load_model(path).bn_conv1.eps == 1e-5


def test_convolution_without_bias_gets_zeros(stored):
    _, path = stored

    def remove(file):
        file["model_weights/conv1"].attrs["weight_names"] = np.array([b"conv1/kernel:0"])

    edit(path, remove)
    assert not load_model(path).conv1.bias.any()


def refused(path, message, **options):
    with pytest.raises(DetectNetError, match=message) as caught:
        load_model(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files_are_refused(tmp_path):
    refused(tmp_path / "absent.hdf5", "no model file")
    text = tmp_path / "text.hdf5"
    text.write_text("hello")
    refused(text, "not a Keras HDF5 file")
    encrypted = tmp_path / "model.tlt"
    encrypted.write_bytes(bytes(100))
    refused(encrypted, "encrypted")
    pointer = tmp_path / "pointer.hdf5"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(pointer, "git lfs pull")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    refused(tmp_path / "other.hdf5", "no Keras weights")


def weights_are_an_array(file):
    del file["model_weights"]
    file["model_weights"] = np.zeros(3)
    file["model_weights"].attrs["layer_names"] = np.array([b"conv1"])


def layer_names_are_a_number(file):
    file["model_weights"].attrs["layer_names"] = 3


def layer_names_are_no_utf8(file):
    file["model_weights"].attrs["layer_names"] = np.array([b"caf\xe9"])


def weight_names_have_no_layer(file):
    group = file["model_weights/conv1"]
    group["kernel:0"] = np.zeros(3, np.float32)
    group.attrs["weight_names"] = np.array([b"kernel:0", b"kernel:0"])


@pytest.mark.parametrize(
    "change",
    [
        weights_are_an_array,
        layer_names_are_a_number,
        layer_names_are_no_utf8,
        weight_names_have_no_layer,
    ],
)
def test_hdf5_of_another_layout_is_refused(stored, change):
    _, path = stored
    edit(path, change)
    refused(path, "is HDF5 but not laid out as Keras lays it out")


@pytest.mark.parametrize("share", [0.999, 0.5, 0.02])
def test_truncated_files_are_refused(stored, tmp_path, share):
    _, path = stored
    content = path.read_bytes()
    cut = tmp_path / "cut.hdf5"
    cut.write_bytes(content[: int(len(content) * share)])
    refused(cut, "damaged or incomplete")


def test_weights_that_are_named_but_absent_are_refused(stored):
    _, path = stored

    def remove(file):
        del file["model_weights/block_3a_bn_1/block_3a_bn_1/beta:0"]

    edit(path, remove)
    refused(path, "damaged or incomplete")


def test_moving_averages_cannot_be_left_out(stored):
    _, path = stored

    def remove(file):
        names = file["model_weights/bn_conv1"].attrs["weight_names"]
        file["model_weights/bn_conv1"].attrs["weight_names"] = names[:3]

    edit(path, remove)
    refused(path, "bn_conv1 has no moving_variance")


def test_other_classes_are_refused(stored):
    _, path = stored
    refused(path, "has 2 classes", classes=["mask"])
    refused(path, "mask, no-mask in this order", classes=["no-mask", "mask"])


def test_other_networks_are_refused(stored):
    _, path = stored

    def swap_name(file):
        group = file["model_weights"]
        group.move("block_2a_conv_1", "vgg_conv")
        names = [b"vgg_conv" if n == b"block_2a_conv_1" else n for n in group.attrs["layer_names"]]
        group.attrs["layer_names"] = np.array(names)
        group["vgg_conv"].attrs["weight_names"] = np.array(
            [b"block_2a_conv_1/kernel:0", b"block_2a_conv_1/bias:0"]
        )

    edit(path, swap_name)
    refused(path, "is not a ResNet 10, 18, 34 or 50")


def test_other_kinds_of_layers_are_refused(stored):
    _, path = stored

    def change(file):
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace('"Add"', '"QDQ"')

    edit(path, change)
    refused(path, "is a QDQ")


def test_weights_without_a_graph_are_refused_as_a_model(stored):
    _, path = stored

    def remove(file):
        del file.attrs["model_config"]

    edit(path, remove)
    refused(path, "input size")


def test_inconsistent_shapes_are_refused(stored):
    _, path = stored

    def change(file):
        group = file["model_weights/bn_conv1/bn_conv1"]
        del group["beta:0"]
        group["beta:0"] = np.zeros(3, np.float32)

    edit(path, change)
    refused(path, "bias of layer bn_conv1 has the shape")


def test_failed_write_keeps_the_old_file(stored, short_files):
    model, path = stored
    before = path.read_bytes()
    with short_files(5000), pytest.raises(DetectNetError) as caught:
        save_model(model, path)
    assert str(caught.value) == f"cannot write {path}: File too large"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
