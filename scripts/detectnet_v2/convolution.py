"""A convolution that trains faster than oneDNN's where the processor has no AVX-512.

There, oneDNN computes the weight gradient of a 3x3 convolution in channels_last memory at a quarter
to a half of the speed of the forward pass, and knows no Winograd. Matrix products run at full
speed: Winograd's for a stride of 1, else one product for each kernel position, of all pixels'
output gradients with the inputs below that position. Without gradients all stays with oneDNN.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detectnet_v2 import winograd

# Measured on Zen 3. With fewer channels the products are too small for what surrounds them.
_LEAST_FOR_WEIGHTS = 48
_LEAST_FOR_IMAGES = 256
_LEAST_SUM_FOR_IMAGES = 768
# A narrow product does not keep more threads busy.
_MOST_THREADS = 4


class Convolution(nn.Conv2d):
    """`nn.Conv2d`; `by_products` says whether it trains by matrix products where they fit."""

    by_products = False

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.by_products and self._fits(input):
            return _ConvolutionByProducts.apply(input, weight, bias, self.stride[0])
        return super()._conv_forward(input, weight, bias)

    def _fits(self, images: Tensor) -> bool:
        return (
            torch.is_grad_enabled()
            # The compiler takes minutes for so many small operations.
            and not torch.compiler.is_compiling()
            and self.weight.requires_grad
            and not torch.is_autocast_enabled(images.device.type)
            and images.is_contiguous(memory_format=torch.channels_last)
            and self.kernel_size == (3, 3)
            and self.padding == (1, 1)
            and self.stride[0] == self.stride[1]
            and min(self.in_channels, self.out_channels) >= _LEAST_FOR_WEIGHTS
        )


def choose_gradients(model: nn.Module, device: torch.device) -> None:
    """Let every `Convolution` of a model that trains on `device` work in the faster way.

    The choice follows from the processor and the number of threads, not from a measurement, so that
    a training repeats and resumes.
    """
    chosen = (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and torch.get_num_threads() <= _MOST_THREADS
    )
    for module in model.modules():
        if isinstance(module, Convolution):
            module.by_products = chosen


def strided_weight_gradient(images: Tensor, gradient: Tensor, stride: int) -> Tensor:
    """Gradient of a 3x3 kernel with a padding of one pixel.

    Args:
        images: the convolution's input (N, I, H, W), in channels_last memory.
        gradient: of its output (N, O, h, w), in channels_last memory.
        stride: of the convolution, in both directions.

    Returns:
        (O, I, 3, 3), a view of contiguous memory of the order 3, 3, O, I.
    """
    pixels = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    inputs, outputs = images.shape[1], gradient.shape[1]
    result = images.new_empty(3, 3, outputs, inputs)
    left = gradient.permute(0, 2, 3, 1).reshape(-1, outputs).t()
    height, width = (stride * (extent - 1) + 1 for extent in gradient.shape[2:])
    for y in range(3):
        for x in range(3):
            below = pixels[:, y : y + height : stride, x : x + width : stride]
            torch.mm(left, below.reshape(-1, inputs), out=result[y, x])
    return result.permute(2, 3, 0, 1)


class _ConvolutionByProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        if not _is_wide(weight, stride):
            return F.conv2d(images, weight, bias, stride, padding=1)
        output = winograd.convolve(images, weight)
        return output if bias is None else output.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_images = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_images = _image_gradient(images, weight, gradient, ctx.stride)
        if ctx.needs_input_grad[1]:
            if ctx.stride == 1:
                for_weight = winograd.weight_gradient(images, gradient)
            else:
                for_weight = strided_weight_gradient(images, gradient, ctx.stride)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3))
        return for_images, for_weight, for_bias, None


def _is_wide(weight: Tensor, stride: int) -> bool:
    """Whether Winograd pays for the convolution itself."""
    channels = weight.shape[:2]
    return (
        stride == 1
        and min(channels) >= _LEAST_FOR_IMAGES
        and sum(channels) >= _LEAST_SUM_FOR_IMAGES
    )


def _image_gradient(images: Tensor, weight: Tensor, gradient: Tensor, stride: int) -> Tensor:
    if _is_wide(weight, stride):
        return winograd.convolve(gradient, weight.transpose(0, 1).flip(2, 3))
    return torch.ops.aten.convolution_backward(
        *(gradient, images, weight, None, [stride] * 2, [1, 1], [1, 1]),
        *(False, [0, 0], 1, [True, False, False]),
    )[0]
