"""The Lovász-softmax loss: exact by sorting, or by a histogram of the errors that neither sorts nor waits.

The extension of the Jaccard loss weighs each voxel's error with how much the loss grows when that voxel, after all with
larger errors, becomes wrong (Berman et al. 2018). The order matters through those weights alone, and voxels of nearly
equal error may be taken in any order; so a histogram knows all that is needed.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn


class LovaszSoftmax(nn.Module):
    """The Lovász extension of the Jaccard loss, mean over the classes in the batch's masks, background too.

    The batch is flattened: its voxels count as those of one image (Berman et al. 2018, sections 2 and 3).
    """

    def __init__(self, bins: int | None = None):
        super().__init__()
        self.bins = bins

    def forward(self, logits: Float[Tensor, "B K *S"], mask: Int64[Tensor, "B *S"]) -> Float[Tensor, ""]:
        p = torch.softmax(full_precision(logits), dim=1).movedim(1, 0).flatten(1)
        is_class = one_hot(mask, p.shape[0]).movedim(1, 0).flatten(1)
        errors = (is_class.to(p.dtype) - p).abs()
        if self.bins is None:
            errors, order = errors.sort(dim=1, descending=True)
            steps = jaccard_steps(is_class.gather(1, order), p.dtype)
        else:
            steps = binned_steps(errors.detach(), is_class, self.bins)
        per_class = (errors * steps).sum(dim=1)
        # A product with presence, not a selection: the host need not know which classes are there.
        present = is_class.any(dim=1).to(p.dtype)
        return (per_class * present).sum() / present.sum()


def jaccard_steps(is_class: Bool[Tensor, "K N"], dtype: torch.dtype) -> Float[Tensor, "K N"]:
    """J(i) - J(i-1): how much the Jaccard loss grows as the i-th voxel, by falling error, becomes wrong.

    After i wrong voxels, m of them of the class, a class of G voxels has intersection I = G - m and union U =
    G + i - m, and J = 1 - I / U. A voxel of the class takes 1 from I: the step is 1 / U. Another adds 1 to U:
    it is I / (U (U - 1)). Written so, no two nearly equal numbers are subtracted, and float32 is enough for
    millions of voxels. Rows of a class without voxels are finite and mean nothing.
    """
    wrong_of_class = is_class.cumsum(dim=1)
    size = wrong_of_class[:, -1:]
    ranks = torch.arange(1, is_class.shape[1] + 1, device=is_class.device)
    intersection = (size - wrong_of_class).to(dtype)
    union = (size + ranks - wrong_of_class).to(dtype)
    return torch.where(is_class, 1.0 / union, intersection / (union * (union - 1.0).clamp_min(1.0)))


def binned_steps(errors: Float[Tensor, "K N"], is_class: Bool[Tensor, "K N"], bins: int) -> Float[Tensor, "K N"]:
    """What `jaccard_steps` gives, for voxels in any order: each bin's growth of the Jaccard loss, shared within it.

    Two shares a bin, one for voxels of the class and one for others, since a voxel of the class makes the intersection
    smaller and another the union larger (one share for both was 43 % off in the gradient).
    """
    counts, place = _histogram(errors, is_class, bins)
    return torch.gather(_shares(counts).to(errors.dtype).flatten(1), 1, place)


def _histogram(errors: Tensor, is_class: Tensor, bins: int) -> tuple[Int64[Tensor, "K 2 bins"], Int64[Tensor, "K N"]]:
    """How many voxels of the class (row 1) and others (row 0) have an error in each bin, the largest errors first, and
    where each voxel was counted. Integers, so that adding with atomics on CUDA repeats bit for bit."""
    num_classes = len(errors)
    bin_ = ((1.0 - errors) * bins).long().clamp_(0, bins - 1)
    place = bin_ + is_class * bins
    if errors.device.type == "cpu":
        rows = [torch.bincount(row, minlength=2 * bins) for row in place]
        return torch.stack(rows).view(num_classes, 2, bins), place
    counts = torch.zeros(num_classes, 2 * bins, dtype=torch.int64, device=errors.device)
    counts.scatter_add_(1, place, torch.ones_like(place))
    return counts.view(num_classes, 2, bins), place


def _shares(counts: Int64[Tensor, "K 2 bins"]) -> Float[Tensor, "K 2 bins"]:
    """How much the Jaccard loss grows for each voxel of a bin, others in row 0, voxels of the class in row 1.

    A bin takes f voxels of the class and b others along a straight path: after the share t of it the class has lost
    m + f t of its G voxels and the union is u + b t. Voxels of the class cost 1 / union each, in the mean over the path
    log(1 + b / u) / b; the others the rest of the bin's growth, which is known exactly.
    """
    b, f = counts.to(torch.float32 if counts.device.type == "mps" else torch.float64).unbind(1)  # (K, bins)
    size = f.sum(1, keepdim=True)  # G
    lost, added = f.cumsum(1), b.cumsum(1)
    union = (size + added).clamp_min(1.0)  # an absent class has none at first; its row means nothing
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
    """(B, K, *S) bool, by comparison: torch's one_hot looks for the largest class on the host."""
    classes = torch.arange(num_classes, device=mask.device).view(1, -1, *[1] * (mask.ndim - 1))
    return mask.unsqueeze(1) == classes
