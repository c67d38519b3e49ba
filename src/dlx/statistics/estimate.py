"""The estimate of a mean difference, with the error that belongs to what it is to hold for, and its t tests.

All functions accept any axes before the ones that they name, so that thousands of simulated studies run the same code
as a real one. Where there are fewer than two seeds or patients there is no error, and the tests give NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

BISECTIONS = 60  # halvings of an interval: after 53 of them a float64 has no more digits


class MeanEstimate(NamedTuple):
    """A mean difference (...) and the variance of this mean: the part of the seeds, and what patients add to it.

    `patient_uncertainty` is the patients' share of the variance of the estimated variance, for Satterthwaite's
    degrees of freedom. Differences that are all equal have the variance 0. (This occurs: trials repeat bit for bit.)
    """

    mean: Floats
    seed_variance: Floats
    seed_df: Floats
    patient_variance: Floats
    patient_df: Floats
    patient_uncertainty: Floats

    @property
    def standard_error(self) -> Floats:
        return np.sqrt(self.seed_variance + self.patient_variance)

    @property
    def df(self) -> Floats:
        """Satterthwaite's degrees of freedom, at least 1.

        Where the mean squares of patients and residual almost cancel, his are near 0, and an interval would have 15
        digits; a bound of 1 changes no rate of false alarms (`tests/calibration.py`, 2 to 10 seeds).
        """
        uncertainty = self.seed_variance**2 / self.seed_df + self.patient_uncertainty
        with np.errstate(divide="ignore", invalid="ignore"):
            df = (self.seed_variance + self.patient_variance) ** 2 / uncertainty
        return np.maximum(1.0, np.where(uncertainty > 0.0, df, self.seed_df))

    def tail(self, t: Floats) -> Floats:
        """P(T > t) under the hypothesis, for t of 0 or more; the larger of two approximations.

        Satterthwaite's is too small if the parts of seeds and patients are alike, far out in the tail most of all: in
        studies of 3 seeds and 8 variants up to 11 % false alarms (`tests/calibration.py`). The mean of the two t tails,
        weighted by the parts, is too small if both are small beside the residual. (Cochran and Cox weight the quantiles
        of the two t in this way.)
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = self.seed_variance / (self.seed_variance + self.patient_variance)
        weight = np.where(self.patient_variance > 0.0, weight, 1.0)
        mixed = weight * special.stdtr(self.seed_df, -t) + (1.0 - weight) * special.stdtr(self.patient_df, -t)
        return np.asarray(np.maximum(special.stdtr(self.df, -t), mixed), dtype=np.float64)

    def quantile(self, upper: float, *, bisections: int = BISECTIONS) -> Floats:
        """The t (...) of which the tail is `upper`, by bisection between the quantiles of the degrees of freedom."""
        all_df = np.stack(np.broadcast_arrays(self.df, self.seed_df, self.patient_df))
        low = np.asarray(special.stdtrit(all_df.max(axis=0), 1.0 - upper))
        high = np.asarray(special.stdtrit(all_df.min(axis=0), 1.0 - upper))
        for _ in range(bisections if np.any(low < high) else 0):
            middle = (low + high) / 2.0
            is_too_low = self.tail(middle) > upper
            low, high = np.where(is_too_low, middle, low), np.where(is_too_low, high, middle)
        return high


UNKNOWN = MeanEstimate(*[np.array(np.nan)] * 6)


def together(estimates: Sequence[MeanEstimate]) -> MeanEstimate:
    """The estimates of m variants as one of (m) values."""
    return MeanEstimate(*np.array(estimates, dtype=np.float64).reshape(len(estimates), 6).T)


