"""Losses of logits against integer masks, which `registry.py` names. The Lovász loss is in `lovasz.py`, metrics are in
`dlx.scoring`.

Every loss takes logits (B, K, *S) of any float type and a mask (B, *S) of classes 0..K-1, in 2D or 3D, and returns one
scalar in float32 (float64 for float64 logits), under autocast too. No loss waits for the device, and none sums with
atomics on CUDA, so that a run can repeat bit for bit.

A loss whose `forward` also takes `valid`, a bool mask (B, *S), can be used with data that have an ignore label: it
leaves out the other voxels, whose class in `mask` is then 0, as if they were not in the batch; their gradient is 0, and
a batch without a valid voxel has the loss 0.

A loss with a method `of_regions(logits, target, valid)` can be used with regions, which may overlap: `logits` and the
bool `target` are (B, R, *S), and the probability of each region is the sigmoid of its logit.

A loss with a true `is_mean_of_parts` has, without `valid`, a value on a batch that is the mean of its values on equal
parts of the batch. Ranks that train together then compute it on their parts; without it they gather the batch.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from dlx.data.cases import IGNORED
from dlx.system.errors import SettingError
from dlx.training.lovasz import full_precision, one_hot

# Above zero: in a batch that holds only a class of weight 0, the weighted mean would divide 0 by 0.
ClassWeights = Annotated[
    list[Annotated[float, Field(gt=0.0)]] | None,
    Field(description="A weight for each class, the background first; by default 1 each."),
]


class CrossEntropy(nn.Module):
    """Cross-entropy, weighted by `class_weights` (above 0). SettingError unless there is one weight per class.

    Mean over voxels of w_y (-log p_y), divided by the mean of w_y, as torch's does.
    """

    def __init__(self, num_classes: int, *, class_weights: ClassWeights = None):
        super().__init__()
        self.register_buffer("weights", _weights(num_classes, class_weights))
        self.weights: Tensor
        self.is_mean_of_parts = class_weights is None or len(set(class_weights)) == 1

    def forward(
        self, logits: Float[Tensor, "B K *S"], mask: Int64[Tensor, "B *S"], valid: Bool[Tensor, "B *S"] | None = None
    ) -> Float[Tensor, ""]:
        log_p = _log_p_of_mask(full_precision(logits), mask)
        weights = self.weights.to(log_p.dtype)[mask]
        if valid is None:
            return -(weights * log_p).sum() / weights.sum()
        weights = weights * valid
        return -(weights * log_p).sum() / weights.sum().clamp_min(torch.finfo(log_p.dtype).tiny)

    def of_regions(
        self, logits: Float[Tensor, "B R *S"], target: Bool[Tensor, "B R *S"], valid: Bool[Tensor, "B *S"] | None = None
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy, the mean over voxels and regions, weighted by those of `class_weights` but the first,
        which is that of the background."""
        logits = full_precision(logits)
        costs = nn.functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
        weights = self.weights[1:].to(logits.dtype).view(1, -1, *[1] * (logits.ndim - 2)).expand_as(costs)
        if valid is not None:
            weights = weights * valid.unsqueeze(1)
        return (weights * costs).sum() / weights.sum().clamp_min(torch.finfo(logits.dtype).tiny)


