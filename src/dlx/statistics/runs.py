"""What is said of the runs of one variant before any test: how much the last epochs swing, and which runs collapsed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def jitter(epochs: Sequence[int], values: Sequence[float | None], num_epochs: int) -> float | None:
    """Standard deviation of the values of the last quarter of the epochs around their straight line.

    `epochs` count from 1 and hold those that were measured; None among the values was not. A quarter is rounded up and
    is at least three epochs. The line (least squares, two degrees of freedom) is taken out so that a network that is
    still learning does not seem unsteady. None where fewer than three values are left.
    """
    first = num_epochs - max(3, math.ceil(num_epochs / 4)) + 1
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if e >= first and v is not None and math.isfinite(v)]
    if len(points) < 3:
        return None
    x, y = (column - column.mean() for column in np.array(points, dtype=np.float64).T)
    residuals = y - x * (x @ y) / (x @ x)
    return float(np.sqrt(residuals @ residuals / (len(points) - 2)))


LEARNT = 0.1  # Dice: below it no run has learnt anything that another could have lost


def collapsed_seeds(values: Mapping[int, float | None], reference: float = 0.0) -> tuple[int, ...]:
    """The seeds whose run collapsed where others did not: a Dice below half of the best run's, or None (diverged).

    Half is far outside what a seed does to a run that learns (some hundredths of Dice). `reference` is the best Dice of
    the control: where no run reaches half of it the variant learns badly on every seed, which is a difference and no
    collapse. If all diverged, all are named; else never the best.
    """
    best = max((value for value in values.values() if value is not None), default=0.0)
    learnt = best >= max(reference / 2.0, LEARNT)
    return tuple(sorted(s for s, value in values.items() if value is None or (learnt and value < best / 2.0)))