def spread(values: Floats) -> float:
    """Standard deviation of two or more values (n); exactly 0 if they are equal."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1))


def over_seeds(differences: Floats) -> MeanEstimate:
    """The mean of differences (..., J), one a seed, for new seeds: the t test with J - 1 degrees of freedom."""
    return over_runs(differences, 0.0)


def over_runs(differences: Floats, test_to_train: float) -> MeanEstimate:
    """The mean of differences (..., J), one a run of cross-validation, for new training sets, seeds and patients.

    Runs share training subjects, so their mean varies more than s / sqrt(J): the variance is (1/J + n_test/n_train) s^2
    with J - 1 degrees of freedom (Nadeau and Bengio 2003, Machine Learning 52, the corrected resampled t test).
    """
    num_runs = differences.shape[-1]
    if num_runs < 2:
        unknown = np.full(differences.shape[:-1], np.nan)
        return MeanEstimate(differences[..., 0] if num_runs else unknown, *[unknown] * 5)
    # for equal differences both are set exactly: computed, they would have rounding errors
    is_constant = (differences == differences[..., :1]).all(axis=-1)
    mean = np.where(is_constant, differences[..., 0], differences.mean(axis=-1))
    variance = np.where(is_constant, 0.0, differences.var(axis=-1, ddof=1)) * (1.0 / num_runs + test_to_train)
    df, none = np.full(mean.shape, num_runs - 1.0), np.zeros(mean.shape)
    return MeanEstimate(mean, variance, df, none, df, none)


def over_patients(differences: Floats) -> MeanEstimate:
    """The mean of differences (..., J, K), of J seeds on K patients, for new patients and seeds; the same training set.

    Seeds and patients are crossed random effects, as readers and cases are in studies of several readers (Hillis 2014,
    Statistics in Medicine 33).
    """
    num_seeds, num_patients = differences.shape[-2:]
    if num_seeds < 2 or num_patients < 2:
        unknown = np.full(differences.shape[:-2], np.nan)
        return MeanEstimate(differences.mean(axis=(-2, -1)) if differences.size else unknown, *[unknown] * 5)
    first = differences[..., 0, 0]
    is_constant = (differences == first[..., None, None]).all(axis=(-2, -1))
    mean = np.where(is_constant, first, differences.mean(axis=(-2, -1)))
    estimate = of_mean_squares(mean, mean_squares(differences), num_seeds, num_patients)
    return estimate._replace(
        seed_variance=np.where(is_constant, 0.0, estimate.seed_variance),
        patient_variance=np.where(is_constant, 0.0, estimate.patient_variance),
    )


def over_patients_alone(differences: Floats) -> MeanEstimate:
    """The mean of differences (..., K), one a patient, for new patients and the same networks: a t test over patients.

    What other seeds of these networks would predict is not part of the error.
    """
    return over_runs(differences, 0.0)


def of_mean_squares(mean: Floats, squares: "MeanSquares", num_seeds: int, num_patients: int) -> MeanEstimate:
    """The estimate for new patients of a mean (...) with these mean squares (...)."""
    size, seeds_df, patients_df = num_seeds * num_patients, num_seeds - 1, num_patients - 1
    excess = np.maximum(squares.patients - squares.residual, 0.0)
    uncertainty = squares.patients**2 / patients_df + squares.residual**2 / (seeds_df * patients_df)
    return MeanEstimate(
        mean=mean,
        seed_variance=squares.seeds / size,
        seed_df=np.full(mean.shape, float(seeds_df)),
        patient_variance=excess / size,
        patient_df=np.full(mean.shape, float(patients_df)),
        patient_uncertainty=np.where(excess > 0.0, uncertainty / size**2, 0.0),
    )


def two_sided_p(estimate: MeanEstimate) -> Floats:
    """p (...) of "the true mean is 0"."""
    return np.minimum(1.0, 2.0 * _upper_tail(np.abs(estimate.mean), estimate))


def greater_p(estimate: MeanEstimate, bound: float = 0.0) -> Floats:
    """One-sided p (...) of "the true mean is at most `bound`": small if the mean is shown to be greater."""
    return _upper_tail(estimate.mean - bound, estimate)


def less_p(estimate: MeanEstimate, bound: float = 0.0) -> Floats:
    """One-sided p (...) of "the true mean is at least `bound`": small if the mean is shown to be less."""
    return _upper_tail(bound - estimate.mean, estimate)


def equivalence_p(estimate: MeanEstimate, margin: float) -> Floats:
    """p (...) of "the true mean is `margin` or more from 0": the larger of two one-sided p (Schuirmann 1987)."""
    return np.maximum(greater_p(estimate, -margin), less_p(estimate, margin))


def interval(estimate: MeanEstimate, level: float = 0.95) -> tuple[Floats, Floats]:
    """The ends (low, high) of the t interval of the mean, for this mean alone: not corrected for other variants."""
    half = estimate.quantile((1.0 - level) / 2.0) * estimate.standard_error
    return estimate.mean - half, estimate.mean + half


def _upper_tail(excess: Floats, estimate: MeanEstimate) -> Floats:
    """P(T > excess / standard error). Without variance: 0 for a positive excess, else 1."""
    error = estimate.standard_error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = excess / error
    tail = np.where(t >= 0.0, estimate.tail(np.abs(t)), 1.0 - estimate.tail(np.abs(t)))
    certain = np.where(excess > 0.0, 0.0, 1.0)
    return np.where(np.isnan(error), np.nan, np.where(error == 0.0, certain, tail))


class MeanSquares(NamedTuple):
    """The mean squares (...) of two crossed random effects, seeds and patients."""

    seeds: Floats
    patients: Floats
    residual: Floats


def mean_squares(differences: Floats) -> MeanSquares:
    """The mean squares of differences (..., J, K), J and K at least 2 (two-way layout, one observation a cell)."""
    num_seeds, num_patients = differences.shape[-2:]
    mean = differences.mean(axis=(-2, -1), keepdims=True)
    of_seeds = differences.mean(axis=-1, keepdims=True) - mean
    of_patients = differences.mean(axis=-2, keepdims=True) - mean
    rest = differences - mean - of_seeds - of_patients
    return MeanSquares(
        seeds=num_patients * (of_seeds**2).sum(axis=(-2, -1)) / (num_seeds - 1),
        patients=num_seeds * (of_patients**2).sum(axis=(-2, -1)) / (num_patients - 1),
        residual=(rest**2).sum(axis=(-2, -1)) / ((num_seeds - 1) * (num_patients - 1)),
    )


class Components(NamedTuple):
    """The variances (...) of a difference between runs: of seeds, of patients, and the residual."""

    seed: Floats
    patient: Floats
    residual: Floats


def components(differences: Floats) -> Components:
    """The variance components of differences (..., J, K) by the method of moments; one that would be negative is 0."""
    num_seeds, num_patients = differences.shape[-2:]
    squares = mean_squares(differences)
    return Components(
        seed=np.maximum(squares.seeds - squares.residual, 0.0) / num_patients,
        patient=np.maximum(squares.patients - squares.residual, 0.0) / num_seeds,
        residual=squares.residual,
    )


class FoldComponents(NamedTuple):
    """The variances (...) of a difference in cross-validation: of folds (their patients and training sets), of runs."""

    fold: Floats
    run: Floats


def fold_components(differences: Floats) -> FoldComponents:
    """The variance components of differences (..., F, S) of folds and seeds by the method of moments, at least 0.

    F and S are at least 2: one seed in each fold does not tell the two apart.
    """
    within = differences.var(axis=-1, ddof=1).mean(axis=-1)
    between = differences.mean(axis=-1).var(axis=-1, ddof=1)
    return FoldComponents(fold=np.maximum(between - within / differences.shape[-1], 0.0), run=within)
