"""Nearest x2 upsampling and a 3x3 convolution as one 2x2 convolution of the small map, for 2D feature maps.

Each pixel of the upsampled map repeats one of the small map, so of the nine products a 3x3 kernel forms there, those
that fall on the same small pixel share it: rows (w0, w1 + w2) for even output rows, (w0 + w1, w2) for odd ones, columns
likewise. One convolution of 2x2 kernels with four times the channels gives the four parities of the output; they are
then interleaved. Equal up to rounding, 16/36 of the multiplications, and the upsampled map is never written.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from torch import Tensor

PARITIES = [(column, row) for column in (0, 1) for row in (0, 1)]


def upsample_conv(
    features: Float[Tensor, "B I h w"], weight: Float[Tensor, "O I 3 3"], bias: Float[Tensor, " O"]
) -> Float[Tensor, "B O H W"]:
    """`conv2d(upsample(features), weight, bias, padding=1)`, channels last, with H = 2 h and W = 2 w."""
    if torch.is_autocast_enabled(features.device.type):
        dtype = torch.get_autocast_dtype(features.device.type)
        features, weight, bias = features.to(dtype), weight.to(dtype), bias.to(dtype)
    result: Tensor = UpsampleConv.apply(features, weight, bias)  # type: ignore[no-untyped-call]
    return result


class UpsampleConv(torch.autograd.Function):
    """The function and its gradients; slicing with autograd's own would write a map of zeros for each parity."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        num_out, (height, width) = weight.shape[0], features.shape[2:]
        kernels = fold_taps(fold_taps(weight, 2), 4).flatten(0, 2)  # (column parity, row parity, O), I, 2, 2
        kernels = kernels.contiguous(memory_format=torch.channels_last)
        parities = F.conv2d(features, kernels, bias.repeat(4), padding=1).permute(0, 2, 3, 1)  # B, h + 1, w + 1, 4 O
        size = (features.shape[0], num_out, 2 * height, 2 * width)
        upsampled = torch.empty(size, dtype=parities.dtype, device=parities.device, memory_format=torch.channels_last)
        for index, (column, row) in enumerate(PARITIES):
            channels = slice(index * num_out, (index + 1) * num_out)
            part = parities[:, row : row + height, column : column + width, channels]
            upsampled.permute(0, 2, 3, 1)[:, row::2, column::2] = part
        ctx.save_for_backward(features, kernels)
        return upsampled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, kernels = ctx.saved_tensors
        num_out, (height, width) = kernels.shape[0] // 4, features.shape[2:]
        upsampled = gradient.permute(0, 2, 3, 1)
        parities = upsampled.new_zeros(features.shape[0], height + 1, width + 1, 4 * num_out)
        for index, (column, row) in enumerate(PARITIES):
            channels = slice(index * num_out, (index + 1) * num_out)
            parities[:, row : row + height, column : column + width, channels] = upsampled[:, row::2, column::2]
        to_features, to_kernels, to_bias = torch.ops.aten.convolution_backward(
            parities.permute(0, 3, 1, 2), features, kernels, [4 * num_out],
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True],
        )  # fmt: skip
        to_weight = unfold_taps(unfold_taps(to_kernels.unflatten(0, (2, 2, num_out)), 4), 2)
        return to_features, to_weight, to_bias.view(4, num_out).sum(0)


def fold_taps(kernel: Tensor, axis: int) -> Tensor:
    """Three taps along an axis as two for each parity; the parity becomes a new first axis."""
    first, middle, last = kernel.unbind(axis)
    even = torch.stack([first, middle + last], axis)
    odd = torch.stack([first + middle, last], axis)
    return torch.stack([even, odd])


def unfold_taps(gradient: Tensor, axis: int) -> Tensor:
    """The gradient of the three taps from those of `fold_taps`: its transpose. `axis` counts without the parity."""
    even, odd = gradient
    (even_0, even_1), (odd_0, odd_1) = even.unbind(axis), odd.unbind(axis)
    return torch.stack([even_0 + odd_0, even_1 + odd_0, even_1 + odd_1], axis)
