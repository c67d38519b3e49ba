"""The Lovász-softmax loss: exact by sorting, or by a histogram of the errors, which does not wait for the device.

The extension weighs each voxel's error by the increase of the Jaccard loss when that voxel becomes wrong after all
voxels with larger errors (Berman et al. 2018). Only these weights depend on the order, and voxels of nearly equal error
may come in any order, so a histogram is sufficient.
"""

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn


class LovaszSoftmax(nn.Module):
    """Lovász-softmax loss over the flattened batch, present classes only; in 0..1.

    The Lovász extension of the Jaccard loss, mean over the classes in the batch's masks, background too; the batch's
    voxels count as those of one image (Berman et al. 2018, sections 2 and 3). Errors are ranked by a histogram with
    `bins` bins, which gives the loss within 1 / bins in a hundredth of the time of sorting; None sorts them exactly.
    """

    def __init__(
        self,
        num_classes: int,  # noqa: ARG002 (given to every loss)
        *,
        bins: Annotated[
            Annotated[int, Field(ge=256, le=65536)] | None,
            Field(description="Bins of the histogram that ranks the errors; none sorts them, exactly and slowly."),
        ] = 4096,
    ):
        super().__init__()
        self.bins = bins

    def forward(
        self, logits: Float[Tensor, "B K *S"], mask: Int64[Tensor, "B *S"], valid: Bool[Tensor, "B *S"] | None = None
    ) -> Float[Tensor, ""]:
        p = torch.softmax(full_precision(logits), dim=1).movedim(1, 0).flatten(1)
        is_class = one_hot(mask, p.shape[0]).movedim(1, 0).flatten(1)
        errors = (is_class.to(p.dtype) - p).abs()
        if valid is not None:  # an error of 0 is ranked last and costs nothing
            valid = valid.flatten()
            is_class, errors = is_class & valid, errors * valid
        if self.bins is None:
            errors, order = errors.sort(dim=1, descending=True)
            steps = jaccard_steps(is_class.gather(1, order), p.dtype)
        else:
            steps = binned_steps(errors.detach(), is_class, self.bins, valid)
        per_class = (errors * steps).sum(dim=1)
        # A product instead of indexing: the host does not need to know which classes are present.
        present = is_class.any(dim=1).to(p.dtype)
        num_present = present.sum() if valid is None else present.sum().clamp_min(1.0)
        return (per_class * present).sum() / num_present


def jaccard_steps(is_class: Bool[Tensor, "K N"], dtype: torch.dtype) -> Float[Tensor, "K N"]:
    """J(i) - J(i-1): the increase of the Jaccard loss when the i-th voxel, by decreasing error, becomes wrong.

    After i wrong voxels, m of them of the class, a class of G voxels has intersection I = G - m and union U =
    G + i - m, and J = 1 - I / U. A voxel of the class reduces I by 1: the step is 1 / U. Any other increases U by 1:
    the step is I / (U (U - 1)). This form subtracts no nearly equal numbers, so float32 is enough for millions of
    voxels. Rows of absent classes are finite but meaningless.
    """
    wrong_of_class = is_class.cumsum(dim=1)
    size = wrong_of_class[:, -1:]
    ranks = torch.arange(1, is_class.shape[1] + 1, device=is_class.device)
    intersection = (size - wrong_of_class).to(dtype)
    union = (size + ranks - wrong_of_class).to(dtype)
    return torch.where(is_class, 1.0 / union, intersection / (union * (union - 1.0).clamp_min(1.0)))


def binned_steps(
    errors: Float[Tensor, "K N"], is_class: Bool[Tensor, "K N"], bins: int, valid: Bool[Tensor, " N"] | None = None
) -> Float[Tensor, "K N"]:
    """`jaccard_steps` for voxels in any order: the loss's increase in each bin is divided among the voxels of the bin.
    Voxels that are not `valid` are in no bin, and their step is 0.

    Voxels of the class get one share and the others another, since the former reduce the intersection and the latter
    increase the union (with one share for both, gradients were wrong by 43 %).
    """
    counts, place = _histogram(errors, is_class, bins, valid)
    shares = _shares(counts).to(errors.dtype).flatten(1)
    if valid is not None:
        shares = torch.nn.functional.pad(shares, (0, 1))  # of the voxels in no bin
    return torch.gather(shares, 1, place)


def _histogram(
    errors: Tensor, is_class: Tensor, bins: int, valid: Tensor | None
) -> tuple[Int64[Tensor, "K 2 bins"], Int64[Tensor, "K N"]]:
    """The number of voxels of the class (row 1) and of others (row 0) by bin, the largest errors first, and the index
    at which each voxel was counted (2 bins, after the last one, if it is not valid). Integers, so that sums with
    atomics on CUDA repeat bit for bit."""
    num_classes, num_places = len(errors), 2 * bins if valid is None else 2 * bins + 1
    bin_ = ((1.0 - errors) * bins).long().clamp_(0, bins - 1)
    place = bin_ + is_class * bins
    if valid is not None:
        place = torch.where(valid, place, 2 * bins)
    if errors.device.type == "cpu":
        counts = torch.stack([torch.bincount(row, minlength=num_places) for row in place])
    else:
        counts = torch.zeros(num_classes, num_places, dtype=torch.int64, device=errors.device)
        counts.scatter_add_(1, place, torch.ones_like(place))
    return counts[:, : 2 * bins].reshape(num_classes, 2, bins), place


def _shares(counts: Int64[Tensor, "K 2 bins"]) -> Float[Tensor, "K 2 bins"]:
    """The increase of the Jaccard loss per voxel of each bin: others in row 0, voxels of the class in row 1.

    The f voxels of the class and b others in a bin are taken at constant rates: after the fraction t of the bin the
    class has lost m + f t of its G voxels and the union is u + b t. Voxels of the class add 1 / union each, on average
    log(1 + b / u) / b; the others share the rest of the bin's increase, which is known exactly.
    """
    b, f = counts.to(torch.float32 if counts.device.type == "mps" else torch.float64).unbind(1)  # (K, bins)
    size = f.sum(1, keepdim=True)  # G
    lost, added = f.cumsum(1), b.cumsum(1)
    union = (size + added).clamp_min(1.0)  # 0 at first for an absent class, whose row is meaningless
    jaccard = 1.0 - (size - lost) / union
    growth = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(size))
    before = (union - b).clamp_min(1.0)
    of_class = torch.where(b > 0, torch.log1p(b / before) / b.clamp_min(1.0), 1.0 / before)
    others = (growth - f * of_class) / b.clamp_min(1.0)
    return torch.stack([others, of_class], 1)


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32, float64 kept."""
    return logits if logits.dtype == torch.float64 else logits.float()


def one_hot(mask: Tensor, num_classes: int) -> Tensor:
    """(B, K, *S) bool, by comparison: torch's one_hot waits for the largest class on the host."""
    classes = torch.arange(num_classes, device=mask.device).view(1, -1, *[1] * (mask.ndim - 1))
    return mask.unsqueeze(1) == classes
