"""The network: its structure against an independent reference, sizes, freezing."""

import pytest
import torch
from detectnet_v2.architecture import Architecture, sizes
from detectnet_v2.errors import DetectNetError
from detectnet_v2.folding import fold_batch_norms
from detectnet_v2.model import (
    DetectNetV2,
    count_macs,
    count_parameters,
    freeze,
    regularized_parameters,
)
from torch.nn import functional as F

UNITS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def reference(state, images, num_layers, all_projections=False):
    """The detector written out with functions, from the specification alone."""

    def conv_bn(x, conv, bn, stride, padding):
        x = F.conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"], stride, padding)
        mean, var = state[f"{bn}.running_mean"], state[f"{bn}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{bn}.weight"], state[f"{bn}.bias"], eps=1e-3)

    x = conv_bn(images, "conv1", "bn_conv1", 2, 3).relu()
    for block, (units, block_stride) in enumerate(
        zip(UNITS[num_layers], (2, 2, 2, 1), strict=True), start=1
    ):
        for unit in range(units):
            name = f"block_{block}{'abcdef'[unit]}"
            stride = block_stride if unit == 0 else 1
            if num_layers == 50:
                y = conv_bn(x, f"{name}_conv_1", f"{name}_bn_1", stride, 0).relu()
                y = conv_bn(y, f"{name}_conv_2", f"{name}_bn_2", 1, 1).relu()
                y = conv_bn(y, f"{name}_conv_3", f"{name}_bn_3", 1, 0)
            else:
                y = conv_bn(x, f"{name}_conv_1", f"{name}_bn_1", stride, 1).relu()
                y = conv_bn(y, f"{name}_conv_2", f"{name}_bn_2", 1, 1)
            if unit == 0 or all_projections:
                x = conv_bn(x, f"{name}_conv_shortcut", f"{name}_bn_shortcut", stride, 0)
            x = (x + y).relu()
    bbox = F.conv2d(x, state["output_bbox.weight"], state["output_bbox.bias"])
    cov = F.conv2d(x, state["output_cov.weight"], state["output_cov.bias"]).sigmoid()
    return bbox, cov


@pytest.mark.parametrize(
    ("num_layers", "all_projections"),
    [(10, False), (18, False), (18, True), (34, False), (50, False), (50, True)],
)
def test_forward_computes_the_specified_network(make_model, num_layers, all_projections):
    model = make_model(
        num_layers, 3, all_projections=all_projections, input_height=48, input_width=80
    )
    images = torch.rand(2, 3, 48, 80)
    with torch.inference_mode():
        bbox, cov = model(images)
        expected_bbox, expected_cov = reference(
            model.state_dict(), images, num_layers, all_projections
        )
    assert bbox.shape == (2, 12, 3, 5)
    assert cov.shape == (2, 3, 3, 5)
    torch.testing.assert_close(bbox, expected_bbox, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cov, expected_cov, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("num_classes", "total", "trainable"),
    [(2, 11_200_458, 11_190_730), (3, 11_203_023, 11_193_295)],
)
def test_resnet18_has_the_templates_number_of_parameters(num_classes, total, trainable):
    model = DetectNetV2(18, num_classes)
    assert count_parameters(model) == total
    assert count_parameters(model, trainable=True) == trainable


@pytest.mark.parametrize("num_layers", [10, 18, 34, 50])
def test_every_unit_or_every_block_has_a_projection(num_layers):
    def convolutions(**options):
        layers = Architecture(num_layers, 2, **options).layers()
        return sum(layer.kind == "conv" for layer in layers) - 2

    units = {10: 4, 18: 8, 34: 16, 50: 16}[num_layers]
    assert convolutions() == num_layers - 1 + 4
    assert convolutions(all_projections=True) == num_layers - 1 + units


def test_grid_of_the_recipe_is_34_by_60():
    layers = Architecture(18, 2).layers()
    assert (
        sizes(layers, 544, 960)["output_bbox"] == sizes(layers, 544, 960)["output_cov"] == (34, 60)
    )


def test_pooling_variant_pools_after_the_stem_and_before_the_heads():
    model = DetectNetV2(10, 1, use_pooling=True, input_height=448, input_width=224)
    kinds = {layer.name: layer.kind for layer in model.layers}
    assert kinds["max_pooling2d_1"] == "max_pool"
    assert kinds["average_pooling2d_1"] == "average_pool"
    with torch.inference_mode():
        bbox, cov = model.eval()(torch.rand(1, 3, 448, 224))
    assert bbox.shape[2:] == cov.shape[2:] == (2, 1)
    assert sizes(model.layers, 448, 224)["output_bbox"] == (2, 1)
    assert model.architecture.stride == 224


