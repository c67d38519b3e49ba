"""Normalisers of intensities: what they return fits into float16, and comes with a value to pad it with.

Statistics are taken in float64, a channel at a time. Files and cases are not known here: the caller adds the
case to an error. What makes the channels independent of each other is in `whiten`.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlx.system.errors import DataError

FLOAT16_MAX = 65504.0

Image = NDArray[np.float32]
PadValue = NDArray[np.float32]
Over = Annotated[
    Literal["foreground", "all"],
    Field(description="Which voxels the statistics are of: those where the first channel is above 0, or all."),
]


def zscore(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """Each channel less its mean, divided by its standard deviation (the one that divides by n).

    `image` is (C, D, H, W) of any real type. Over the foreground, the statistics are of the voxels where the
    first channel is above zero (the same voxels for every channel), and the pad value (C,) is what a raw 0,
    air, becomes. An image whose first channel is above zero throughout has no air: it is taken whole, as by
    `all`, where the pad value is the mean, 0. Needs 12 bytes a voxel of a channel besides the result.

    Raises DataError when there is no foreground, when a channel is constant over it, or when a normalised
    value is beyond float16.
    """
    return _rescale(image, over, _mean_and_std)


def minmax(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """Each channel scaled so that its smallest value becomes 0 and its largest 1; else as `zscore`."""

    def bounds(values: NDArray[Any], channel: int) -> tuple[float, float]:
        _check_spread(values, channel)
        return float(values.min()), float(values.max()) - float(values.min())

    return _rescale(image, over, bounds)


def percentile(
    image: NDArray[Any],
    *,
    low: Annotated[float, Field(ge=0.0, lt=50.0, description="The percentile that becomes 0.")] = 0.5,
    high: Annotated[float, Field(gt=50.0, le=100.0, description="The percentile that becomes 1.")] = 99.5,
    over: Over = "foreground",
) -> tuple[Image, PadValue]:
    """Each channel scaled so that these percentiles become 0 and 1, values beyond them clipped; else as `zscore`.

    Single very bright or dark voxels then do not squeeze all others together, as they do with `minmax`.
    """

    def bounds(values: NDArray[Any], channel: int) -> tuple[float, float]:
        _check_spread(values, channel)
        lowest, highest = (float(value) for value in np.percentile(values, [low, high]))
        if lowest == highest:
            raise DataError(f"channel {channel}: its percentiles {low:g} and {high:g} are both {lowest:g}: try zscore")
        return lowest, highest - lowest

    normalized, pad_value = _rescale(image, over, bounds)
    return normalized.clip(0.0, 1.0), pad_value.clip(0.0, 1.0)


def none(image: NDArray[Any]) -> tuple[Image, PadValue]:
    """The values as they are, as float32; the pad value is 0. Raises DataError when one is beyond float16."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused just below
        unchanged = image.astype(np.float32)
    check_range(unchanged, "normalise, as with zscore")
    return unchanged, np.zeros(len(image), np.float32)


def foreground_of(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where (D, H, W) the first channel is above zero; None where it is so throughout. DataError where nowhere."""
    foreground: NDArray[np.bool_] = image[0] > 0
    if not foreground.any():
        raise DataError(
            "no voxel of the first channel is above zero, so there is no foreground (try --set data.normalize.over=all)"
        )
    return None if foreground.all() else foreground


def _rescale(
    image: NDArray[Any], over: Over, shift_and_scale: Callable[[NDArray[Any], int], tuple[float, float]]
) -> tuple[Image, PadValue]:
    """Each channel less its shift, divided by its scale, both of the values that it is normalised over."""
    foreground = foreground_of(image) if over == "foreground" else None
    normalized = np.empty(image.shape, np.float32)
    pad_value = np.zeros(len(image), np.float32)
    for c, channel in enumerate(image):
        shift, scale = shift_and_scale(channel if foreground is None else channel[foreground], c)
        wide = channel.astype(np.float64)
        wide -= shift
        wide /= scale
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused below
            normalized[c] = wide
        if foreground is not None:
            pad_value[c] = (0.0 - shift) / scale
    check_range(normalized, "the background lies too far from the foreground: try --set data.normalize.over=all")
    check_range(pad_value, "zero lies too far from the foreground: try --set data.normalize.over=all")
    return normalized, pad_value


def _check_spread(values: NDArray[Any], channel: int) -> None:
    """Refuses values that are not finite, or all the same."""
    lowest, highest = values.min(), values.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError(f"channel {channel} has values that are not finite")
    if lowest == highest:  # asked of the values, for the deviation of equal values may come out as 1e-17
        raise DataError(f"channel {channel} is {lowest:g} in all {values.size} voxels that it is normalised over")


def _mean_and_std(values: NDArray[Any], channel: int) -> tuple[float, float]:
    _check_spread(values, channel)
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(wide.mean()), float(wide.std())
    if not (np.isfinite(mean) and 0.0 < std < np.inf):
        lowest, highest = values.min(), values.max()
        raise DataError(f"channel {channel} ranges from {lowest:g} to {highest:g}, which cannot be normalised")
    return mean, std


def check_range(values: NDArray[np.float32], remedy: str) -> None:
    """Prepared images are kept as float16, where a value beyond 65504 would become infinite."""
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= -FLOAT16_MAX and highest <= FLOAT16_MAX):  # also false for NaN
        worst = lowest if -lowest > highest else highest
        raise DataError(f"the value {worst:g} is beyond what float16 holds (65504); {remedy}")
