"""How many seeds a difference needs, and the smallest difference that a number of seeds can find.

Both take the spread (the standard deviation of the paired differences), never the observed difference.
The `alpha` of a study is 0.05 / number of variants: Holm's strictest step, so that the answer is on the safe side.
"""

import math
from bisect import bisect_left

import numpy as np
from scipy import optimize, special

MAX_SEEDS = 1_000_000  # where the search for enough seeds ends: far more than any study trains

# Nodes of the integral over the spread's own spread: enough for four digits of the power even with two seeds.
NODES = (np.arange(2000) + 0.5) / 2000


def power_of_paired_t(ratio: float, n: int, *, alpha: float) -> float:
    """The chance that a two-sided paired t test of n differences finds a true mean of `ratio` standard deviations.

    The tails of the noncentral t distribution, integrated over the quantiles of the measured standard deviation.
    scipy's own noncentral t is not used: 1.17 returns NaN in places (4 degrees of freedom, noncentrality 8).
    """
    measured = np.sqrt(special.gammaincinv((n - 1) / 2.0, NODES) * 2.0 / (n - 1))  # sd over true sd
    bound = special.stdtrit(n - 1, 1.0 - alpha / 2.0) * measured
    shift = ratio * math.sqrt(n)
    return float(np.mean(special.ndtr(shift - bound) + special.ndtr(-shift - bound)))


def seeds_needed(spread: float, effect: float, *, alpha: float, power: float = 0.8) -> int | None:
    """The fewest seeds (2 or more) that find a true difference `effect` with this power; None above a million."""
    if effect == 0.0:
        return None
    if spread == 0.0:
        return 2

    def power_of(n: int) -> float:
        return power_of_paired_t(abs(effect) / spread, n, alpha=alpha)

    enough = 2
    while power_of(enough) < power:
        if enough >= MAX_SEEDS:
            return None
        enough = min(2 * enough, MAX_SEEDS)
    return bisect_left(range(enough), power, lo=max(2, enough // 2), key=power_of)


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
