"""For whom a verdict holds: the estimate of a mean difference, with the error that belongs to each scope.

*New seeds*: other runs with the same training set, on these patients. *New patients*: the same training set, other
patients (and seeds). *The procedure*: other training sets, patients and seeds. All functions accept any axes before
the ones that they name, so that thousands of simulated studies run the same code as a real one.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_PATIENTS = 5  # persons: fewer say too little about others; `tests/calibration.py` simulates 5 and more


class Scope(StrEnum):
    """For whom a verdict holds, from the narrowest to the widest."""

    SEEDS = "seeds"
    PATIENTS = "patients"
    PROCEDURE = "procedure"


class TEstimate(NamedTuple):
    """A mean, its standard error and the degrees of freedom of its t distribution; NaN where there is no error."""

    mean: Floats
    standard_error: Floats
    df: Floats


def over_seeds(differences: Floats) -> TEstimate:
    """The mean of differences (..., J), one a seed, for new seeds: the t interval with J - 1 degrees of freedom."""
    return over_runs(differences, 0.0)


def over_runs(differences: Floats, test_to_train: float) -> TEstimate:
    """The mean of differences (..., J), one a run of cross-validation, for new training sets, seeds and patients.

    Runs share training subjects, so their mean varies more than s / sqrt(J): the variance is (1/J + n_test/n_train) s^2
    with J - 1 degrees of freedom (Nadeau and Bengio 2003, Machine Learning 52, the corrected resampled t test).
    """
    num_runs = differences.shape[-1]
    if num_runs < 2:
        unknown = np.full(differences.shape[:-1], np.nan)
        return TEstimate(differences[..., 0] if num_runs else unknown, unknown, unknown)
    # for equal differences both are set exactly: computed, they would have rounding errors
    is_constant = (differences == differences[..., :1]).all(axis=-1)
    mean = np.where(is_constant, differences[..., 0], differences.mean(axis=-1))
    sd = np.where(is_constant, 0.0, differences.std(axis=-1, ddof=1))
    return TEstimate(mean, sd * np.sqrt(1.0 / num_runs + test_to_train), np.full(mean.shape, num_runs - 1.0))


class Components(NamedTuple):
    """Variances of a difference between runs: of seeds, of patients, and the residual of a seed on a patient."""

    seed: Floats
    patient: Floats
    residual: Floats


class MeanSquares(NamedTuple):
    """The mean squares of a table (..., J, K) of two crossed random effects, seeds J and patients K."""

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


def components(differences: Floats) -> Components:
    """The variance components of differences (..., J, K) by the method of moments; one that would be negative is 0."""
    num_seeds, num_patients = differences.shape[-2:]
    squares = mean_squares(differences)
    return Components(
        seed=np.maximum(squares.seeds - squares.residual, 0.0) / num_patients,
        patient=np.maximum(squares.patients - squares.residual, 0.0) / num_seeds,
        residual=squares.residual,
    )


def over_patients(differences: Floats) -> TEstimate:
    """The mean of differences (..., J, K), of J seeds on K patients, for new patients and seeds; the same training set.

    Seeds and patients are crossed random effects, as readers and cases are in studies of several readers (Hillis 2014,
    Statistics in Medicine 33). The degrees of freedom are Satterthwaite's with all mean squares.
    """
    num_seeds, num_patients = differences.shape[-2:]
    if num_seeds < 2 or num_patients < 2:
        unknown = np.full(differences.shape[:-2], np.nan)
        return TEstimate(differences.mean(axis=(-2, -1)) if differences.size else unknown, unknown, unknown)
    squares = mean_squares(differences)
    excess = np.maximum(squares.patients - squares.residual, 0.0)
    total = squares.seeds + excess
    uncertainty = squares.seeds**2 / (num_seeds - 1) + (excess > 0.0) * (
        squares.patients**2 / (num_patients - 1) + squares.residual**2 / ((num_seeds - 1) * (num_patients - 1))
    )
    first = differences[..., 0, 0]
    is_constant = (differences == first[..., None, None]).all(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(is_constant, num_seeds - 1.0, total**2 / uncertainty)
    return TEstimate(
        mean=np.where(is_constant, first, differences.mean(axis=(-2, -1))),
        standard_error=np.where(is_constant, 0.0, np.sqrt(total / (num_seeds * num_patients))),
        df=df,
    )
