"""Deep supervision: the loss of the logits of several resolutions, each against the mask at its resolution."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class DeepSupervision(nn.Module):
    """The weighted mean of a loss over resolutions: weights 1, 1/2, 1/4 ..., divided by their sum, as in nnU-Net.

    The logits are given from the full size (B, K, *S) down; those of level i have sizes ceil(S / 2^i) (Lee et al. 2015;
    Isensee et al. 2021, whose own trainer gives the coarsest level of the decoder no weight).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Sequence[Tensor], mask: Int64[Tensor, "B *S"]) -> Float[Tensor, ""]:
        total = sum(0.5**level for level in range(len(logits)))
        losses = [
            self.loss(coarse, coarse_mask(mask, 2**level)) * (0.5**level / total) for level, coarse in enumerate(logits)
        ]
        return torch.stack(losses).sum()


def coarse_mask(mask: Int64[Tensor, "B *S"], factor: int) -> Int64[Tensor, "B *T"]:
    """The mask at a `factor`-th of each size, rounded up: each coarse voxel has the class at its centre.

    The same as torch's interpolation `nearest-exact` where `factor` divides the sizes; a coarse voxel whose centre is
    beyond the end has the last class before it.
    """
    if factor == 1:
        return mask
    for axis, size in enumerate(mask.shape[1:], start=1):
        centres = torch.arange(-(-size // factor), device=mask.device) * factor + factor // 2
        mask = mask.index_select(axis, centres.clamp(max=size - 1))
    return mask
