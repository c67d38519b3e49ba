"""Deep supervision: the loss of the logits of several resolutions, each against the mask at its resolution."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dlx.data.cases import IGNORED


class DeepSupervision(nn.Module):
    """The weighted mean of a loss over resolutions: weights 1, 1/2, 1/4 ..., divided by their sum, as in nnU-Net.

    The logits are given from the full size (B, K, *S) down; those of level i have sizes ceil(S / 2^i) (Lee et al. 2015;
    Isensee et al. 2021, whose own trainer gives the coarsest level of the decoder no weight). A level at whose
    resolution all voxels of the batch are ignored is left out, also of the sum of weights.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.has_ignored = bool(getattr(loss, "has_ignored", False))
        self.is_mean_of_parts = bool(getattr(loss, "is_mean_of_parts", False))

    def forward(self, logits: Sequence[Tensor], mask: Int64[Tensor, "B *S"]) -> Float[Tensor, ""]:
        masks = [coarse_mask(mask, 2**level) for level in range(len(logits))]
        if self.has_ignored:
            return self._of_labelled_levels(logits, masks)
        total = sum(0.5**level for level in range(len(logits)))
        losses = [self.loss(coarse, masks[level]) * (0.5**level / total) for level, coarse in enumerate(logits)]
        return torch.stack(losses).sum()

    def _of_labelled_levels(self, logits: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        losses = torch.stack([self.loss(coarse, mask) for coarse, mask in zip(logits, masks, strict=True)])
        weights = torch.stack([(mask != IGNORED).any() * 0.5**level for level, mask in enumerate(masks)])
        return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


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