class SoftDice(nn.Module):
    """Soft Dice loss, in 0..1.

    One minus the mean over classes of (2 sum p g + smooth) / (sum p + sum g + smooth): p are the softmax probabilities,
    g the one-hot mask (Milletari et al. 2016, but p and g are not squared, as in Drozdzal et al. 2016). The default of
    `smooth` only prevents 0 / 0 for a class that occurs nowhere. With `batch` the sums run over the whole batch, so a
    class may be missing from some patches; otherwise over each sample, and the mean also over samples (those that have
    a `valid` voxel).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        include_background: Annotated[bool, Field(description="Count the background as a class.")] = False,
        smooth: Annotated[float, Field(gt=0.0, description="Added to numerator and denominator.")] = 1e-5,
        batch: Annotated[bool, Field(description="Sum over the whole batch instead of over each sample.")] = True,
    ):
        super().__init__()
        if num_classes < 2 and not include_background:
            raise SettingError("loss 'dice': with one class and include_background=false no class is left")
        self.first_class = 0 if include_background else 1
        self.smooth = smooth
        self.batch = batch
        self.is_mean_of_parts = not batch

    def forward(
        self, logits: Float[Tensor, "B K *S"], mask: Int64[Tensor, "B *S"], valid: Bool[Tensor, "B *S"] | None = None
    ) -> Float[Tensor, ""]:
        p = torch.softmax(full_precision(logits), dim=1)
        g = one_hot(mask, p.shape[1]).to(p.dtype)
        if valid is not None:
            p, g = p * valid.unsqueeze(1), g * valid.unsqueeze(1)
        return self._of_classes(p[:, self.first_class :], g[:, self.first_class :], valid)

    def of_regions(
        self, logits: Float[Tensor, "B R *S"], target: Bool[Tensor, "B R *S"], valid: Bool[Tensor, "B *S"] | None = None
    ) -> Float[Tensor, ""]:
        """The mean over regions, of which none is the background; p are the sigmoids of the logits."""
        p = torch.sigmoid(full_precision(logits))
        g = target.to(p.dtype)
        if valid is not None:
            p, g = p * valid.unsqueeze(1), g * valid.unsqueeze(1)
        return self._of_classes(p, g, valid)

    def _of_classes(self, p: Tensor, g: Tensor, valid: Tensor | None) -> Tensor:
        """The loss of (B, K, *S) that are 0 where they are not `valid`."""
        p, g = p.flatten(2), g.flatten(2)
        # Products and sums instead of einsum, which autocast would run in bfloat16.
        summed = (0, 2) if self.batch else (2,)
        overlap, sizes = (p * g).sum(summed), p.sum(summed) + g.sum(summed)
        scores = (2.0 * overlap + self.smooth) / (sizes + self.smooth)
        if self.batch or valid is None:
            return 1.0 - scores.mean()
        is_counted = valid.flatten(1).any(1)  # a sample without a valid voxel would score 1
        return ((1.0 - scores.mean(1)) * is_counted).sum() / is_counted.sum().clamp_min(1)


class Focal(nn.Module):
    """Focal loss, weighted by `class_weights` (above 0). SettingError unless there is one weight per class.

    Plain mean over voxels of -w_y (1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 5, with alpha_t = w_y).

    `double_softmax` applies softmax a second time, to the probabilities: a common mistake. No probability can then
    exceed e / (e + K - 1), so the loss has a lower bound: with 4 classes and gamma 2, 0.205 times the mean weight of
    the voxels. With weights 0.1, 0.4, 0.2, 0.3 and equally frequent classes this is 0.051, the "about 0.05" of the
    notes. (For a mean divided by the weights the bound would be 0.205.)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        gamma: Annotated[
            float, Field(ge=0.0, description="Lowers the weight of voxels that are classified correctly.")
        ] = 2.0,
        class_weights: ClassWeights = None,
        double_softmax: Annotated[
            bool, Field(description="Apply softmax to the probabilities once more, as the code of the notes did.")
        ] = False,
    ):
        super().__init__()
        self.register_buffer("weights", _weights(num_classes, class_weights))
        self.weights: Tensor
        self.gamma = gamma
        self.double_softmax = double_softmax
        self.is_mean_of_parts = True  # not divided by the weights

    def forward(
        self, logits: Float[Tensor, "B K *S"], mask: Int64[Tensor, "B *S"], valid: Bool[Tensor, "B *S"] | None = None
    ) -> Float[Tensor, ""]:
        logits = full_precision(logits)
        if self.double_softmax:
            logits = torch.softmax(logits, dim=1)
        log_p = _log_p_of_mask(logits, mask)
        # 1 - p without cancellation, and above 0, where the slope of x^gamma is infinite for gamma < 1.
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        costs = self.weights.to(log_p.dtype)[mask] * missing**self.gamma * log_p
        return -costs.mean() if valid is None else -(costs * valid).sum() / valid.sum().clamp_min(1)


class SumLoss(nn.Module):
    """The sum of its terms, each called with the same logits and mask.

    With `has_ignored`, voxels of the mask may be IGNORED; each term must take `valid` (see `takes_valid`). Without it
    nothing is computed for them. With `regions`, sets of classes of the mask, each term must have `of_regions`.
    """

    def __init__(self, terms: Iterable[nn.Module], *, has_ignored: bool = False, regions: Sequence[Sequence[int]] = ()):
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.has_ignored = has_ignored
        self.register_buffer("members", _members(regions) if regions else None)
        self.members: Tensor | None
        if not self.terms:
            raise ValueError("a sum of losses needs a term")
        self.is_mean_of_parts = not has_ignored and all(getattr(t, "is_mean_of_parts", False) for t in self.terms)

    def forward(self, logits: Float[Tensor, "B K *S"], mask: Int64[Tensor, "B *S"]) -> Float[Tensor, ""]:
        valid = None
        if self.has_ignored:
            valid = mask != IGNORED
            mask = mask * valid
        if self.members is not None:
            target = self.members[mask].movedim(-1, 1)
            return torch.stack([term.of_regions(logits, target, valid) for term in self.terms]).sum()  # type: ignore[operator]
        if valid is None:
            return torch.stack([term(logits, mask) for term in self.terms]).sum()
        return torch.stack([term(logits, mask, valid) for term in self.terms]).sum()


def _members(regions: Sequence[Sequence[int]]) -> Bool[Tensor, "K R"]:
    """Which classes of a mask (rows) belong to which region (columns)."""
    members = torch.zeros(1 + max(map(max, regions)), len(regions), dtype=torch.bool)
    for r, classes in enumerate(regions):
        members[list(classes), r] = True
    return members


def takes_valid(term: nn.Module) -> bool:
    """Whether a loss can leave voxels out: its `forward` has a parameter `valid`."""
    return "valid" in inspect.signature(type(term).forward).parameters


def _log_p_of_mask(logits: Tensor, mask: Tensor) -> Tensor:
    """log p of each voxel's class (B, *S). Not reduced: a reduced nll_loss sums with atomics on CUDA."""
    return -nn.functional.nll_loss(torch.log_softmax(logits, dim=1), mask, reduction="none")


def _weights(num_classes: int, class_weights: ClassWeights) -> Tensor:
    if class_weights is None:
        return torch.ones(num_classes)
    if len(class_weights) != num_classes:
        raise SettingError(f"class_weights: {len(class_weights)} weights for {num_classes} classes")
    return torch.tensor(class_weights, dtype=torch.float32)
