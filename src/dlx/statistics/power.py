"""How many seeds or patients a difference needs, and the smallest difference that a number of them can find.

All take variances, never the observed difference. The `alpha` of a study is 0.05 / number of variants: Holm's strictest
step, so that the answer is on the safe side.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special

from dlx.statistics.estimate import Components, Floats, FoldComponents, MeanSquares, of_mean_squares

MAX_NUMBER = 1_000_000  # where the search for enough seeds or patients ends: far more than any study has
POWER = 0.8

# Nodes of an integral over the quantiles of a measured variance: enough for four digits of the power even with two
# seeds, and for three where there are two variances.
NODES = (np.arange(2000) + 0.5) / 2000
NODES_OF_TWO = (np.arange(200) + 0.5) / 200
# Of three variances: a lattice of the multiples of 1/g, 1/g^2 and 1/g^3, where g^4 = g + 1. Against 8,000 simulated
# studies the power is within 0.02.
NODES_OF_THREE = (0.5 + np.outer(1.2207440846057596 ** -np.arange(1.0, 4.0), np.arange(1, 257))) % 1.0
BISECTIONS_OF_POWER = 20  # of quantiles, which are below 1000 if alpha is above 0.001: five digits


def chi_square_over_df(df: float, quantiles: Floats) -> Floats:
    """The quantiles of a measured variance over the true one; 1 without a degree of freedom."""
    return np.asarray(special.gammaincinv(df / 2.0, quantiles) * 2.0 / df) if df > 0 else np.ones(1)


def power_of_t(shift: float, df: float, *, alpha: float) -> float:
    """The chance that a two-sided t test with `df` degrees of freedom finds a true mean of `shift` standard errors.

    The tails of the noncentral t distribution, integrated over the quantiles of the measured standard error.
    scipy's own noncentral t is not used: 1.17 returns NaN in places (4 degrees of freedom, noncentrality 8).
    """
    return _power(shift, float(special.stdtrit(df, 1.0 - alpha / 2.0)) * np.sqrt(chi_square_over_df(df, NODES)))


def _power(shift: float, bounds: Floats) -> float:
    """The chance that a normal variable of mean `shift` lies outside +- a bound, the mean over the bounds."""
    return float(np.mean(special.ndtr(shift - bounds) + special.ndtr(-shift - bounds)))


@dataclass(frozen=True)
class SeedDesign:
    """A study for new seeds: the variance of the paired differences of its seeds, and their number."""

    variance: float
    num_seeds: int

    @property
    def standard_error(self) -> float:
        """The true one, of the mean difference."""
        return math.sqrt(self.variance / self.num_seeds)

    def power(self, effect: float, *, alpha: float) -> float:
        """The chance that `over_seeds` finds a true difference `effect`; the variance is above 0."""
        return power_of_t(abs(effect) / self.standard_error, self.num_seeds - 1, alpha=alpha)


@dataclass(frozen=True)
class PatientDesign:
    """A study for new patients: its variances, and two or more seeds and patients."""

    parts: Components
    num_seeds: int
    num_patients: int

    @property
    def standard_error(self) -> float:
        """The true one, of the mean difference."""
        parts = self.parts
        of_patients = (parts.patient + parts.residual / self.num_seeds) / self.num_patients
        return math.sqrt(parts.seed / self.num_seeds + of_patients)

    def power(self, effect: float, *, alpha: float) -> float:
        """The chance that `over_patients` finds a true difference `effect`; some variance is above 0.

        The mean over what its three mean squares, which are independent, may be.
        """
        parts, seeds_df, patients_df = self.parts, self.num_seeds - 1, self.num_patients - 1
        of_seeds, of_patients, rest = NODES_OF_THREE
        squares = MeanSquares(
            (self.num_patients * parts.seed + parts.residual) * chi_square_over_df(seeds_df, of_seeds),
            (self.num_seeds * parts.patient + parts.residual) * chi_square_over_df(patients_df, of_patients),
            parts.residual * chi_square_over_df(seeds_df * patients_df, rest),
        )
        measured = of_mean_squares(np.zeros(len(rest)), squares, self.num_seeds, self.num_patients)
        bounds = measured.quantile(alpha / 2.0, bisections=BISECTIONS_OF_POWER) * measured.standard_error
        return _power(abs(effect) / self.standard_error, bounds / self.standard_error)


@dataclass(frozen=True)
class FoldDesign:
    """Cross-validation: its variances, the folds (two or more), the seeds in each, and n_test / n_train.

    `num_patients` validate, with all folds together; 0 if their number is unknown.
    """

    parts: FoldComponents
    num_folds: int
    num_seeds: int
    test_to_train: float
    num_patients: int = 0

    @property
    def standard_error(self) -> float:
        """The true one, of the mean difference, if folds are independent of each other."""
        return math.sqrt((self.parts.fold + self.parts.run / self.num_seeds) / self.num_folds)

    def power(self, effect: float, *, alpha: float) -> float:
        """The chance that `over_runs` finds a true difference `effect`; some variance is above 0.

        The variance of all runs, by which it tests, is a sum of the mean squares between folds and within them.
        """
        num_runs, parts = self.num_folds * self.num_seeds, self.parts
        between, within = self.num_folds - 1, self.num_folds * (self.num_seeds - 1)
        of_folds = between * (self.num_seeds * parts.fold + parts.run) * chi_square_over_df(between, NODES_OF_TWO)
        of_runs = within * parts.run * chi_square_over_df(within, NODES_OF_TWO)
        variance = (of_folds[:, None] + of_runs) / (num_runs - 1)
        tested = np.sqrt((1.0 / num_runs + self.test_to_train) * variance)
        bounds = float(special.stdtrit(num_runs - 1, 1.0 - alpha / 2.0)) * tested / self.standard_error
        return _power(abs(effect) / self.standard_error, bounds)


PowerDesign = SeedDesign | PatientDesign | FoldDesign


def median_design(designs: Iterable[PowerDesign | None]) -> PowerDesign | None:
    """The largest design with the median of each variance over all, which have one scope; None without any."""
    known = [design for design in designs if design is not None]
    if not known:
        return None
    match max(known, key=lambda design: (design.num_seeds, getattr(design, "num_patients", 0))):
        case SeedDesign() as first:
            return replace(first, variance=float(np.median([d.variance for d in known if isinstance(d, SeedDesign)])))
        case PatientDesign() as first:
            parts = [d.parts for d in known if isinstance(d, PatientDesign)]
            return replace(first, parts=Components(*np.median(parts, axis=0)))
        case FoldDesign() as first:
            of_folds = [d.parts for d in known if isinstance(d, FoldDesign)]
            return replace(first, parts=FoldComponents(*np.median(of_folds, axis=0)))


def fewest(power_of: Callable[[int], float], *, least: int = 2) -> int | None:
    """The smallest number (`least` or more) with 80 % power, which grows with it; None above a million."""
    enough = least
    while power_of(enough) < POWER:
        if enough >= MAX_NUMBER:
            return None
        enough = min(2 * enough, MAX_NUMBER)
    return bisect_left(range(enough), POWER, lo=max(least, enough // 2), key=power_of)


@dataclass(frozen=True)
class Needed:
    """What finds an effect with 80 % power; None where no number does.

    `seeds` at the present number of patients (in cross-validation for each of the present folds), `patients` at the
    present number of seeds (in cross-validation those of all folds, if folds differ by their patients alone).
    """

    seeds: int | None
    patients: int | None = None


def needed(design: PowerDesign, effect: float, *, alpha: float) -> Needed:
    """The seeds, or the patients, that find a true difference `effect` where the present design may not."""
    patients = None if isinstance(design, SeedDesign) else patients_needed(design, effect, alpha=alpha)
    return Needed(seeds_needed(design, effect, alpha=alpha), patients)


def seeds_needed(design: PowerDesign, effect: float, *, alpha: float) -> int | None:
    """The seeds, in cross-validation for each fold, that find a true difference `effect`; None if no number does.

    None for cross-validation with one seed too, which does not tell the parts of folds and seeds apart.
    """
    if effect == 0.0 or (isinstance(design, FoldDesign) and design.num_seeds == 1):
        return None
    least = 1 if isinstance(design, FoldDesign) else 2
    if design.standard_error == 0.0:
        return least
    return fewest(lambda n: replace(design, num_seeds=n).power(effect, alpha=alpha), least=least)


def patients_needed(design: PatientDesign | FoldDesign, effect: float, *, alpha: float) -> int | None:
    """The patients that find a true difference `effect` with the present seeds; None if no number does.

    In cross-validation those of all folds, if the folds differ by their patients alone: the part of the folds is then
    inversely proportional to the patients. None too where one seed in each fold does not tell this part apart.
    """
    if effect == 0.0 or (isinstance(design, FoldDesign) and (design.num_seeds == 1 or not design.num_patients)):
        return None
    if design.standard_error == 0.0:
        return 2

    def with_patients(n: int) -> float:
        if isinstance(design, PatientDesign):
            return replace(design, num_patients=n).power(effect, alpha=alpha)
        parts = design.parts._replace(fold=design.parts.fold * design.num_patients / n)
        return replace(design, parts=parts, num_patients=n).power(effect, alpha=alpha)

    return fewest(with_patients)


def detectable_effect(design: PowerDesign, *, alpha: float) -> float:
    """The smallest true difference that this design finds with 80 % power."""
    error = design.standard_error
    if error == 0.0:
        return 0.0
    largest = 1.0
    while design.power(largest * error, alpha=alpha) < POWER:
        largest *= 2.0
    return error * float(optimize.brentq(lambda shift: design.power(shift * error, alpha=alpha) - POWER, 0.0, largest))
