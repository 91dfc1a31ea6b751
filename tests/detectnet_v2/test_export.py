"""Export: the ONNX computes what the model does, under NVIDIA's names, in old and new opsets."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from detectnet_v2 import cli, onnx_graph
from detectnet_v2.errors import DetectNetError
from detectnet_v2.export import export_onnx, write_ds_config
from detectnet_v2.model_file import save_model
from detectnet_v2.onnx_graph import onnx_model

SMALL = {"input_height": 32, "input_width": 48}


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})


@pytest.mark.parametrize(
    ("opset", "options"),
    [
        *((opset, {"num_layers": 10}) for opset in (9, 10, 11, 12, 13, 17, 20)),
        *((opset, {"num_layers": 10, "use_pooling": True}) for opset in (9, 11, 19)),
        (11, {"num_layers": 18, "all_projections": True}),
        (11, {"num_layers": 10, "use_batch_norm": False}),
        (11, {"num_layers": 10, "widths": {"conv1": 24, "block_1a_conv_1": 7}}),
        pytest.param(11, {"num_layers": 50}, marks=pytest.mark.slow),
    ],
)
def test_onnx_computes_what_the_model_does(make_model, tmp_path, options, opset):
    model = make_model(num_classes=2, **options, **SMALL)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, opset=opset)
    images = torch.rand(3, 3, 32, 48)
    with torch.inference_mode():
        expected = model(images)
    for ours, theirs in zip(run_onnx(path, images), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4)


def test_names_shapes_and_versions(make_model):
    proto = onnx_model(make_model(10, 2, class_names=["mask", "no-mask"], **SMALL))
    graph = proto.graph

    def shape(value):
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert {value.name: shape(value) for value in graph.input} == {"input_1": ["batch", 3, 32, 48]}
    assert {value.name: shape(value) for value in graph.output} == {
        "output_bbox/BiasAdd": ["batch", 8, 2, 3],
        "output_cov/Sigmoid": ["batch", 2, 2, 3],
    }
    assert graph.output[0].name == "output_bbox/BiasAdd"
    assert proto.opset_import[0].version == 11
    # TensorRT 7.1 is of the time of IR version 6.
    assert proto.ir_version == 6
    assert {node.op_type for node in graph.node} == {"Conv", "Relu", "Add", "Sigmoid"}
    assert [(node.name, node.output[0]) for node in graph.node][:3] == [
        ("conv1", "conv1/BiasAdd"),
        ("activation_1", "activation_1/Relu"),
        ("block_1a_conv_1", "block_1a_conv_1/BiasAdd"),
    ]
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert [(prop.key, prop.value) for prop in proto.metadata_props] == [
        ("class_names", "mask;no-mask")
    ]


def test_static_batch_and_tf2onnx_names(make_model, tmp_path):
    model = make_model(10, 2, **SMALL)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, batch_size=2, suffix=":0")
    graph = onnx.load(path).graph
    assert graph.input[0].name == "input_1:0"
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert [value.name for value in graph.output] == [
        "output_bbox/BiasAdd:0",
        "output_cov/Sigmoid:0",
    ]
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        expected = model(images)
    for ours, theirs in zip(run_onnx(path, images), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run_onnx(path, images[:1])


def test_the_same_model_gives_the_same_bytes(make_model, tmp_path):
    for name in ("one", "two"):
        export_onnx(make_model(10, 2, **SMALL), tmp_path / f"{name}.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_onnx_never_appears(make_model, tmp_path, monkeypatch):
    fold = onnx_graph.fold_batch_norms

    def without_a_shift(model):
        folded = fold(model)
        torch.nn.init.zeros_(folded.block_4a_conv_2.bias)
        return folded

    monkeypatch.setattr(onnx_graph, "fold_batch_norms", without_a_shift)
    with pytest.raises(DetectNetError, match="computes something else"):
        export_onnx(make_model(10, 2, **SMALL), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def magnified(model, factor):
    """The model with boxes `factor` times as large."""
    with torch.no_grad():
        model.output_bbox.weight.mul_(factor)
    return model


def test_huge_boxes_are_as_exact_as_float32_is(make_model, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    export_onnx(magnified(make_model(10, 2, **SMALL), 1e5), path)
    path.unlink()
    fold = onnx_graph.fold_batch_norms

    def slightly_wrong(model):
        folded = fold(model)
        with torch.no_grad():
            folded.output_bbox.weight.mul_(1 + 1e-5)
        return folded

    monkeypatch.setattr(onnx_graph, "fold_batch_norms", slightly_wrong)
    with pytest.raises(DetectNetError, match="computes something else than the model: bbox"):
        export_onnx(magnified(make_model(10, 2, **SMALL), 1e5), path)


def test_boxes_of_usual_size_agree_within_1e_4(make_model, tmp_path, monkeypatch):
    """A relative tolerance would let this pass."""
    model = make_model(10, 2, **SMALL)
    with torch.no_grad():
        model.output_bbox.weight.mul_(0.01)
        model.output_bbox.bias.fill_(10)
    fold = onnx_graph.fold_batch_norms

    def slightly_wrong(model):
        folded = fold(model)
        with torch.no_grad():
            folded.output_bbox.bias.add_(3e-4)
        return folded

    export_onnx(model, tmp_path / "right.onnx")
    monkeypatch.setattr(onnx_graph, "fold_batch_norms", slightly_wrong)
    with pytest.raises(DetectNetError, match=r"bbox differs by 0\.0003.*allowed is 0\.0001"):
        export_onnx(model, tmp_path / "model.onnx")


def test_model_with_nan_is_refused(make_model, tmp_path):
    model = make_model(10, 2, **SMALL)
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(DetectNetError, match="infinite or NaN"):
        export_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 8}, "--target_opset 8: choose 9 to 20"),
        ({"opset": 21}, "--target_opset 21"),
        ({"batch_size": 0}, "--static_batch_size 0"),
    ],
)
def test_impossible_exports_are_refused(make_model, options, message):
    with pytest.raises(DetectNetError, match=message):
        onnx_model(make_model(10, 2, **SMALL), **options)


def test_ds_config_holds_what_nvinfer_needs_from_the_model(tmp_path):
    write_ds_config(tmp_path, ["mask", "no-mask"], height=544, width=960)
    assert (tmp_path / "labels.txt").read_bytes() == b"mask\nno-mask\n"
    settings = dict(
        line.split("=") for line in (tmp_path / "nvinfer_config.txt").read_text().splitlines()
    )
    assert settings == {
        "net-scale-factor": "0.0039215697906911373",
        "offsets": "0.0;0.0;0.0",
        "infer-dims": "3;544;960",
        "network-type": "0",
        "num-detected-classes": "2",
        "model-color-format": "0",
        "maintain-aspect-ratio": "0",
        "output-tensor-meta": "0",
    }
    assert float(settings["net-scale-factor"]) == pytest.approx(1 / 255, rel=1e-6)


@pytest.fixture
def model_path(make_model, tmp_path):
    path = tmp_path / "model.hdf5"
    save_model(make_model(10, 2, class_names=["mask", "no-mask"], **SMALL), path)
    return path


def export(*arguments):
    return cli.main(["export", *map(str, arguments)])


def test_command_writes_onnx_beside_the_model(model_path, tmp_path):
    results = tmp_path / "results"
    assert export("-m", model_path, "-k", "secret", "--results_dir", results) == 0
    assert (tmp_path / "model.onnx").is_file()
    last = json.loads((results / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    assert "secret" not in (results / "status.json").read_text()


def test_command_takes_the_flags_of_all_generations(model_path, tmp_path):
    output = tmp_path / "out" / "model"
    flags = ["--data_type", "fp16", "--target_opset", "12", "--static_batch_size", "1"]
    flags += ["--max_batch_size", "4", "--min_batch_size", "1", "--opt_batch_size", "2"]
    flags += ["--max_workspace_size", "1073741824", "-s", "--force_ptq", "--verbose"]
    flags += ["--onnx_route", "keras2onnx", "--gen_ds_config", "-k", "tlt_encode"]
    assert export("-m", model_path, "-o", output, *flags) == 0
    assert onnx.load(output.with_suffix(".onnx")).opset_import[0].version == 12
    assert (output.parent / "labels.txt").read_text() == "mask\nno-mask\n"
    assert "infer-dims=3;32;48\n" in (output.parent / "nvinfer_config.txt").read_text()
    assert "tlt-model-key=tlt_encode\n" in (output.parent / "nvinfer_config.txt").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--engine_file", "x.engine"],
            "--engine_file x.engine: building an engine needs TensorRT",
        ),
        (["--cal_json_file", "x.json"], "--cal_json_file x.json"),
        (["--target_opset", "30"], "--target_opset 30"),
        (["-e", "absent.txt"], "absent.txt"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(model_path, tmp_path, capfd, flags, message):
    output = tmp_path / "model.onnx"
    assert export("-m", model_path, "-o", output, *flags) == cli.FAILED
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("detectnet_v2 export: ")
    assert message in error[0]
    assert not output.exists()


def test_existing_output_is_not_overwritten(model_path, tmp_path, capfd):
    output = tmp_path / "model.onnx"
    output.write_text("precious")
    assert export("-m", model_path, "-o", output) == cli.FAILED
    assert output.read_text() == "precious"
    assert "exists already" in capfd.readouterr().err


def test_labels_need_names(make_model, tmp_path, capfd):
    path = tmp_path / "nameless.hdf5"
    save_model(make_model(10, 2, **SMALL), path)
    assert export("-m", path, "--gen_ds_config") == cli.FAILED
    assert "give the spec that trained it with -e" in capfd.readouterr().err
    assert not path.with_suffix(".onnx").exists()


def test_labels_follow_the_spec(make_model, tmp_path):
    path = tmp_path / "nameless.hdf5"
    save_model(make_model(10, 2, **SMALL), path)
    spec = __file__.replace("test_export.py", "specs/tlt2_train.txt")
    assert export("-m", path, "-e", spec, "--gen_ds_config") == 0
    assert (tmp_path / "labels.txt").read_text() == "mask\nno-mask\n"


@pytest.mark.slow
def test_recipe_size_is_within_tolerance(make_model, tmp_path):
    model = make_model(18, 2)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    images = torch.rand(1, 3, 544, 960)
    with torch.inference_mode():
        expected = model(images)
    for ours, theirs in zip(run_onnx(path, images), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4)
