"""How many seeds or patients a difference needs, and the smallest difference that a number of them can find.

All take variances or their roots, never the observed difference. The `alpha` of a study is 0.05 / number of variants:
Holm's strictest step, so that the answer is on the safe side.
"""

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from scipy import optimize, special

from dlx.statistics.scopes import Components

MAX_NUMBER = 1_000_000  # where the search for enough seeds or patients ends: far more than any study has

# Nodes of the integral over the spread's own spread: enough for four digits of the power even with two seeds.
NODES = (np.arange(2000) + 0.5) / 2000


def power_of_t(shift: float, df: float, *, alpha: float) -> float:
    """The chance that a two-sided t test with `df` degrees of freedom finds a true mean of `shift` standard errors.

    The tails of the noncentral t distribution, integrated over the quantiles of the measured standard error.
    scipy's own noncentral t is not used: 1.17 returns NaN in places (4 degrees of freedom, noncentrality 8).
    """
    measured = np.sqrt(special.gammaincinv(df / 2.0, NODES) * 2.0 / df)  # standard error over the true one
    bound = special.stdtrit(df, 1.0 - alpha / 2.0) * measured
    return float(np.mean(special.ndtr(shift - bound) + special.ndtr(-shift - bound)))


def power_of_paired_t(ratio: float, n: int, *, alpha: float) -> float:
    """The chance that a two-sided paired t test of n differences finds a true mean of `ratio` standard deviations."""
    return power_of_t(ratio * math.sqrt(n), n - 1, alpha=alpha)


def power_of_design(parts: Components, effect: float, *, num_seeds: int, num_patients: int, alpha: float) -> float:
    """The chance that `over_patients` finds a true difference `effect` with these seeds and patients (2 or more each).

    The variance and its degrees of freedom are those of the mean squares that `parts` lead one to expect.
    """
    seeds = num_patients * parts.seed + parts.residual
    patients = num_seeds * parts.patient + parts.residual
    total = seeds + patients - parts.residual
    if total == 0.0:
        return 1.0
    uncertainty = seeds**2 / (num_seeds - 1)
    if parts.patient > 0.0:
        uncertainty += patients**2 / (num_patients - 1)
        uncertainty += parts.residual**2 / ((num_seeds - 1) * (num_patients - 1))
    shift = abs(effect) / math.sqrt(total / (num_seeds * num_patients))
    return power_of_t(shift, float(total**2 / uncertainty), alpha=alpha)


def fewest(power_of: Callable[[int], float], *, power: float = 0.8) -> int | None:
    """The smallest number (2 or more) with at least this power, which grows with it; None above a million."""
    enough = 2
    while power_of(enough) < power:
        if enough >= MAX_NUMBER:
            return None
        enough = min(2 * enough, MAX_NUMBER)
    return bisect_left(range(enough), power, lo=max(2, enough // 2), key=power_of)


def seeds_needed(spread: float, effect: float, *, alpha: float) -> int | None:
    """The fewest seeds that find a true difference `effect` for new seeds with 80 % power; None above a million.

    `spread` is the standard deviation of the paired differences over seeds.
    """
    if effect == 0.0:
        return None
    if spread == 0.0:
        return 2
    ratio = abs(effect) / spread
    return fewest(lambda n: power_of_paired_t(ratio, n, alpha=alpha))


def detectable_effect(spread: float, n: int, *, alpha: float, power: float = 0.8) -> float:
    """The smallest true difference that n seeds find with this power; infinite for fewer than two seeds."""
    if n < 2:
        return math.inf
    if spread == 0.0:
        return 0.0
    largest = 1.0
    while power_of_paired_t(largest, n, alpha=alpha) < power:
        largest *= 2.0
    return spread * float(optimize.brentq(lambda ratio: power_of_paired_t(ratio, n, alpha=alpha) - power, 0.0, largest))
