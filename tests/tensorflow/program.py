"""What the tests ask of TensorFlow and Keras, run by the Python of an environment that has them.

    python program.py predict MODEL IMAGES FOLDER         load a whole model, compute
    python program.py build WIDTHS IMAGES FOLDER          make a ResNet18 detector, save, compute
    python program.py others FOLDER                       save networks of other kinds
    python program.py records OUTPUT FILE...              read tfrecords
    python program.py rewrite SOURCE OUTPUT               copy a tfrecord, record by record

IMAGES is a .npy of (n, 3, height, width); arrays come back in .npz files, records in JSON. Nothing
of the project is imported: names and shapes are written out here once more, as TAO has them.
"""

import importlib
import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# On a CPU, convolutions of channels_first need oneDNN, which is off where AVX-512 is missing.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"

import numpy as np

BLOCKS = ((64, 2), (128, 2), (256, 2), (512, 1))


def symmetric(keras, model):
    """The model with the zero padding of TAO's patched Keras, the same on both sides.

    Returns a model of both outputs, or of the last layer's where the model has no heads.
    """
    layers = keras.layers
    values, copies = {}, []
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            values[layer.name] = keras.Input(model.input_shape[1:], name=layer.name)
            continue
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [values[maker(tensor)] for tensor in tensors]
        if isinstance(layer, layers.Conv2D) and layer.padding == "same":
            pad = layer.kernel_size[0] // 2
            padded = layers.ZeroPadding2D(pad, data_format="channels_first")(inputs[0])
            copy = layers.Conv2D.from_config(layer.get_config() | {"padding": "valid"})
            values[layer.name] = copy(padded)
            copies.append((copy, layer))
        else:
            values[layer.name] = layer(inputs if len(inputs) > 1 else inputs[0])
    heads = [name for name in ("output_bbox", "output_cov") if name in values]
    rebuilt = keras.Model(
        values["input_1"], [values[name] for name in heads or [model.layers[-1].name]]
    )
    for copy, layer in copies:
        copy.set_weights(layer.get_weights())
    return rebuilt


def maker(tensor):
    """Name of the layer that makes a tensor; Keras 2 and Keras 3 keep it differently."""
    history = tensor._keras_history
    return (history.operation if hasattr(history, "operation") else history.layer).name


def save_outputs(keras, model, images, output, **more):
    """Compute with symmetric padding; write the values, and the layers with weights in order."""
    names = [layer.name for layer in model.layers if layer.weights]
    values = symmetric(keras, model)(images, training=False)
    values = values if isinstance(values, (list, tuple)) else [values]
    arrays = {f"output{number}": np.asarray(value) for number, value in enumerate(values)}
    np.savez(output, names=np.array(names), **arrays, **more)


def predict(model, images, folder):
    """Load a whole model, graph included, with Keras 2 and Keras 3, and compute with it."""
    for library in ("tf_keras", "keras"):
        keras = importlib.import_module(library)
        loaded = keras.models.load_model(model, compile=False)
        output = Path(folder, f"{library}.npz")
        save_outputs(keras, loaded, np.load(images), output, name=np.array(loaded.name))


