"""Weights both ways: Keras loads the files of this toolkit, which loads those of Keras."""

import json

import numpy as np
import pytest
import torch
from detectnet_v2.errors import DetectNetError
from detectnet_v2.keras_config import keras_order
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_model, load_pretrained, save_model

pytestmark = pytest.mark.slow

SIZE = {"input_height": 64, "input_width": 96}
# A pruned ResNet18: stem and first convolutions alone, the others of a block together.
PRUNED = {
    "conv1": 24,
    "block_1a_conv_1": 16,
    "block_2a_conv_1": 40,
    "block_4b_conv_1": 8,
    **dict.fromkeys(("block_3a_conv_2", "block_3a_conv_shortcut", "block_3b_conv_2"), 72),
}


@pytest.fixture
def images(tmp_path):
    """A batch of two, and the file that hands it to Keras."""
    values = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "images.npy", values.numpy())
    return values, tmp_path / "images.npy"


def assert_predicts(outputs, model, images):
    """Both outputs of a model are those of an .npz, to 1e-3 at most."""
    with torch.no_grad():
        bbox, coverage = model(images)
    assert bbox.std() > 0.05, "a network of constants would agree with anything"
    assert coverage.std() > 0.01
    np.testing.assert_allclose(outputs["output0"], bbox, rtol=0, atol=1e-3)
    np.testing.assert_allclose(outputs["output1"], coverage, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_layers": 18}, id="unpruned"),
        pytest.param({"num_layers": 18, "widths": PRUNED}, id="pruned"),
        pytest.param({"num_layers": 10, "all_projections": True}, id="projections"),
    ],
)
def test_keras_loads_a_model_and_computes_the_same(
    tensorflow, make_model, tmp_path, images, options
):
    model = make_model(num_classes=2, class_names=["mask", "no-mask"], **options, **SIZE)
    save_model(model, tmp_path / "model.hdf5")
    batch, file = images
    tensorflow("predict", tmp_path / "model.hdf5", file, tmp_path)
    for library in ("tf_keras", "keras"):
        outputs = np.load(tmp_path / f"{library}.npz")
        assert outputs["name"] == model.architecture.name
        assert list(outputs["names"]) == [
            layer.name
            for layer in keras_order(model.layers)
            if layer.kind in ("conv", "batch_norm")
        ]
        assert_predicts(outputs, model, batch)


@pytest.mark.parametrize(
    "widths", [pytest.param({}, id="unpruned"), pytest.param(PRUNED, id="pruned")]
)
def test_this_toolkit_loads_what_keras_saves(tensorflow, tmp_path, images, widths):
    batch, file = images
    tensorflow("build", json.dumps(widths), file, tmp_path)
    model = load_model(tmp_path / "detector.hdf5", classes=["mask", "no-mask"])
    assert model.architecture == DetectNetV2(18, 2).architecture
    assert {name: width for name, width in model.widths.items() if name in widths} == widths
    assert (model.input_height, model.input_width) == (64, 96)
    assert_predicts(np.load(tmp_path / "detector.npz"), model, batch)

    # NGC's backbones have no heads; theirs is a whole model or weights alone.
    expected = np.load(tmp_path / "backbone.npz")["output0"]
    for name in ("backbone.hdf5", "backbone.h5"):
        fresh = DetectNetV2(18, 2, widths=widths, **SIZE)
        report = load_pretrained(fresh, tmp_path / name)
        assert str(report) == "42 of 42 backbone layers loaded"
        with torch.no_grad():
            features = fresh.eval().features(batch)
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-3)
    with pytest.raises(DetectNetError, match="no layer output_bbox and no output_cov"):
        load_model(tmp_path / "backbone.hdf5")


def test_networks_of_another_kind_are_refused(tensorflow, tmp_path):
    tensorflow("others", tmp_path)
    for name in ("MobileNet.h5", "ResNet50.h5"):
        model = DetectNetV2(18, 2, **SIZE)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        for load in (load_model, lambda path, model=model: load_pretrained(model, path)):
            with pytest.raises(DetectNetError, match=name) as caught:
                load(tmp_path / name)
            assert "\n" not in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
