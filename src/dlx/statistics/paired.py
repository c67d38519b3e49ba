"""Tests of paired differences, one a seed on the last axis, and their correction for several hypotheses.

All functions work along the last axis and accept any axes before it, so that thousands of simulated studies run the
same code as a real one. The result is NaN (no test) for fewer than two differences, or if one is NaN.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


class PairedT(NamedTuple):
    """The mean of the differences, its standard error, and the two-sided p of "the true mean is 0"."""

    mean: Floats
    standard_error: Floats
    p: Floats


def paired_t(differences: Floats) -> PairedT:
    """The paired t test (n - 1 degrees of freedom) of differences shaped (..., n).

    Differences that are all equal have no spread: p is 1 if they are 0, else 0. (This occurs: trials repeat bit for
    bit.)
    """
    mean, standard_error = _mean_and_error(differences)
    return PairedT(mean, standard_error, np.minimum(1.0, 2.0 * _upper_tail(np.abs(mean), standard_error, differences)))


def greater_p(differences: Floats, bound: float = 0.0) -> Floats:
    """One-sided p (...) of "the true mean is at most `bound`": small if the mean is shown to be greater."""
    mean, standard_error = _mean_and_error(differences)
    return _upper_tail(mean - bound, standard_error, differences)


def equivalence_p(differences: Floats, margin: float) -> Floats:
    """p (...) of "the true mean is `margin` or more from 0": the larger of two one-sided p (Schuirmann 1987)."""
    return np.maximum(greater_p(differences, -margin), greater_p(-differences, -margin))


def interval(differences: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """The ends (low, high) of the t interval of the mean, for this mean alone: not corrected for other variants."""
    mean, standard_error = _mean_and_error(differences)
    half = special.stdtrit(differences.shape[-1] - 1, 0.5 + level / 2.0) * standard_error
    return mean - half, mean + half


def spread(values: Floats) -> float:
    """Standard deviation of two or more values (n); exactly 0 if they are equal."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1))


def holm(p: Floats) -> Floats:
    """The p of m hypotheses (..., m), adjusted by Holm's step-down method (Holm 1979, Scand. J. Statist. 6).

    A hypothesis without a test (NaN) stays NaN but still counts towards m, so a missing variant does not weaken the
    correction of the others.
    """
    num_hypotheses = p.shape[-1]
    order = np.argsort(p, axis=-1)  # NaN come last
    factors = num_hypotheses - np.arange(num_hypotheses)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def _mean_and_error(differences: Floats) -> tuple[Floats, Floats]:
    n = differences.shape[-1]
    if n < 2:
        unknown = np.full(differences.shape[:-1], np.nan)
        return (differences[..., 0] if n else unknown), unknown
    # for equal differences both are set exactly: computed, they would have rounding errors
    is_constant = (differences == differences[..., :1]).all(axis=-1)
    mean = np.where(is_constant, differences[..., 0], differences.mean(axis=-1))
    return mean, np.where(is_constant, 0.0, differences.std(axis=-1, ddof=1) / np.sqrt(n))


def _upper_tail(excess: Floats, standard_error: Floats, differences: Floats) -> Floats:
    """P(T > excess / standard_error). Without spread: 0 for a positive excess, else 1 (`paired_t` limits 2 p to 1)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = excess / standard_error
    tail = np.asarray(special.stdtr(differences.shape[-1] - 1, -t), dtype=np.float64)
    return np.where(standard_error == 0.0, np.where(excess > 0.0, 0.0, 1.0), tail)
