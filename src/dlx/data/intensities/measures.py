"""Statistics of the intensities of a case before normalisation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.settings.part import Section

MAX_SAMPLED = 100_000  # evenly spaced voxels from which percentiles are computed; their errors are then below 1 %
MIN_COLUMNS = 8  # of an image from which these voxels are, if it has as many
MASK_VALUES = 16  # an image of more different values is no label mask; usual data sets have fewer classes
# Air in reconstructed or filtered MR is slightly above or below 0. A voxel counts as negative below -5 % of the median
# of the positive voxels: -2 HU in an abdomen whose soft tissue has 40 HU.
CLEARLY_NEGATIVE = 0.05


class ChannelIntensities(Section):
    """Mean, standard deviation and range of one channel, over the voxels that normalisation takes its statistics from.

    `used_fraction` is the fraction of the case's voxels used; `clipped_std` is the standard deviation of the values
    clipped to their 1st and 99th percentile.
    """

    used_fraction: float
    mean: float
    std: float
    lowest: float
    highest: float
    clipped_std: float


def measure_intensities(image: NDArray[Any], foreground: NDArray[np.bool_] | None) -> tuple[ChannelIntensities, ...]:
    """The statistics of each channel of (C, D, H, W), over the foreground or (None) over all voxels."""
    used = 1.0 if foreground is None else float(foreground.mean())
    if foreground is None:
        return tuple(_measure(channel.ravel(), channel.shape[-1], used) for channel in image)
    return tuple(_measure(channel[foreground], 1, used) for channel in image)


def _measure(values: NDArray[Any], row: int, used: float) -> ChannelIntensities:
    sampled = _sample(values, row).astype(np.float64)
    clipped = sampled.clip(*np.percentile(sampled, [1.0, 99.0]))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return ChannelIntensities(
        used_fraction=used,
        mean=mean,
        std=std,
        lowest=float(values.min()),
        highest=float(values.max()),
        clipped_std=float(clipped.std()),
    )


def negative_fraction(channel: NDArray[Any]) -> float:
    """The fraction of voxels (D, H, W) clearly below zero; raw MR images have none, even in air."""
    if channel.size == 0 or channel.min() >= 0:
        return 0.0
    sampled = _sample(channel.ravel(), channel.shape[-1]).astype(np.float64)
    positive = sampled[sampled > 0]
    limit = -CLEARLY_NEGATIVE * float(np.median(positive)) if positive.size else 0.0
    return float((channel < limit).mean())


def _sample(values: NDArray[Any], row: int) -> NDArray[Any]:
    """At most MAX_SAMPLED evenly spaced values of rows of this length. A step that is a multiple of the row would take
    them from one column, which may be all air.
    """
    step = -(-values.size // MAX_SAMPLED)
    while row // math.gcd(step, row) < min(row, MIN_COLUMNS):
        step += 1
    return values[::step]


def looks_like_mask(image: NDArray[Any]) -> bool:
    """Whether an image of any shape has several values, at most MASK_VALUES, and all of them whole."""
    voxels = image.ravel()
    if np.unique(_sample(voxels, image.shape[-1])).size > MASK_VALUES:
        return False
    values = np.unique(voxels)
    return 1 < values.size <= MASK_VALUES and bool((values == np.round(values)).all())


def intensity_rows(
    channels: Sequence[str], cases: Sequence[tuple[ChannelIntensities, ...]]
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Per channel the smallest and largest value over all cases of: used voxels (in %), mean, standard deviation,
    minimum, maximum. Empty if any case has no statistics.
    """
    if not cases or not all(len(one) == len(channels) for one in cases):
        return []
    rows = []
    for c, channel in enumerate(channels):
        columns = [
            [100 * one[c].used_fraction for one in cases],
            [one[c].mean for one in cases],
            [one[c].std for one in cases],
            [one[c].lowest for one in cases],
            [one[c].highest for one in cases],
        ]
        rows.append((channel, [(min(column), max(column)) for column in columns]))
    return rows
