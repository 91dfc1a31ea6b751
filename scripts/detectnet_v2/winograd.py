"""3x3 convolutions and their weight gradients with Winograd's minimal filtering F(2x2, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308): each tile of
2x2 outputs takes 16 multiplications a channel pair instead of 36. With tiles d of 4x4 inputs, a
kernel g and output gradients y:

    output   = A' [ (G g G') * (B' d B) ] A          summed over input channels
    gradient = G' [ (A y A') * (B' d B) ] G          summed over tiles

where ' transposes, * multiplies element by element, and

    B' = 1  0 -1  0     G = 1    0    0      A = 1  0
         0  1  1  0         1/2  1/2  1/2        1  1
         0 -1  1  0         1/2 -1/2  1/2        1 -1
         0  1  0 -1         0    0    1          0 -1

The sums are one matrix product for each of the 16 elements. All images are (N, C, H, W) in
channels_last memory; the stride is 1 and the padding 1 pixel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve (N, I, H, W) with (O, I, 3, 3), without a bias; returns (N, O, H, W)."""
    outputs, inputs = kernel.shape[:2]
    transform = _G.to(kernel)
    elements = torch.einsum("ay,bx,oiyx->abio", transform, transform, kernel)
    products = torch.bmm(_inputs(images), elements.reshape(16, inputs, outputs))
    return _outputs(products, len(images), *images.shape[2:])


def weight_gradient(images: Tensor, gradient: Tensor) -> Tensor:
    """Gradient (O, I, 3, 3) of the kernel, from the input (N, I, H, W) and that of the output."""
    outputs, inputs = gradient.shape[1], images.shape[1]
    products = torch.bmm(_gradients(gradient).transpose(1, 2), _inputs(images))
    transform = _G.to(gradient)
    elements = products.view(4, 4, outputs, inputs)
    return torch.einsum("ay,bx,aboi->oiyx", transform, transform, elements)


def _tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // 2), -(-width // 2)


def _inputs(images: Tensor) -> Tensor:
    """B' d B of all tiles: (16, tiles, channels)."""
    count, channels, height, width = images.shape
    rows, columns = _tiles(height, width)
    frame = (0, 0, 1, 2 * columns + 1 - width, 1, 2 * rows + 1 - height)
    pixels = F.pad(images.permute(0, 2, 3, 1), frame)
    half = images.new_empty(4, count, rows, 2 * columns + 2, channels)
    _combine_inputs([pixels[:, k : k + 2 * rows - 1 : 2] for k in range(4)], half)
    result = images.new_empty(4, 4, count, rows, columns, channels)
    for row in range(4):
        part = half[row]
        lines = [part[:, :, k : k + 2 * columns - 1 : 2] for k in range(4)]
        _combine_inputs(lines, result[row])
    return result.view(16, -1, channels)


def _combine_inputs(lines: Sequence[Tensor], out: Tensor) -> None:
    """B' times four lines."""
    torch.sub(lines[0], lines[2], out=out[0])
    torch.add(lines[1], lines[2], out=out[1])
    torch.sub(lines[2], lines[1], out=out[2])
    torch.sub(lines[1], lines[3], out=out[3])


def _outputs(products: Tensor, count: int, height: int, width: int) -> Tensor:
    """A' m A of all tiles, as an image (N, C, height, width)."""
    rows, columns = _tiles(height, width)
    channels = products.shape[-1]
    elements = products.view(4, 4, count, rows, columns, channels)
    result = products.new_empty(count, rows, 2, columns, 2, channels)
    upper, lower = elements[1] + elements[2], elements[1] - elements[2]
    upper += elements[0]
    lower -= elements[3]
    for row, line in enumerate((upper, lower)):
        left, right = result[:, :, row, :, 0], result[:, :, row, :, 1]
        torch.add(line[1], line[2], out=left)
        left += line[0]
        torch.sub(line[1], line[2], out=right)
        right -= line[3]
    image = result.view(count, 2 * rows, 2 * columns, channels)[:, :height, :width]
    return image.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _gradients(gradient: Tensor) -> Tensor:
    """A y A' of all tiles: (16, tiles, channels)."""
    count, channels, height, width = gradient.shape
    rows, columns = _tiles(height, width)
    pixels = gradient.permute(0, 2, 3, 1)
    if (height, width) != (2 * rows, 2 * columns):
        pixels = F.pad(pixels, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
    tiles = pixels.reshape(count, rows, 2, columns, 2, channels)
    half = gradient.new_empty(4, count, rows, columns, 2, channels)
    _combine_gradients(tiles[:, :, 0], tiles[:, :, 1], half)
    result = gradient.new_empty(4, 4, count, rows, columns, channels)
    for row in range(4):
        _combine_gradients(half[row, :, :, :, 0], half[row, :, :, :, 1], result[row])
    return result.view(16, -1, channels)


def _combine_gradients(first: Tensor, second: Tensor, out: Tensor) -> None:
    """A times two lines."""
    out[0] = first
    torch.add(first, second, out=out[1])
    torch.sub(first, second, out=out[2])
    torch.neg(second, out=out[3])
