"""3D convolutions in bf16 on a CPU that avoid the bf16 kernels of oneDNN that are wrong (docs/log.md; torch 2.13.0).

- The kernel for the gradient of the weights is off by 90 % or infinite for volumes two voxels deep, and with a stride
  of 2 it writes beyond its buffers. Here that gradient is a sum over 2D convolutions, one for each tap of the first
  axis: the 2D kernel is right, and takes about as long.
- The forward kernel is wrong for one channel that is one voxel deep. Such small volumes are convolved in float32.
- On processors with AMX, kernels of two voxels with a stride of 2 are wrong: forward where the output is one voxel wide
  (pytorch/pytorch#169688), and both gradients for some shapes. Kernels of other sizes than one or three are
  computed in float32 everywhere, and the transposed convolution there.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dlx.models.layers.processor import has_amx

MIN_DEPTH = 3  # of features in bf16: the known faults are at depths of one and two, and such volumes cost little


class Conv3d(nn.Conv3d):
    """torch's Conv3d with correct results and gradients under bf16 autocast on a CPU.

    With kernels of other sizes than one or three, groups, dilation, or a padding other than a number of zeros it
    computes in float32 there.
    """

    def forward(self, features: Float[Tensor, "B I D H W"]) -> Float[Tensor, "B O E P Q"]:
        if features.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(features)
        if torch.get_autocast_dtype("cpu") != torch.bfloat16 or self.kernel_size == (1, 1, 1):
            return super().forward(features)
        depth, _, width = features.shape[2:]
        has_size_3, has_zeros = self.kernel_size == (3, 3, 3), self.padding_mode == "zeros"
        is_plain = has_size_3 and has_zeros and self.groups == 1 and set(self.dilation) == {1}
        if isinstance(self.padding, str) or not is_plain or depth < MIN_DEPTH or width <= self.stride[2]:
            with torch.autocast("cpu", enabled=False):
                return super().forward(features.float()).bfloat16()
        bias = None if self.bias is None else self.bias.bfloat16()
        convolved: Tensor = Bf16Conv3d.apply(  # type: ignore[no-untyped-call]
            features.bfloat16(), self.weight.bfloat16(), bias, self.stride, self.padding
        )
        return convolved


class ConvTranspose3d(nn.ConvTranspose3d):
    """torch's ConvTranspose3d, in float32 under bf16 autocast on a CPU with AMX."""

    def forward(self, features: Float[Tensor, "B I D H W"], output_size: list[int] | None = None) -> Tensor:
        if features.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not has_amx():
            return super().forward(features, output_size)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.float(), output_size).to(torch.get_autocast_dtype("cpu"))


class Bf16Conv3d(torch.autograd.Function):
    """`conv3d` with the gradient of the weights by 2D convolutions."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv3d(features, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None]:
        features, weight = ctx.saved_tensors
        to_features = None
        if ctx.needs_input_grad[0]:
            wanted = [True, False, False]
            (to_features,) = convolution_backward(gradient, features, weight, ctx.stride, ctx.padding, wanted)
        to_weight, to_bias = weight_gradient(features, gradient, weight, ctx.stride, ctx.padding)
        return to_features, to_weight, to_bias if ctx.needs_input_grad[2] else None, None, None


def weight_gradient(
    features: Float[Tensor, "B I D H W"],
    gradient: Float[Tensor, "B O E P Q"],
    weight: Float[Tensor, "O I d h w"],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[Float[Tensor, "O I d h w"], Float[Tensor, " O"]]:
    """The gradients of weight and bias of a 3D convolution, in `weight`'s type, summed in float32 over 2D convolutions.

    Tap k of the first axis multiplies output slice e with input slice e * stride + k - padding, where there is one:
    for each sample these slices are the batch of one 2D convolution. The first tap that meets all output slices gives
    the gradient of the bias too, which costs less than a sum of its own.
    """
    features, gradient = features.transpose(1, 2), gradient.transpose(1, 2)  # (B, slices, channels, rows, columns)
    depth, num_slices, step = features.shape[1], gradient.shape[1], stride[0]
    to_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    to_bias: Tensor | None = None
    kernels = weight[:, :, 0].contiguous(memory_format=torch.channels_last)  # of which only the shape matters
    for tap in range(weight.shape[2]):
        offset = tap - padding[0]
        first = max(0, -(offset // step))  # the first output slice with an input slice
        last = min(num_slices, (depth - 1 - offset) // step + 1)
        if first >= last:
            continue
        begin, end = first * step + offset, (last - 1) * step + offset + 1
        has_all = to_bias is None and (first, last) == (0, num_slices)
        found = [
            convolution_backward(
                gradient[sample, first:last], features[sample, begin:end:step], kernels, stride[1:], padding[1:],
                [False, True, has_all],
            )
            for sample in range(len(features))
        ]  # fmt: skip
        to_weight[:, :, tap] = sum(of_sample[0].to(torch.float32) for of_sample in found)
        if has_all:
            to_bias = torch.stack([of_sample[1].to(torch.float32) for of_sample in found]).sum(0)
    if to_bias is None:
        to_bias = gradient.sum((0, 1, 3, 4), dtype=torch.float32)
    return to_weight.to(weight.dtype), to_bias.to(weight.dtype)


def convolution_backward(
    gradient: Tensor,
    features: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    wanted: list[bool],
) -> list[Tensor]:
    """torch's gradients of a convolution without dilation and groups: those `wanted` of features, weight and bias."""
    dims = len(stride)
    gradients = torch.ops.aten.convolution_backward(
        gradient, features, weight, [weight.shape[0]], list(stride), list(padding),
        [1] * dims, False, [0] * dims, 1, wanted,
    )  # fmt: skip
    return [found for found, is_wanted in zip(gradients, wanted, strict=True) if is_wanted]
