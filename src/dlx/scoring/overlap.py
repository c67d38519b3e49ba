"""Overlap of predictions with masks: counts on the device, Dice from counts, means over cases and classes.

Counts of the parts of a volume add up to the counts of the volume. Distances between surfaces are in
`surface.py`. Throughout: a class that is in neither mask has no Dice (NaN) and is left out of means; in one
only, it has Dice 0.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Integer, Num
from torch import Tensor


class DiceSummary(NamedTuple):
    """Dice over cases. None stands where there is nothing to average.

    `per_class` holds, for each of the K classes, background first, the mean over the cases that have the
    class; `mean`, the headline, is the mean of those of the foreground classes.
    """

    mean: float | None
    per_class: tuple[float | None, ...]


def overlap_counts(
    prediction: Integer[Tensor, "*S"], mask: Integer[Tensor, "*S"], num_classes: int
) -> Int64[Tensor, "3 K"]:
    """Voxels per class (columns) in the intersection, in the prediction and in the mask (rows).

    Labels outside 0..K-1 count nowhere. Stays on the device and does not wait for it: compared and counted
    class by class (bincount waits, on CUDA, for the largest label; counting so is also the fastest of the
    three ways tried on a CPU).
    """
    columns = []
    for label in range(num_classes):
        predicted, true = prediction == label, mask == label
        columns.append(torch.stack([torch.count_nonzero(v) for v in (predicted & true, predicted, true)]))
    return torch.stack(columns, dim=1)


def soft_overlap(probabilities: Float[Tensor, "B K *S"], mask: Integer[Tensor, "B *S"]) -> Float[Tensor, "3 K"]:
    """Sums per class of p g, of p and of g (rows), g the one-hot mask; float32, or float64 if p is."""
    p = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    p = p.movedim(1, 0).flatten(1)
    classes = torch.arange(len(p), device=mask.device).unsqueeze(1)
    g = (mask.flatten().unsqueeze(0) == classes).to(p.dtype)
    return torch.stack([(p * g).sum(dim=1), p.sum(dim=1), g.sum(dim=1)])


def dice_from_counts(counts: Num[Tensor, "*N 3 K"]) -> Float64[Tensor, "*N K"]:
    """2 |P and M| / (|P| + |M|) per class, NaN where it is in neither; for a device that has float64."""
    overlap, predicted, true = counts.double().unbind(dim=-2)
    return 2.0 * overlap / (predicted + true)  # 0 / 0 is the NaN that is meant


def soft_dice_from_sums(sums: Float[Tensor, "*N 3 K"]) -> Float64[Tensor, "*N K"]:
    """2 sum p g / (sum p + sum g) per class; NaN where the class is not in the mask.

    Probabilities are never quite 0, so presence is the mask's alone: else any patch without the class would
    score 0.
    """
    return torch.where(sums[..., 2, :] > 0, dice_from_counts(sums), math.nan)


def mean_foreground(dice: Float[Tensor, "*N K"]) -> Float[Tensor, "*N"]:
    """Mean over classes 1..K-1, NaN left out; NaN where none is left."""
    return dice[..., 1:].nanmean(dim=-1)


def summarize(dice_per_case: Float[Tensor, "cases K"]) -> DiceSummary:
    """The headline: over cases first, then over foreground classes, so that each class weighs the same."""
    per_class = dice_per_case.double().nanmean(dim=0)
    return DiceSummary(
        mean=none_if_nan(mean_foreground(per_class).item()),
        per_class=tuple(none_if_nan(value) for value in per_class.tolist()),
    )


def none_if_nan(value: float) -> float | None:
    """The value as records have it: None where there is none."""
    return None if math.isnan(value) else value
