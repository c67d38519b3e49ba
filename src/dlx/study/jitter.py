"""Jitter: how much a curve swings in the last epochs of a trial."""

import math
from collections.abc import Sequence

import numpy as np

MIN_FOR_JITTER = 3  # values: a straight line through two of them leaves nothing over


def jitter_window(num_epochs: int) -> int:
    """How many of the last epochs jitter is of: a quarter, rounded up, and at least three."""
    return max(MIN_FOR_JITTER, math.ceil(num_epochs / 4))


def jitter(epochs: Sequence[int], values: Sequence[float | None], num_epochs: int) -> float | None:
    """Standard deviation of the values of the last quarter of the epochs around their straight line.

    `epochs` count from 1; a value is None where nothing was measured. The line (least squares, two degrees of freedom)
    is subtracted so that a network that is still learning does not seem unsteady. None where fewer than three values
    are left.
    """
    first = num_epochs - jitter_window(num_epochs) + 1
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if e >= first and v is not None and math.isfinite(v)]
    if len(points) < MIN_FOR_JITTER:
        return None
    x, y = (column - column.mean() for column in np.array(points, dtype=np.float64).T)
    residuals = y - x * (x @ y) / (x @ x)
    return float(np.sqrt(residuals @ residuals / (len(points) - 2)))
