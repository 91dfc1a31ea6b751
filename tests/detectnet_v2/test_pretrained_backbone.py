"""Pretrained backbones: loaded by name and counted, and which files are refused."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_model, load_pretrained, save_model

SMALL = {"input_height": 32, "input_width": 48}


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def strip_heads(source, target):
    """Make a file like NGC's backbones: no heads, no detector's graph."""
    shutil.copy(source, target)

    def strip(file):
        group = file["model_weights"]
        for head in ("output_bbox", "output_cov"):
            del group[head]
        group.attrs["layer_names"] = group.attrs["layer_names"][:-2]
        del file.attrs["model_config"]

    edit(target, strip)
    return target


def test_backbone_without_heads_is_refused_as_a_model(stored, tmp_path):
    _, path = stored
    backbone = strip_heads(path, tmp_path / "backbone.hdf5")
    with pytest.raises(DetectNetError, match="no layer output_bbox and no output_cov") as caught:
        load_model(backbone)
    assert str(backbone) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pretrained_backbone_loads_by_name_and_heads_stay_fresh(stored, tmp_path):
    trained, path = stored
    backbone = strip_heads(path, tmp_path / "backbone.hdf5")
    model = DetectNetV2(10, 4, **SMALL)
    head = model.output_cov.weight.clone()
    report = load_pretrained(model, backbone)
    assert len(report.matched) == 2 * (1 + 8 + 4)
    assert not report.mismatched and not report.absent and not report.unused
    assert str(report) == "26 of 26 backbone layers loaded"
    assert torch.equal(model.block_4a_conv_2.weight, trained.block_4a_conv_2.weight)
    assert torch.equal(model.bn_conv1.running_var, trained.bn_conv1.running_var)
    assert torch.equal(model.output_cov.weight, head)


def test_heads_of_a_whole_model_are_not_taken_over(stored):
    _, path = stored
    model = DetectNetV2(10, 2, **SMALL)
    head = model.output_bbox.weight.clone()
    assert len(load_pretrained(model, path).matched) == 26
    assert torch.equal(model.output_bbox.weight, head)


def test_graph_of_a_pretrained_classifier_does_not_matter(stored):
    trained, path = stored

    def change(file):
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace('"Add"', '"GlobalAveragePooling2D"')

    edit(path, change)
    model = DetectNetV2(10, 2, **SMALL)
    assert len(load_pretrained(model, path).matched) == 26
    assert torch.equal(model.conv1.weight, trained.conv1.weight)


def test_layers_of_another_shape_are_skipped_and_counted(stored):
    trained, path = stored
    model = DetectNetV2(10, 2, widths={"block_1a_conv_1": 8}, **SMALL)
    fresh = model.block_1a_conv_2.weight.clone()
    report = load_pretrained(model, path)
    assert [name for name, *_ in report.mismatched] == [
        "block_1a_conv_1",
        "block_1a_bn_1",
        "block_1a_conv_2",
    ]
    assert report.mismatched[0][1:] == ((64, 64, 3, 3), (8, 64, 3, 3))
    assert "23 of 26 backbone layers loaded; 3 skipped" in str(report)
    assert torch.equal(model.block_1a_conv_2.weight, fresh)
    assert torch.equal(model.conv1.weight, trained.conv1.weight)


def test_deeper_backbone_reports_what_it_lacks(stored):
    _, path = stored
    report = load_pretrained(DetectNetV2(18, 2, **SMALL), path)
    assert "block_1b_conv_1" in report.absent
    assert len(report.matched) == 26


def test_pretrained_file_without_any_match_is_refused(stored):
    _, path = stored

    def rename(file):
        group = file["model_weights"]
        names = []
        for name in group.attrs["layer_names"]:
            group.move(name, b"other_" + name)
            names.append(b"other_" + name)
        group.attrs["layer_names"] = np.array(names)

    edit(path, rename)
    with pytest.raises(DetectNetError, match=r"no layer of .* fits resnet10") as caught:
        load_pretrained(DetectNetV2(10, 2, **SMALL), path)
    assert "\n" not in str(caught.value)


def refused_as_pretrained(path, message):
    """No weight of a ResNet18 changes, and the message is one line with the file's name."""
    model = DetectNetV2(18, 2, **SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DetectNetError, match=message) as caught:
        load_pretrained(model, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bottlenecks_are_no_backbone_of_plain_units(make_model, tmp_path):
    """Half of a ResNet50's layers have the names and shapes of a ResNet18's."""
    path = tmp_path / "resnet50.hdf5"
    save_model(make_model(50, 2, **SMALL), path)
    message = "block_1a_conv_1 has kernels of 1 x 1, not 3 x 3 pixels; .* a backbone of this depth"
    refused_as_pretrained(path, message)


def test_vgg_is_no_backbone_though_names_and_shapes_are_shared(tmp_path):
    path = tmp_path / "vgg.h5"
    layers = {
        "block_1a_conv_1": {"kernel": np.ones((3, 3, 3, 64), np.float32)},
        "block_1a_bn_1": {"gamma": np.ones(64, np.float32), "beta": np.ones(64, np.float32)},
        "block_2a_conv_1": {"kernel": np.ones((3, 3, 64, 128), np.float32)},
    }
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for layer, weights in layers.items():
            names = {name: f"{layer}/{name}:0" for name in weights}
            file.create_group(layer).attrs["weight_names"] = np.array(
                [name.encode() for name in names.values()]
            )
            for name, value in weights.items():
                file[layer][names[name]] = value
    refused_as_pretrained(path, "another kind of network than resnet18.*: it has no conv1")
