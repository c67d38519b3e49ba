"""Nearest x2 upsampling and a 3x3 convolution as one 2x2 convolution of the small map, in 2D and 3D.

Each pixel of the upsampled map repeats one of the small map, so of the nine products a 3x3 kernel forms there, those
that fall on the same small pixel share it: rows (w0, w1 + w2) for even output rows, (w0 + w1, w2) for odd ones, columns
likewise. One convolution of 2x2 kernels with four times the channels gives the four parities of the output; they are
then interleaved. Equal up to rounding, 16/36 of the multiplications (in 3D 64/216), and the upsampled map is never
written.
"""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from torch import Tensor

from dlx.models.layers.conv3d import convolution_backward, weight_gradient

MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def upsample_conv(
    features: Float[Tensor, "B I *S"], weight: Float[Tensor, "O I *three"], bias: Float[Tensor, " O"]
) -> Float[Tensor, "B O *T"]:
    """`conv(upsample(features), weight, bias, padding=1)`, channels last; the sizes T are twice S."""
    if torch.is_autocast_enabled(features.device.type):
        dtype = torch.get_autocast_dtype(features.device.type)
        features, weight, bias = features.to(dtype), weight.to(dtype), bias.to(dtype)
    result: Tensor = UpsampleConv.apply(features, weight, bias)  # type: ignore[no-untyped-call]
    return result


class UpsampleConv(torch.autograd.Function):
    """The function and its gradients; slicing with autograd's own would write a map of zeros for each parity."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        num_out, sizes = weight.shape[0], features.shape[2:]
        dims = len(sizes)
        for axis in range(dims):
            weight = fold_taps(weight, 2 + 2 * axis)
        kernels = weight.flatten(0, dims)  # (parities of the last axis first, O), I, 2, 2(, 2)
        kernels = kernels.contiguous(memory_format=MEMORY_FORMATS[dims])
        convolve = F.conv2d if dims == 2 else F.conv3d
        parities = convolve(features, kernels, bias.repeat(2**dims), padding=1).movedim(1, -1)  # B, S + 1, 2^dims O
        size = (len(features), num_out, *(2 * size for size in sizes))
        upsampled = torch.empty(size, dtype=parities.dtype, device=parities.device, memory_format=MEMORY_FORMATS[dims])
        for part, out in parts(num_out, tuple(sizes)):
            upsampled.movedim(1, -1)[out] = parities[part]
        ctx.save_for_backward(features, kernels)
        return upsampled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, kernels = ctx.saved_tensors
        sizes = features.shape[2:]
        dims = len(sizes)
        num_out = kernels.shape[0] // 2**dims
        upsampled = gradient.movedim(1, -1)
        parities = upsampled.new_zeros(len(features), *(size + 1 for size in sizes), 2**dims * num_out)
        for part, out in parts(num_out, tuple(sizes)):
            parities[part] = upsampled[out]
        to_features, to_kernels, to_bias = gradients_of_convolution(parities.movedim(-1, 1), features, kernels)
        to_weight = to_kernels.view(*[2] * dims, num_out, *to_kernels.shape[1:])
        for axis in reversed(range(dims)):
            to_weight = unfold_taps(to_weight, 2 + 2 * axis)
        return to_features, to_weight, to_bias.view(2**dims, num_out).sum(0)


def parts(num_out: int, sizes: tuple[int, ...]) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Where each parity lies in the convolved map (B, S + 1, 2^dims O) and in the upsampled one (B, 2 S, O)."""
    found = []
    for index, parities in enumerate(product((0, 1), repeat=len(sizes))):
        each = tuple(reversed(parities))  # the last axis was folded last, so its parity comes first
        windows = (slice(parity, parity + size) for parity, size in zip(each, sizes, strict=True))
        part = (slice(None), *windows, slice(index * num_out, (index + 1) * num_out))
        found.append((part, (slice(None), *(slice(parity, None, 2) for parity in each))))
    return found


def gradients_of_convolution(gradient: Tensor, features: Tensor, kernels: Tensor) -> list[Tensor]:
    """Of features, kernels and bias of the 2x2 convolution with padding 1."""
    ones = [1] * (features.ndim - 2)
    is_wrong_in_onednn = features.ndim == 5 and features.dtype == torch.bfloat16 and features.device.type == "cpu"
    if not is_wrong_in_onednn:
        return convolution_backward(gradient, features, kernels, ones, ones, [True, True, True])
    to_features = convolution_backward(gradient, features, kernels, ones, ones, [True, False, False])
    return [*to_features, *weight_gradient(features, gradient, kernels, ones, ones)]


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
