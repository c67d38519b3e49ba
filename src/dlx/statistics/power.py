"""How many seeds or patients a difference needs, and the smallest difference that a number of them can find.

All take variances or their roots, never the observed difference. The `alpha` of a study is 0.05 / number of variants:
Holm's strictest step, so that the answer is on the safe side.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from dlx.statistics.estimate import Components, MeanEstimate

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


def power_in_patients(parts: Components, effect: float, *, num_seeds: int, num_patients: int, alpha: float) -> float:
    """The chance that `over_patients` finds a true difference `effect` with these seeds and patients (2 or more each).

    The variance, its degrees of freedom and the tail are those of the mean squares that `parts` lead one to expect.
    """
    size = num_seeds * num_patients
    patients = num_seeds * parts.patient + parts.residual
    uncertainty = patients**2 / (num_patients - 1) + parts.residual**2 / ((num_seeds - 1) * (num_patients - 1))
    expected = MeanEstimate(
        *np.array(
            [
                effect,
                (num_patients * parts.seed + parts.residual) / size,
                num_seeds - 1,
                parts.patient / num_patients,
                num_patients - 1,
                uncertainty / size**2 if parts.patient > 0.0 else 0.0,
            ]
        )
    )
    error, df = float(expected.standard_error), float(expected.df)
    if error == 0.0:
        return 1.0
    bound = float(expected.quantile(alpha / 2.0)) * np.sqrt(special.gammaincinv(df / 2.0, NODES) * 2.0 / df)
    shift = abs(effect) / error
    return float(np.mean(special.ndtr(shift - bound) + special.ndtr(-shift - bound)))


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


@dataclass(frozen=True)
class Needed:
    """What finds an effect with 80 % power; None where no number does.

    `seeds` at the present number of patients (in cross-validation for each fold), `patients` at the present number of
    seeds.
    """

    seeds: int | None
    patients: int | None = None


def needed_for_patients(parts: Components, effect: float, *, num_seeds: int, num_patients: int, alpha: float) -> Needed:
    """The seeds or the patients that find a true difference `effect` for new patients."""

    def with_seeds(n: int) -> float:
        return power_in_patients(parts, effect, num_seeds=n, num_patients=num_patients, alpha=alpha)

    def with_patients(n: int) -> float:
        return power_in_patients(parts, effect, num_seeds=num_seeds, num_patients=n, alpha=alpha)

    return Needed(seeds=fewest(with_seeds), patients=fewest(with_patients))


def needed_for_procedure(spread: float, effect: float, num_folds: int, test_to_train: float, *, alpha: float) -> Needed:
    """The seeds of each fold that find a true difference `effect` for new training sets, by `over_runs`."""
    if spread == 0.0:
        return Needed(seeds=1)

    def with_runs(n: int) -> float:
        return power_of_t(effect / (spread * math.sqrt(1.0 / n + test_to_train)), n - 1, alpha=alpha)

    runs = fewest(with_runs)
    return Needed(seeds=None if runs is None else math.ceil(runs / num_folds))


def detectable_effect(standard_error: float, df: float, *, alpha: float, power: float = 0.8) -> float:
    """The smallest true difference that a t test with this standard error finds with this power."""
    largest = 1.0
    while power_of_t(largest, df, alpha=alpha) < power:
        largest *= 2.0
    shift = optimize.brentq(lambda shift: power_of_t(shift, df, alpha=alpha) - power, 0.0, largest)
    return standard_error * float(shift)
