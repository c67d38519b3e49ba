"""What float16 loses of an image, in units of the image's noise, and the type in which a case is therefore stored."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx.data.intensities.normalize import FLOAT16_MAX

# The rounding error above which a case is stored as float32, as a share of the noise. Independent errors add up by
# their squares, so 5 % makes the noise 0.12 % larger, and 50 % makes it 12 % larger. Measured on the hippocampus set:
# at most 0.44 % (zscore) and 1.2 % (minmax).
MAX_ROUNDING_ERROR = 0.05
MAX_SLICES = 8  # evenly spaced, from which noise and error are estimated (chosen, not measured)
# Immerkaer's operator (1996, Computer Vision and Image Understanding 64, 300): a Laplacian minus a rotated one. It
# cancels constant and linear structure, and white noise of standard deviation s gives responses of 6 s.
LAPLACIANS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
NOISE_GAIN = 6.0
MEDIAN_OF_NORMAL = 0.6745  # the median of the absolute value of a standard normal variable

Range = tuple[float, float]


def rounding_error(image: NDArray[np.float32], ranges: Sequence[Range | None] = ()) -> float | None:
    """The root mean square of what float16 changes in an image (C, D, H, W), divided by the noise's standard deviation;
    that of the worst channel. Infinite if a value is beyond float16; None if no channel shows any noise.

    A channel with a range is clipped to it first: its values beyond are clipped before a network sees them.
    """
    if max(-float(image.min()), float(image.max())) > FLOAT16_MAX:
        return float("inf")
    found = [_channel_error(channel, one) for channel, one in zip_longest(image, ranges)]
    return max((error for error in found if error is not None), default=None)


def stored_type(error: float | None) -> type[np.float16] | type[np.float32]:
    """float16, or float32 if its rounding error is above MAX_ROUNDING_ERROR."""
    return np.float16 if error is None or error <= MAX_ROUNDING_ERROR else np.float32


def noise_responses(slices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The responses (n, H - 2, W - 2) of slices (n, H, W) to Immerkaer's operator; empty if a side is below 3."""
    height, width = slices.shape[1] - 2, slices.shape[2] - 2
    if height < 1 or width < 1:
        return np.zeros(0)
    responses = np.zeros((len(slices), height, width))
    for (i, j), weight in np.ndenumerate(LAPLACIANS):
        responses += weight * slices[:, i : i + height, j : j + width]
    return responses


def noise_std(responses: NDArray[np.float64]) -> float | None:
    """The standard deviation of the noise of an image, from `noise_responses`; None if all of them are 0.

    The median absolute response, divided by that of unit noise; the median ignores edges unless they are everywhere
    (Donoho and Johnstone 1994, Biometrika 81, 425, on wavelets). Responses of exactly 0, as in air that was set to a
    constant, are left out. Smoothed or resampled images give too small a value, which errs towards float32.
    """
    varied = np.abs(responses[responses != 0.0])
    return float(np.median(varied)) / (NOISE_GAIN * MEDIAN_OF_NORMAL) if varied.size else None


def _channel_error(channel: NDArray[np.float32], values: Range | None) -> float | None:
    slices = _slices(channel) if values is None else _slices(channel).clip(*values)
    responses = noise_responses(slices)
    noise = noise_std(responses)
    if noise is None:
        return None
    inner = slices[:, 1:-1, 1:-1][responses != 0.0]
    return float(np.sqrt(np.mean((inner.astype(np.float16) - inner) ** 2))) / noise


def _slices(channel: NDArray[Any]) -> NDArray[np.float64]:
    """Up to MAX_SLICES evenly spaced slices (n, H, W), across the shortest axis."""
    across = np.moveaxis(channel, int(np.argmin(channel.shape)), 0)
    return across[:: -(-len(across) // MAX_SLICES)].astype(np.float64)