def test_network_without_batch_norm_runs_and_learns():
    model = DetectNetV2(10, 1, use_batch_norm=False, input_height=32, input_width=32)
    bbox, cov = model(torch.rand(1, 3, 32, 32))
    (bbox.sum() + cov.sum()).backward()
    assert not any("bn" in name for name, _ in model.named_parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_macs_of_a_small_network_by_hand():
    model = DetectNetV2(10, 1, input_height=32, input_width=32)
    stem = 16 * 16 * 64 * 3 * 49
    block = [8 * 8 * 64 * (64 * 9 + 64 * 9 + 64)]
    block.append(4 * 4 * 128 * (64 * 9 + 128 * 9 + 64))
    block.append(2 * 2 * 256 * (128 * 9 + 256 * 9 + 128))
    block.append(2 * 2 * 512 * (256 * 9 + 512 * 9 + 256))
    assert count_macs(model) == stem + sum(block) + 2 * 2 * 5 * 512


def test_initial_kernels_are_glorot_uniform_and_biases_zero():
    torch.manual_seed(0)
    model = DetectNetV2(18, 2)
    kernel = model.block_3a_conv_1.weight.detach()
    limit = (6 / (9 * 128 + 9 * 256)) ** 0.5
    assert kernel.abs().max() <= limit
    assert kernel.abs().max() > 0.99 * limit
    assert kernel.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
    assert not model.block_3a_conv_1.bias.any()
    assert model.bn_conv1.eps == 1e-3
    assert model.bn_conv1.momentum == pytest.approx(0.01)


def test_regularisation_covers_all_convolutions_and_no_batch_norm():
    model = DetectNetV2(18, 2)
    wanted = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if "_bn_" not in name and not name.startswith("bn_")
    }
    assert {id(parameter) for parameter in regularized_parameters(model)} == wanted
    assert len(wanted) == 2 * (1 + 16 + 4 + 2)


def test_freezing_blocks_freezes_convolutions_only():
    model = DetectNetV2(10, 1)
    freeze(model, blocks=[0.0, 2.0])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    layers = ("conv1", "block_2a_conv_1", "block_2a_conv_2", "block_2a_conv_shortcut")
    assert frozen == {f"{layer}.{slot}" for layer in layers for slot in ("weight", "bias")}


def test_frozen_batch_norms_keep_their_averages_and_still_learn():
    model = DetectNetV2(10, 1, input_height=32, input_width=32)
    freeze(model, bn=True)
    model.train()
    before = model.bn_conv1.running_mean.clone()
    bbox, _ = model(torch.rand(2, 3, 32, 32))
    bbox.square().mean().backward()
    assert torch.equal(model.bn_conv1.running_mean, before)
    assert model.bn_conv1.weight.grad.any()
    assert model.training


@pytest.mark.parametrize("options", [{}, {"all_projections": True}, {"widths": {"conv1": 11}}])
def test_folded_network_computes_the_same_without_batch_norms(make_model, options):
    model = make_model(18, 2, input_height=32, input_width=48, class_names=["a", "b"], **options)
    model.bn_conv1.eps = 0.1
    folded = fold_batch_norms(model)
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        for actual, expected in zip(folded(images), model(images), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert not any("bn" in name for name, _ in folded.named_modules())
    assert folded.class_names == ("a", "b")
    assert folded.widths == model.widths


def test_outputs_are_float32_under_autocast():
    model = DetectNetV2(10, 1, input_height=32, input_width=32)
    with torch.autocast("cpu", torch.bfloat16):
        bbox, cov = model(torch.rand(1, 3, 32, 32))
    assert bbox.dtype == cov.dtype == torch.float32


def test_in_place_operations_leave_the_images_alone():
    model = DetectNetV2(10, 1, input_height=32, input_width=32).eval()
    images = torch.rand(1, 3, 32, 32) - 0.5
    kept = images.clone()
    with torch.inference_mode():
        model(images)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 20}, "20 layers"),
        ({"num_classes": 0}, "at least one class"),
        ({"input_height": 540}, "input height is 540"),
        ({"widths": {"block_9z_conv_1": 8}}, "no convolution named block_9z_conv_1"),
        ({"widths": {"conv1": 0}}, "conv1 cannot have 0"),
        ({"widths": {"block_1a_conv_2": 32}}, "widths do not fit at add_1"),
        ({"widths": {"output_cov": 4}}, "no convolution named output_cov"),
        ({"class_names": ["mask"]}, "2 classes but 1 names"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(DetectNetError, match=message) as caught:
        DetectNetV2(**options)
    assert "\n" not in str(caught.value)


def test_unknown_block_cannot_be_frozen():
    with pytest.raises(DetectNetError, match="no block 7"):
        freeze(DetectNetV2(10, 1), blocks=[7])
