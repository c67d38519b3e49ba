"""Overlap of predictions with masks: counts on the device, Dice from counts, means over cases and classes.

Counts of the parts of a volume add up to the counts of the volume. Distances between surfaces are in `surface.py`. In
all functions, a class that is in neither mask has no Dice (NaN) and is left out of means; a class in only one of them
has Dice 0.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Integer, Num
from torch import Tensor

from dlx.scoring.counts import dice

COUNTED_AT_ONCE = 2**24  # voxels: their maps are small beside the memory of a network


class DiceSummary(NamedTuple):
    """Dice over cases; None if there is nothing to average.

    `per_class` holds the mean over the cases that have the class, for each of the K classes, background first; `mean`
    is the mean of those of the foreground classes.
    """

    mean: float | None
    per_class: tuple[float | None, ...]


def overlap_counts(
    prediction: Integer[Tensor, "*S"], mask: Integer[Tensor, "*S"], num_classes: int
) -> Int64[Tensor, "3 K"]:
    """Voxels per class (columns) in the intersection, in the prediction and in the mask (rows).

    Labels outside 0..K-1 are not counted. The result stays on the device without waiting for it.
    """
    return count_overlap(prediction, mask, range(num_classes), torch.eq, torch.eq)


def count_overlap(
    prediction: Integer[Tensor, "*S"],
    mask: Integer[Tensor, "*S"],
    classes: Sequence[int],
    is_predicted: Callable[[Tensor, int], Tensor],
    is_true: Callable[[Tensor, int], Tensor],
) -> Int64[Tensor, "3 K"]:
    """As `overlap_counts`, where functions tell in which voxels a class is.

    Classes are compared and counted one by one (on CUDA, bincount waits for the largest label; this was also the
    fastest of three variants tried on a CPU), in parts of the volume: the maps of a whole CT took 3 GiB (docs/log.md).
    """
    counts = torch.zeros(3, len(classes), dtype=torch.int64, device=mask.device)
    pieces = zip(
        torch.split(prediction.flatten(), COUNTED_AT_ONCE), torch.split(mask.flatten(), COUNTED_AT_ONCE), strict=True
    )
    for p, t in pieces:
        for column, k in enumerate(classes):
            predicted, true = is_predicted(p, k), is_true(t, k)
            counts[:, column] += torch.stack([torch.count_nonzero(v) for v in (predicted & true, predicted, true)])
    return counts


def soft_overlap(probabilities: Float[Tensor, "B K *S"], mask: Integer[Tensor, "B *S"]) -> Float[Tensor, "3 K"]:
    """Sums per class of p g, of p and of g (rows), g the one-hot mask; float32, or float64 if p is."""
    p = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    p = p.movedim(1, 0).flatten(1)
    classes = torch.arange(len(p), device=mask.device).unsqueeze(1)
    g = (mask.flatten().unsqueeze(0) == classes).to(p.dtype)
    return torch.stack([(p * g).sum(dim=1), p.sum(dim=1), g.sum(dim=1)])


def dice_from_counts(counts: Num[Tensor, "*N 3 K"]) -> Float64[Tensor, "*N K"]:
    """2 |P and M| / (|P| + |M|) per class, NaN for a class in neither; the device must have float64."""
    values: Tensor = dice(*counts.double().unbind(dim=-2))
    return values


def soft_dice_from_sums(sums: Float[Tensor, "*N 3 K"]) -> Float64[Tensor, "*N K"]:
    """2 sum p g / (sum p + sum g) per class; NaN where the class is not in the mask.

    Probabilities are never exactly 0, so only the mask decides whether a class is present: otherwise any patch without
    the class would score 0.
    """
    return torch.where(sums[..., 2, :] > 0, dice_from_counts(sums), math.nan)


def mean_foreground(dice: Float[Tensor, "*N K"]) -> Float[Tensor, "*N"]:
    """Mean over classes 1..K-1, NaN left out; NaN where none is left."""
    return dice[..., 1:].nanmean(dim=-1)


def summarize(dice_per_case: Float[Tensor, "cases K"]) -> DiceSummary:
    """The mean over cases first, then over foreground classes, so that each class has the same weight."""
    per_class = dice_per_case.double().nanmean(dim=0)
    return DiceSummary(
        mean=none_if_nan(mean_foreground(per_class).item()),
        per_class=tuple(none_if_nan(value) for value in per_class.tolist()),
    )


def none_if_nan(value: float) -> float | None:
    """The value as records hold it: None for NaN."""
    return None if math.isnan(value) else value
