"""Instance normalisation by torch's batch normalisation of each sample, which on a CPU is several times faster."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class InstanceNorm(nn.GroupNorm):
    """Each channel of each sample with mean 0 and variance 1, then scaled and shifted: (B, C, *S) -> (B, C, *S).

    It is group normalisation with one group per channel. torch's InstanceNorm computes the same, but on a CPU it turns
    channels-last features into contiguous ones. Training in 3D on a CPU takes `PerSampleNorm`: torch's gradient of
    group normalisation is slow for channels-last features, in bf16 half of a 3D training step (docs/log.md). In 2D
    torch's is kept, because recorded studies were computed with it, and this one rounds differently.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        trains = features.requires_grad and torch.is_grad_enabled()
        if not trains or features.ndim != 5 or features.device.type != "cpu":
            return super().forward(features)
        normalized: Tensor = PerSampleNorm.apply(features, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normalized


class PerSampleNorm(torch.autograd.Function):
    """Batch normalisation of one sample after the other, by the statistics of the sample."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normalized = torch.empty_like(features)
        means = torch.empty(features.shape[:2], dtype=weight.dtype)
        inverse_sds = torch.empty_like(means)
        for index, sample in enumerate(torch.split(features, 1)):
            written = (normalized[index : index + 1], means[index], inverse_sds[index])
            torch.native_batch_norm(sample, weight, bias, None, None, True, 0.0, eps, out=written)
        ctx.save_for_backward(features, weight, means, inverse_sds)
        ctx.eps = eps
        return normalized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, weight, means, inverse_sds = ctx.saved_tensors
        to_features = torch.empty_like(features)
        to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for index, sample in enumerate(torch.split(features, 1)):
            to_features[index : index + 1], of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient[index : index + 1], sample, weight, None, None,
                means[index], inverse_sds[index], True, ctx.eps, [True, True, True],
            )  # fmt: skip
            to_weight += of_weight
            to_bias += of_bias
        return to_features, to_weight, to_bias, None
