"""Keras itself loads the model files, and computes the same with them."""

import os
import shutil

import pytest
import torch
from detectnet_v2.keras_config import keras_order
from detectnet_v2.model_file import save_model
from torch.nn import functional as F

SIZE = {"input_height": 64, "input_width": 96}


@pytest.fixture
def keras():
    # Keras on PyTorch reads the old HDF5 files as on TensorFlow, and runs channels_first on a CPU.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    module = pytest.importorskip("keras")
    before = module.backend.image_data_format()
    module.backend.set_image_data_format("channels_first")
    yield module
    module.backend.set_image_data_format(before)


def run_graph(keras, model, images):
    """Run a loaded Keras model with the symmetric padding that TAO's patched Keras has."""
    values = {}
    for layer in model.layers:
        name = layer.name
        if isinstance(layer, keras.layers.InputLayer):
            values[name] = images
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [values[tensor._keras_history.operation.name] for tensor in inputs]
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size[0] > 1:
            inputs = [F.pad(inputs[0], [layer.kernel_size[0] // 2] * 4)]
            unpadded = keras.layers.Conv2D.from_config(layer.get_config() | {"padding": "valid"})
            unpadded.build(inputs[0].shape)
            unpadded.set_weights(layer.get_weights())
            values[name] = unpadded(inputs[0])
        else:
            values[name] = layer(inputs if len(inputs) > 1 else inputs[0])
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 18},
        {"num_layers": 10, "widths": {"conv1": 24, "block_2a_conv_1": 7}},
        {"num_layers": 18, "all_projections": True},
    ],
)
def test_keras_loads_a_model_and_computes_the_same(keras, make_model, tmp_path, options):
    model = make_model(num_classes=2, class_names=["mask", "no-mask"], **options, **SIZE)
    save_model(model, tmp_path / "model.hdf5")
    # Keras 3 tells the format by the suffix.
    shutil.copy(tmp_path / "model.hdf5", tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5", compile=False)
    assert [layer.name for layer in loaded.layers if layer.weights] == [
        layer.name for layer in keras_order(model.layers) if layer.kind in ("conv", "batch_norm")
    ]
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected_bbox, expected_cov = model(images)
        values = run_graph(keras, loaded, images)
    torch.testing.assert_close(values["output_bbox"], expected_bbox, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values["output_cov"], expected_cov, rtol=1e-4, atol=1e-5)