def detector(keras, widths, size, *, heads=True):
    """A ResNet18 with TAO's layer names, as TAO's template builds it; `widths` are pruned ones."""
    layers = keras.layers

    def conv(x, name, filters, kernel, stride=1, padding="same", activation=None):
        return layers.Conv2D(
            widths.get(name, filters),
            kernel,
            strides=stride,
            padding=padding,
            activation=activation,
            data_format="channels_first",
            name=name,
        )(x)

    def norm(x, name):
        return layers.BatchNormalization(axis=1, name=name)(x)

    first = keras.Input((3, *size), name="input_1")
    x = layers.Activation("relu", name="activation_1")(
        norm(conv(first, "conv1", 64, 7, 2), "bn_conv1")
    )
    number = 0
    for block, (width, stride) in enumerate(BLOCKS, start=1):
        for unit in "ab":
            name = f"block_{block}{unit}"
            step = stride if unit == "a" else 1
            y = norm(conv(x, f"{name}_conv_1", width, 3, step), f"{name}_bn_1")
            y = layers.Activation("relu", name=f"{name}_relu_1")(y)
            y = norm(conv(y, f"{name}_conv_2", width, 3), f"{name}_bn_2")
            if unit == "a":
                x = conv(x, f"{name}_conv_shortcut", width, 1, step, "valid")
                x = norm(x, f"{name}_bn_shortcut")
            number += 1
            x = layers.Add(name=f"add_{number}")([y, x])
            x = layers.Activation("relu", name=f"{name}_relu")(x)
    if not heads:
        return keras.Model(first, x, name="resnet18_nopool_bn")
    outputs = [conv(x, "output_bbox", 8, 1), conv(x, "output_cov", 2, 1, activation="sigmoid")]
    return keras.Model(first, outputs, name="resnet18_nopool_bn_detectnet_v2")


def randomise(model):
    """Give every weight a value that matters, as after training."""
    random = np.random.default_rng(7)
    for layer in model.layers:
        values = []
        for weight in layer.weights:
            positive = weight.name.split("/")[-1].startswith(("gamma", "moving_variance"))
            low, high = (0.5, 1.5) if positive else (-0.3, 0.3)
            shape = tuple(weight.shape)
            if len(shape) == 4:
                high = (6 / np.prod(shape[:3])) ** 0.5
                low = -high
            values.append(random.uniform(low, high, shape).astype(np.float32))
        layer.set_weights(values)


def build(widths, images, folder):
    """Save a detector, and its backbone as a whole model and as weights alone."""
    import tf_keras as keras

    folder, images = Path(folder), np.load(images)
    widths = json.loads(widths)
    model = detector(keras, widths, images.shape[2:])
    randomise(model)
    model.save(folder / "detector.hdf5", save_format="h5")
    save_outputs(keras, model, images, folder / "detector.npz")
    backbone = detector(keras, widths, images.shape[2:], heads=False)
    for layer in backbone.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    backbone.save(folder / "backbone.hdf5", save_format="h5")
    backbone.save_weights(folder / "backbone.h5", save_format="h5")
    save_outputs(keras, backbone, images, folder / "backbone.npz")


def others(folder):
    """Save the backbones of other networks, as Keras itself offers them."""
    import tf_keras as keras

    size = (64, 64, 3)
    applications = keras.applications
    for make in (applications.MobileNet, applications.ResNet50):
        network = make(weights=None, include_top=False, input_shape=size)
        network.save_weights(Path(folder, f"{make.__name__}.h5"), save_format="h5")


def records(output, *paths):
    """Read tfrecords by TensorFlow's dataset and parser: for each file its records in order."""
    import tensorflow as tf

    kinds = {"bytes_list": tf.string, "float_list": tf.float32, "int64_list": tf.int64}
    found = []
    for path in paths:
        file = []
        for record in tf.data.TFRecordDataset(path):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            kind = {key: value.WhichOneof("kind") for key, value in features.items()}
            schema = {key: tf.io.VarLenFeature(kinds[name]) for key, name in kind.items()}
            parsed = tf.io.parse_example(record[None], schema)
            file.append(
                {
                    key: [kind[key], [text(value) for value in parsed[key].values.numpy().tolist()]]
                    for key in kind
                }
            )
        found.append(file)
    Path(output).write_text(json.dumps(found), encoding="utf-8")


def rewrite(source, output):
    """Write the records of a file again, by TensorFlow's message class and writer."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(output) as writer:
        for record in tf.data.TFRecordDataset(source):
            writer.write(tf.train.Example.FromString(record.numpy()).SerializeToString())


def text(value):
    """A value for JSON."""
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    commands = {command.__name__: command for command in (predict, build, others, records, rewrite)}
    commands[sys.argv[1]](*sys.argv[2:])
