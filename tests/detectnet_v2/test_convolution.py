"""The convolution whose weight gradient is a sum of matrix products, against PyTorch's own."""

import pytest
import torch
from detectnet_v2.convolution import Convolution, choose_gradients, weight_gradient
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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(12, 18), (17, 30), (9, 7)])
def test_gradients_equal_pytorch(stride, size):
    module = Convolution(48, 64, 3, stride, 1).to(memory_format=torch.channels_last)
    images = images_of(3, 48, *size)
    for own, expected in zip(
        gradients(module, images, True), gradients(module, images, False), strict=True
    ):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-3)


def test_products_are_what_runs(monkeypatch):
    calls = []

    def spy(*arguments):
        calls.append(arguments[2])
        return weight_gradient(*arguments)

    monkeypatch.setattr("detectnet_v2.convolution.weight_gradient", spy)
    module = Convolution(64, 64, 3, 1, 1).to(memory_format=torch.channels_last)
    gradients(module, images_of(1, 64, 8, 8), True)
    assert calls == [1]
    gradients(module, images_of(1, 64, 8, 8), False)
    with torch.no_grad():
        module(images_of(1, 64, 8, 8))
    narrow = Convolution(16, 64, 3, 1, 1).to(memory_format=torch.channels_last)
    gradients(narrow, images_of(1, 16, 8, 8), True)
    assert calls == [1]


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
