"""Normalisers of intensities: each returns an image as float32 and the value to pad it with.

Statistics are computed in float64, one channel at a time. The caller adds the name of the case to an error message.
The normaliser that decorrelates channels is in `whiten`, that of CT in `ct`.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dlx.system.errors import DataError

FLOAT16_MAX = 65504.0
RGB_MAX = 255.0

Image = NDArray[np.float32]
PadValue = NDArray[np.float32]
Over = Annotated[
    Literal["foreground", "all"],
    Field(description="The voxels for the statistics: those where the first channel is above 0, or all."),
]


def zscore(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """Each channel minus its mean, divided by its standard deviation (with divisor n).

    `image` is (C, D, H, W) of any real type. With `foreground`, the statistics are taken over the voxels where the
    first channel is above zero (the same voxels for every channel), and the pad value (C,) is the normalised value of
    a raw 0, which is air. If the first channel is above zero everywhere there is no air, and the image is treated as
    with `all`, where the pad value is the mean, 0. Needs 12 bytes per voxel of one channel besides the result.

    Raises DataError if there is no foreground, if a channel is constant over it, or if a normalised value is beyond
    float16.
    """
    return _rescale(image, over, _mean_and_std)


def auto(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """`zscore` with the same arguments, unless channel names of nnU-Net (CT, noNorm ...) choose another normaliser."""
    return zscore(image, over=over)


def minmax(image: NDArray[Any], *, over: Over = "foreground") -> tuple[Image, PadValue]:
    """Each channel scaled so that its smallest value becomes 0 and its largest 1; otherwise as `zscore`."""

    def bounds(values: NDArray[Any], _channel: int) -> tuple[float, float]:
        return float(values.min()), float(values.max()) - float(values.min())

    return _rescale(image, over, bounds)


def percentile(
    image: NDArray[Any],
    *,
    low: Annotated[float, Field(ge=0.0, lt=50.0, description="The percentile that becomes 0.")] = 0.5,
    high: Annotated[float, Field(gt=50.0, le=100.0, description="The percentile that becomes 1.")] = 99.5,
    over: Over = "foreground",
) -> tuple[Image, PadValue]:
    """Each channel scaled so that two percentiles become 0 and 1, and clipped to that range; otherwise as `zscore`.

    Unlike with `minmax`, a few very bright or dark voxels do not squeeze the contrast of all others.
    """

    def bounds(values: NDArray[Any], channel: int) -> tuple[float, float]:
        lowest, highest = (float(value) for value in np.percentile(values, [low, high]))
        if lowest == highest:
            raise DataError(f"channel {channel}: percentiles {low:g} and {high:g} are both {lowest:g}: try zscore")
        return lowest, highest - lowest

    normalized, pad_value = _rescale(image, over, bounds)
    return normalized.clip(0.0, 1.0), pad_value.clip(0.0, 1.0)


def none(image: NDArray[Any]) -> tuple[Image, PadValue]:
    """The unchanged values as float32; the pad value is 0. Raises DataError if a value is not finite in float32."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
        unchanged = image.astype(np.float32)
    if not np.isfinite(unchanged).all():
        raise DataError(
            "a value is not finite or is beyond float32: choose a normaliser, such as --set data.normalize=zscore"
        )
    return unchanged, np.zeros(len(image), np.float32)


def rgb(image: NDArray[Any]) -> tuple[Image, PadValue]:
    """The values divided by 255; the pad value is 0. Raises DataError if a value is not within 0 and 255."""
    lowest, highest = float(image.min()), float(image.max())
    if not (lowest >= 0.0 and highest <= RGB_MAX):  # also false for NaN
        raise DataError(
            f"values from {lowest:g} to {highest:g} are not those of 8 bits (0 to 255): try minmax:over=all"
        )
    return (image / np.float64(RGB_MAX)).astype(np.float32), np.zeros(len(image), np.float32)


def foreground_of(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """The mask (D, H, W) of voxels whose first channel is above zero; None if all are; DataError if none is."""
    foreground: NDArray[np.bool_] = image[0] > 0
    if not foreground.any():
        raise DataError(
            "no voxel of the first channel is above zero, so there is no foreground (data.normalize.over=all takes all "
            "voxels)"
        )
    return None if foreground.all() else foreground


def _rescale(
    image: NDArray[Any], over: Over, shift_and_scale: Callable[[NDArray[Any], int], tuple[float, float]]
) -> tuple[Image, PadValue]:
    """Each channel minus its shift, divided by its scale; both are computed from the voxels selected by `over`."""
    foreground = foreground_of(image) if over == "foreground" else None
    normalized = np.empty(image.shape, np.float32)
    pad_value = np.zeros(len(image), np.float32)
    for c, channel in enumerate(image):
        used = channel if foreground is None else channel[foreground]
        _check_varies(used, c)
        shift, scale = shift_and_scale(used, c)
        wide = channel.astype(np.float64)
        wide -= shift
        wide /= scale
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is refused below
            normalized[c] = wide
        if foreground is not None:
            pad_value[c] = (0.0 - shift) / scale
    check_range(normalized, "the background is too far from the foreground (data.normalize.over=all takes all voxels)")
    check_range(pad_value, "zero is too far from the foreground (data.normalize.over=all takes all voxels)")
    return normalized, pad_value


def _check_varies(values: NDArray[Any], channel: int) -> None:
    """Refuses values that are not finite or all equal."""
    lowest, highest = values.min(), values.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError(f"channel {channel} has values that are not finite")
    if lowest == highest:  # not by std == 0, which can be 1e-17 for equal values
        raise DataError(f"channel {channel} is {lowest:g} in all {values.size} voxels used for its statistics")


def _mean_and_std(values: NDArray[Any], channel: int) -> tuple[float, float]:
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(wide.mean()), float(wide.std())
    if not (np.isfinite(mean) and 0.0 < std < np.inf):
        lowest, highest = values.min(), values.max()
        raise DataError(f"channel {channel} ranges from {lowest:g} to {highest:g}: too large for its statistics")
    return mean, std


def check_range(values: NDArray[np.float32], remedy: str) -> None:
    """DataError if a value is beyond 65504: of a normalised image, it is a mistake rather than a wide range."""
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= -FLOAT16_MAX and highest <= FLOAT16_MAX):  # also false for NaN
        worst = lowest if -lowest > highest else highest
        raise DataError(f"the value {worst:g} is beyond the range of float16 (65504): {remedy}")
