"""torchvision's ResNets: a converted backbone computes what the original one computes."""

import pytest
import torch
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import load_pretrained
from torch.nn import functional as F

SIZE = {"input_height": 48, "input_width": 64}
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def torchvision_state(units=(1, 1, 1, 1)):
    """A state_dict with torchvision's names and shapes, BasicBlock, random values."""
    generator = torch.Generator().manual_seed(3)
    state = {}

    def conv(name, outputs, inputs, kernel):
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        shape = (outputs, inputs, kernel, kernel)
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * scale

    def norm(name, width):
        # Small variances too: there the difference of the epsilons shows.
        variance = 10 ** (torch.rand(width, generator=generator) * 3 - 3)
        state[f"{name}.running_var"] = variance
        state[f"{name}.weight"] = (torch.rand(width, generator=generator) + 0.5) * variance.sqrt()
        state[f"{name}.bias"] = torch.rand(width, generator=generator) - 0.5
        state[f"{name}.running_mean"] = torch.rand(width, generator=generator) - 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for block, count in enumerate(units, start=1):
        width = 32 * 2**block
        for unit in range(count):
            name = f"layer{block}.{unit}"
            conv(f"{name}.conv1", width, inputs, 3)
            norm(f"{name}.bn1", width)
            conv(f"{name}.conv2", width, width, 3)
            norm(f"{name}.bn2", width)
            if inputs != width:
                conv(f"{name}.downsample.0", width, inputs, 1)
                norm(f"{name}.downsample.1", width)
            inputs = width
    conv("fc", 10, inputs, 1)
    state["fc.weight"] = state["fc.weight"].flatten(1)
    state["fc.bias"] = torch.zeros(10)
    return state


def torchvision_features(state, images, units=(1, 1, 1, 1)):
    """torchvision's own arithmetic, with this network's strides and without its pooling.

    The border around the image is black, as this network pads it: torchvision pads with the mean.
    """

    def conv_bn(x, conv, norm, stride, padding):
        x = F.conv2d(x, state[f"{conv}.weight"], None, stride, padding)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-5)

    x = (F.pad(images, (3, 3, 3, 3)) - MEAN) / DEVIATION
    x = conv_bn(x, "conv1", "bn1", 2, 0).relu()
    for block, (count, block_stride) in enumerate(zip(units, (2, 2, 2, 1), strict=True), start=1):
        for unit in range(count):
            name = f"layer{block}.{unit}"
            stride = block_stride if unit == 0 else 1
            y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride, 1).relu()
            y = conv_bn(y, f"{name}.conv2", f"{name}.bn2", 1, 1)
            if f"{name}.downsample.0.weight" in state:
                x = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride, 0)
            else:
                x = x[:, :, ::stride, ::stride]
            x = (x + y).relu()
    return x


@pytest.mark.parametrize(
    ("units", "options"),
    [
        ((1, 1, 1, 1), {"num_layers": 10}),
        ((2, 2, 2, 2), {"num_layers": 18}),
        ((2, 2, 2, 2), {"num_layers": 18, "all_projections": True}),
    ],
)
def test_converted_backbone_computes_the_same_features(tmp_path, units, options):
    state = torchvision_state(units)
    path = tmp_path / "resnet.pth"
    torch.save(state, path)
    model = DetectNetV2(num_classes=2, **options, **SIZE).eval()
    report = load_pretrained(model, path)
    assert not report.absent and not report.mismatched and not report.unused
    images = torch.rand(2, 3, 48, 64)
    with torch.inference_mode():
        features = model.features(images)
        expected = torchvision_features(state, images, units)
    assert expected.abs().max() > 1
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)


def test_added_projection_stays_near_the_identity_in_training(tmp_path):
    state = torchvision_state()
    torch.save(state, tmp_path / "resnet.pth")
    model = DetectNetV2(10, 2, input_height=256, input_width=256)
    load_pretrained(model, tmp_path / "resnet.pth")
    # Inputs that follow the assumption: Gaussian before the rectifier, as the stem's norm says.
    generator = torch.Generator().manual_seed(1)
    mean, deviation = state["bn1.bias"], state["bn1.weight"]
    noise = torch.randn(4, 64, 64, 64, generator=generator)
    x = (noise * deviation[:, None, None] + mean[:, None, None]).relu()
    model.train()
    with torch.no_grad():
        y = model.block_1a_bn_shortcut(model.block_1a_conv_shortcut(x))
    torch.testing.assert_close(y, x[:, :, ::2, ::2], rtol=0.05, atol=0.05)


def test_old_pickle_format_is_read(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save(torchvision_state(), path, _use_new_zipfile_serialization=False)
    assert len(load_pretrained(DetectNetV2(10, 2, **SIZE), path).matched) == 26


def refused(path, message, **options):
    with pytest.raises(DetectNetError, match=message) as caught:
        load_pretrained(DetectNetV2(10, 2, **options, **SIZE), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_truncated_and_unfitting_files_are_refused(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    refused(path, "not the state_dict of a torchvision ResNet")
    torch.save(torchvision_state(), path)
    refused(path, "use_batch_norm", use_batch_norm=False)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(path.read_bytes()[:10_000])
    refused(cut, "damaged or no plain state_dict")
    state = torchvision_state()
    del state["layer2.0.bn1.running_var"]
    torch.save(state, path)
    refused(path, "lacks 'layer2.0.bn1.running_var'")
