"""The convolution that trains by matrix products, against PyTorch's own."""

import pytest
import torch
from detectnet_v2 import winograd
from detectnet_v2.convolution import Convolution, choose_gradients
from detectnet_v2.model import DetectNetV2


def images_of(*shape: int) -> torch.Tensor:
    """Random values in channels_last memory."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*shape, generator=generator)
    return values.to(memory_format=torch.channels_last)


def gradients(module: Convolution, images: torch.Tensor, by_products: bool) -> list[torch.Tensor]:
    """Output and gradients of input, kernel and bias for a fixed gradient of the output."""
    module.by_products = by_products
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    output = module(images)
    module.zero_grad()
    output.backward(images_of(*output.shape))
    return [output.detach(), images.grad, module.weight.grad.clone(), module.bias.grad.clone()]


@pytest.mark.parametrize(
    ("inputs", "outputs", "stride"), [(48, 64, 1), (48, 64, 2), (256, 512, 1), (512, 256, 2)]
)
@pytest.mark.parametrize("size", [(12, 18), (17, 30), (9, 7)])
def test_gradients_equal_pytorch(inputs, outputs, stride, size):
    module = Convolution(inputs, outputs, 3, stride, 1).to(memory_format=torch.channels_last)
    images = images_of(3, inputs, *size)
    for own, expected in zip(
        gradients(module, images, True), gradients(module, images, False), strict=True
    ):
        scale = expected.abs().max().item()
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5 * scale)
        if own.dim() == 4 and own.shape[2:] != (3, 3):
            assert own.is_contiguous(memory_format=torch.channels_last)


def test_winograd_by_hand():
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, 1, 2] = 1.0
    kernel = torch.arange(9.0).reshape(1, 1, 3, 3)
    output = winograd.convolve(images.to(memory_format=torch.channels_last), kernel)
    expected = torch.zeros(4, 4)
    expected[0:3, 1:4] = kernel[0, 0].flip(0, 1)
    torch.testing.assert_close(output[0, 0], expected)


def test_products_are_what_runs(monkeypatch):
    calls = []
    for name in ("convolve", "weight_gradient"):
        original = getattr(winograd, name)
        monkeypatch.setattr(
            winograd, name, lambda *args, f=original, n=name: calls.append(n) or f(*args)
        )
    module = Convolution(64, 64, 3, 1, 1).to(memory_format=torch.channels_last)
    gradients(module, images_of(1, 64, 8, 8), True)
    assert calls == ["weight_gradient"]
    wide = Convolution(512, 256, 3, 1, 1).to(memory_format=torch.channels_last)
    gradients(wide, images_of(1, 512, 4, 4), True)
    assert sorted(calls) == ["convolve", "convolve", "weight_gradient", "weight_gradient"]
    calls.clear()
    gradients(wide, images_of(1, 512, 4, 4), False)
    wide.by_products = True
    with torch.no_grad():
        wide(images_of(1, 512, 4, 4))
    narrow = Convolution(16, 64, 3, 1, 1).to(memory_format=torch.channels_last)
    gradients(narrow, images_of(1, 16, 8, 8), True)
    assert calls == []


def test_a_compiled_network_leaves_convolutions_to_the_compiler(monkeypatch):
    monkeypatch.setattr(winograd, "weight_gradient", None)
    module = Convolution(64, 64, 3, 1, 1).to(memory_format=torch.channels_last)
    module.by_products = True
    torch.compile(module, backend="eager")(images_of(1, 64, 8, 8)).sum().backward()
    assert module.weight.grad is not None


def test_network_learns_the_same():
    torch.manual_seed(0)
    model = DetectNetV2(10, 2, input_height=48, input_width=64).train()
    model = model.to(memory_format=torch.channels_last)
    images = images_of(2, 3, 48, 64)
    found = []
    for by_products in (True, False):
        for module in model.modules():
            if isinstance(module, Convolution):
                module.by_products = by_products
        model.zero_grad()
        bbox, coverage = model(images)
        (bbox.square().mean() + coverage.mean()).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, expected in found[1].items():
        # A bias before a batch norm has no gradient but rounding noise.
        if name.startswith("output") or not name.endswith("bias") or "_bn" in name:
            scale = expected.abs().max().item()
            torch.testing.assert_close(found[0][name], expected, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize(
    ("capability", "threads", "device", "chosen"),
    [
        ("AVX2", 2, "cpu", True),
        ("AVX2", 32, "cpu", False),
        ("AVX512", 2, "cpu", False),
        ("AVX2", 2, "cuda", False),
    ],
)
def test_choice_follows_from_the_machine(monkeypatch, capability, threads, device, chosen):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = DetectNetV2(10, 2, input_height=48, input_width=64)
    choose_gradients(model, torch.device(device))
    assert model.get_submodule("conv1").by_products is chosen
