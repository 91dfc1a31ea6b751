"""Calibration and INT8 simulation of small networks, against NumPy, and their command lines."""

import json
import os
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from detectnet_v2 import cli
from detectnet_v2.calibrate import collect_histograms, ranges
from detectnet_v2.calibration_cache import activation_tensors, read_cache, write_cache
from detectnet_v2.errors import DetectNetError
from detectnet_v2.export import export_onnx
from detectnet_v2.model_file import save_model
from detectnet_v2.network import load_network
from detectnet_v2.onnx_graph import onnx_model
from detectnet_v2.quantize import quantize, quantize_kernel, quantized_tensors
from detectnet_v2.tensorfile import write_tensorfile
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE = {"input_height": 32, "input_width": 48}


def photographs(count, seed=0):
    return np.random.default_rng(seed).random((count, 3, 32, 48), dtype=np.float32)


def tapped(model, images, names):
    """Values of some tensors of an ONNX model, run without any of ONNX Runtime's rewriting."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(list(names), {"input_1": images}), strict=True))


@pytest.mark.parametrize("batch_size", [None, 3])
def test_histograms_hold_every_value_of_every_activation(make_model, batch_size):
    model = onnx_model(make_model(10, 2, **SIZE), batch_size=batch_size)
    images = photographs(6)
    histograms = collect_histograms(model, images, workers=2)
    names = activation_tensors(model)
    assert list(histograms) == names
    single = onnx_model(make_model(10, 2, **SIZE))
    for name, values in tapped(single, images, names[1:]).items():
        assert histograms[name].counts.sum() == pytest.approx(np.count_nonzero(values), rel=1e-3)
        assert histograms[name].maximum == pytest.approx(np.abs(values).max(), rel=1e-4)


def test_workers_do_not_change_the_result(make_model):
    model = onnx_model(make_model(10, 2, **SIZE))
    one = collect_histograms(model, photographs(5), workers=1)
    many = collect_histograms(model, photographs(5), workers=3)
    for name, histogram in one.items():
        np.testing.assert_array_equal(histogram.counts, many[name].counts)


def test_workers_are_counted_on_systems_without_affinities_too(make_model, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert collect_histograms(onnx_model(make_model(10, 2, **SIZE)), photographs(1))


def test_input_and_heads_keep_their_whole_range(make_model):
    model = onnx_model(make_model(10, 2, **SIZE))
    histograms = collect_histograms(model, photographs(4))
    amax = ranges(model, histograms, method="percentile", percentile=50)
    whole = {"input_1", "output_bbox/BiasAdd", "output_cov/BiasAdd", "output_cov/Sigmoid"}
    assert {name for name, value in amax.items() if value == histograms[name].maximum} == whole


def as_nvidia_exports(model):
    """The same network with biases and batch norms in steps of their own, and tf2onnx's names."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    heads = {value.name: f"{value.name}:0" for value in result.graph.output}
    for value in result.graph.output:
        value.name = heads[value.name]
    nodes, weights = [], {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        node.output[0] = heads.get(node.output[0], node.output[0])
        if node.op_type != "Conv":
            nodes.append(node)
            continue
        name, bias = f"{node.name}/step", numpy_helper.to_array(weights[node.input[2]])
        ones = np.ones_like(bias)
        added = {"bias": bias[:, None, None], "scale": ones, "shift": 0 * ones, "variance": ones}
        for part, values in added.items():
            result.graph.initializer.append(numpy_helper.from_array(values, f"{name}/{part}"))
        conv = helper.make_node("Conv", node.input[:2], [f"{name}/conv"])
        conv.attribute.extend(node.attribute)
        inputs = [f"{name}/{part}" for part in ("sum", "scale", "shift", "shift", "variance")]
        nodes += [
            conv,
            helper.make_node("Add", [f"{name}/bias", f"{name}/conv"], [f"{name}/sum"]),
            helper.make_node("BatchNormalization", inputs, node.output, epsilon=1e-9),
        ]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.checker.check_model(result)
    return result


def test_networks_of_nvidias_exporters_are_calibrated_and_simulated(make_model, tmp_path):
    model = onnx_model(make_model(10, 2, **SIZE))
    other = as_nvidia_exports(model)
    scales, outputs = [], []
    for proto in (model, other):
        amax = ranges(proto, collect_histograms(proto, photographs(4)))
        scales.append(amax)
        write_cache(tmp_path / "cal.bin", {n: v / 127 for n, v in amax.items()}, "8.2.1")
        result = quantize(proto, read_cache(tmp_path / "cal.bin"))
        names = [value.name for value in result.graph.output]
        outputs.append(tapped(result, photographs(2, seed=5), names))
    # What an engine stores in eight bits is the same, and so are its scales.
    assert quantized_tensors(other) == quantized_tensors(model)
    for name in quantized_tensors(model):
        assert scales[1][name] == pytest.approx(scales[0][name], rel=1e-2), name
    for name, values in outputs[0].items():
        np.testing.assert_allclose(outputs[1].get(f"{name}:0"), values, atol=0.05)


def test_outputs_that_are_named_by_tf2onnx_are_found(make_model, tmp_path):
    model = onnx_model(make_model(10, 2, **SIZE))
    images = (photographs(2).transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    found = []
    for name, proto in (("plain", model), ("numbered", as_nvidia_exports(model))):
        onnx.save(proto, tmp_path / f"{name}.onnx")
        found.append(load_network(tmp_path / f"{name}.onnx", ["mask", "no-mask"])(images))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_images_of_another_size_are_refused(make_model):
    model = onnx_model(make_model(10, 2, **SIZE))
    with pytest.raises(DetectNetError, match=r"shape \(3, 16, 16\), the model takes \(3, 32, 48\)"):
        collect_histograms(model, np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(DetectNetError, match="no calibration images"):
        collect_histograms(model, [])


def test_values_that_are_not_finite_are_named(make_model):
    model = make_model(10, 2, **SIZE)
    model.block_2a_conv_1.bias.data[0] = float("inf")
    with pytest.raises(DetectNetError, match="block_2a_conv_1/BiasAdd are infinite or NaN"):
        collect_histograms(onnx_model(model), photographs(1))


def test_kernels_get_a_scale_for_each_filter():
    kernel = np.zeros((3, 1, 1, 2), np.float32)
    kernel[0] = [1.27, -0.635]
    kernel[1] = [-254, 100.4]
    steps, scale = quantize_kernel(kernel)
    assert steps.dtype == np.int8
    np.testing.assert_allclose(scale, [0.01, 2, 1])
    np.testing.assert_array_equal(steps[:, 0, 0], [[127, -64], [-127, 50], [0, 0]])


@pytest.fixture
def calibrated(make_model, tmp_path):
    """A model, its ONNX file and a cache for it."""
    model = make_model(10, 2, class_names=["mask", "no-mask"], **SIZE)
    save_model(model, tmp_path / "model.hdf5")
    export_onnx(model, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    amax = ranges(proto, collect_histograms(proto, photographs(8)))
    scales = {name: value / 127 for name, value in amax.items()}
    write_cache(tmp_path / "cal.bin", scales, "8.2.1")
    return proto, tmp_path


def test_stored_values_lie_on_the_grid_of_their_scale(calibrated):
    proto, folder = calibrated
    cache = read_cache(folder / "cal.bin")
    result = quantize(proto, cache)
    names = quantized_tensors(proto)
    values = tapped(result, photographs(2, seed=9), [f"{name}_dequantized" for name in names])
    for name in names:
        steps = values[f"{name}_dequantized"] / np.float32(cache.scales[name])
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert np.rint(steps).min() >= -128
        assert 60 < np.rint(steps).max() <= 127


def test_what_lies_inside_a_fused_step_is_not_stored(calibrated):
    proto, _ = calibrated
    names = quantized_tensors(proto)
    assert names[:4] == [
        "input_1",
        "activation_1/Relu",
        "block_1a_relu_1/Relu",
        "block_1a_conv_shortcut/BiasAdd",
    ]
    assert not {"block_1a_conv_2/BiasAdd", "add_1/add", "output_bbox/BiasAdd"} & set(names)


def test_int8_stays_near_float32(calibrated):
    proto, folder = calibrated
    result = quantize(proto, read_cache(folder / "cal.bin"))
    names = ["output_bbox/BiasAdd", "output_cov/BiasAdd"]
    images = photographs(4, seed=5)
    exact, simulated = tapped(proto, images, names), tapped(result, images, names)
    for name in names:
        error = np.abs(exact[name] - simulated[name])
        assert 0 < error.mean() < 0.1 * exact[name].std()


def test_coarse_scales_show(calibrated):
    proto, folder = calibrated
    cache = read_cache(folder / "cal.bin")
    images, name = photographs(2, seed=5), "output_bbox/BiasAdd"
    exact = tapped(proto, images, [name])[name]

    def error():
        return np.abs(tapped(quantize(proto, cache), images, [name])[name] - exact).mean()

    fine = error()
    cache.scales["block_3a_relu_1/Relu"] *= 30
    assert error() > 2 * fine


def test_quantized_file_runs_and_needs_opset_13(calibrated):
    proto, folder = calibrated
    output = folder / "int8.onnx"
    arguments = ["-m", folder / "model.onnx", "-c", folder / "cal.bin", "-o", output]
    assert run("quantize", *arguments) == 0
    result = onnx.load(output)
    assert result.opset_import[0].version == 13
    assert [value.name for value in result.graph.output] == [
        value.name for value in proto.graph.output
    ]
    assert list(result.metadata_props) == list(proto.metadata_props)
    exact = load_network(folder / "model.onnx", ["mask", "no-mask"])
    simulated = load_network(output, ["mask", "no-mask"])
    assert simulated.macs == exact.macs > 0
    assert simulated.parameters == exact.parameters > 0
    images = np.rint(photographs(2) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(simulated(images)[1], exact(images)[1], atol=0.05)


def run(task, *arguments):
    return cli.main([task, *map(str, arguments)])


def one_line(capfd, task, message):
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith(f"detectnet_v2 {task}: ")
    assert message in error[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "cal.bin").write_text("hello"), "is not the header"),
        (lambda folder: (folder / "cal.bin").unlink(), "cannot read the calibration cache"),
        (
            lambda folder: write_cache(folder / "cal.bin", {"input_1": 0.1}, "8.2.1"),
            "made for another network",
        ),
        (lambda folder: (folder / "model.onnx").write_bytes(b"x" * 99), "damaged or no ONNX"),
        (lambda folder: (folder / "model.onnx").unlink(), "no ONNX file at"),
        (lambda folder: (folder / "int8.onnx").write_text(""), "exists already"),
    ],
)
def test_quantize_refuses_with_one_line(calibrated, capfd, change, message):
    _, folder = calibrated
    change(folder)
    arguments = ["-m", folder / "model.onnx", "-c", folder / "cal.bin"]
    assert run("quantize", *arguments, "-o", folder / "int8.onnx") == cli.FAILED
    one_line(capfd, "quantize", message)


def test_calibrate_writes_a_cache_for_each_version(calibrated):
    proto, folder = calibrated
    write_tensorfile(folder / "images.tensor", [photographs(3, seed) for seed in range(4)])
    arguments = ["-m", folder / "model.onnx", "-o", folder / "out" / "cal.trt{version}.bin"]
    arguments += ["--trt_version", "8.2.1", "10.3.0", "--cal_data_file", folder / "images.tensor"]
    arguments += ["--batches", "4", "--batch_size", "2", "--results_dir", folder / "results"]
    assert run("calibrate", *arguments) == 0
    old = (folder / "out" / "cal.trt8.2.1.bin").read_text().splitlines()
    new = (folder / "out" / "cal.trt10.3.0.bin").read_text().splitlines()
    assert old[0] == "TRT-8201-EntropyCalibration2"
    assert new[0] == "TRT-100300-EntropyCalibration2"
    assert old[1:] == new[1:]
    assert list(read_cache(folder / "out" / "cal.trt8.2.1.bin").scales) == activation_tensors(proto)
    # The first two images of each batch, as TAO's calibrator takes them.
    images = np.concatenate([photographs(3, seed)[:2] for seed in range(4)])
    expected = ranges(proto, collect_histograms(proto, images))
    report = json.loads((folder / "results" / "calibration.json").read_text())
    assert report["images"] == 8
    assert {name: entry["amax"] for name, entry in report["tensors"].items()} == expected


def test_calibrate_takes_a_folder_of_images(calibrated):
    _, folder = calibrated
    images = folder / "images"
    images.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.{['png', 'jpg'][number % 2]}")
    (images / "notes.txt").write_text("no image")
    arguments = ["-m", folder / "model.onnx", "-o", folder / "new.bin", "--trt_version", "8.2.1"]
    arguments += ["--cal_image_dir", images, "--batches", "2", "--batch_size", "2"]
    assert run("calibrate", *arguments) == 0
    assert len(read_cache(folder / "new.bin").scales) > 20


def test_calibrate_on_a_terminal_draws_a_bar(calibrated, terminal):
    _, folder = calibrated
    write_tensorfile(folder / "images.tensor", [photographs(2)])
    arguments = ["-m", folder / "model.onnx", "-o", folder / "new.bin", "--trt_version", "8.2.1"]
    arguments += ["--cal_data_file", folder / "images.tensor", "--batches", "1"]
    with terminal() as shown:
        assert run("calibrate", *arguments, "--batch_size", "2") == 0
    assert b"\r  0%|" in shown and b"| 2/2 [" in shown
    # What is told after the bar stands on a line of its own.
    last = shown.decode().splitlines()[-1]
    assert re.match(rf"[^|]* {re.escape(str(folder))}/new.bin: scales of ", last)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no calibration images: name a tensorfile"),
        (["--cal_image_dir", "absent"], "--cal_image_dir absent: no such folder"),
        (["--cal_data_file", "absent"], "no tensorfile at absent"),
        (["--cal_data_file", "{}/images.tensor"], "holds 1 batches of 2"),
        (["--cal_data_file", "{}/images.tensor", "--batches", "0"], "must be at least 1"),
        (["--cal_image_dir", "{}"], "0 images (jpg, png), but"),
        (["--trt_version", "8.2.1", "8.5.2"], "must hold {version}"),
        (["--trt_version", "new"], "--trt_version new"),
    ],
)
def test_calibrate_refuses_with_one_line(calibrated, capfd, flags, message):
    _, folder = calibrated
    write_tensorfile(folder / "images.tensor", [photographs(2)])
    flags = [flag.replace("{}", str(folder)) for flag in flags]
    arguments = ["-m", folder / "model.onnx", "-o", folder / "new.bin", "--trt_version", "8.2.1"]
    assert run("calibrate", *arguments, *flags) == cli.FAILED
    one_line(capfd, "calibrate", message)
    assert not (folder / "new.bin").exists()


def test_export_with_int8_writes_and_reuses_the_cache(calibrated, capfd):
    _, folder = calibrated
    write_tensorfile(folder / "images.tensor", [photographs(2)])
    cache = folder / "export.bin"
    arguments = ["-m", folder / "model.hdf5", "--data_type", "int8", "--cal_cache_file", cache]
    data = ["--cal_data_file", folder / "images.tensor", "--batches", "1", "--batch_size", "2"]
    assert run("export", *arguments, *data, "-o", folder / "one.onnx") == 0
    assert cache.read_text().startswith("TRT-8502-EntropyCalibration2\n")
    before = cache.stat().st_mtime_ns
    assert run("export", *arguments, "-o", folder / "two.onnx") == 0
    assert cache.stat().st_mtime_ns == before
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()
    write_cache(cache, {"input_1": 0.1}, "8.2.1")
    capfd.readouterr()
    assert run("export", *arguments, "-o", folder / "three.onnx") == cli.FAILED
    one_line(capfd, "export", "made for another network")
    assert not (folder / "three.onnx").exists()
