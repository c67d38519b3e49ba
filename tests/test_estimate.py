"""The error of a mean difference in each scope, beside examples worked by hand and an independent implementation."""

import numpy as np
import pytest

from dlx.statistics.estimate import components, mean_squares, over_patients, over_runs, over_seeds

# two seeds on three patients: the mean is 3, those of the seeds are 2 and 4, those of the patients 2, 2 and 5
TABLE = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 7.0]])


def test_mean_squares_of_two_seeds_on_three_patients_are_those_worked_by_hand() -> None:
    # seeds: 3 ((-1)^2 + 1^2) / 1 = 6; patients: 2 ((-1)^2 + (-1)^2 + 2^2) / 2 = 6; the rest is
    # (0, 1, -1; 0, -1, 1): sum of squares 4, over 1 x 2
    assert mean_squares(TABLE) == (6.0, 6.0, 2.0)


def test_components_are_those_worked_by_hand() -> None:
    assert components(TABLE) == pytest.approx((4.0 / 3.0, 2.0, 2.0))


def test_the_error_for_new_patients_is_that_worked_by_hand() -> None:
    estimate = over_patients(TABLE)
    assert estimate.mean == 3.0
    # V = (6 + 6 - 2) / 6; df = 10^2 / (6^2 / 1 + 6^2 / 2 + 2^2 / 2)
    assert estimate.standard_error == pytest.approx(np.sqrt(10.0 / 6.0))
    assert estimate.df == pytest.approx(100.0 / 56.0)


def test_patients_that_vary_less_than_the_residual_add_no_variance() -> None:
    table = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 3.0]])  # patients' means 0, 0 and 1.5; seeds' 0 and 1
    squares = mean_squares(table)
    assert squares.patients < squares.residual
    estimate = over_patients(table)
    assert estimate.standard_error == pytest.approx(np.sqrt(squares.seeds / 6.0))
    assert estimate.df == pytest.approx(1.0)


def test_equal_differences_have_no_error() -> None:
    estimate = over_patients(np.full((3, 7), 0.1))
    assert (estimate.mean, estimate.standard_error) == (0.1, 0.0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (0, 5)])
def test_fewer_than_two_seeds_or_patients_have_no_error(shape: tuple[int, int]) -> None:
    assert np.isnan(over_patients(np.ones(shape)).standard_error)


def test_the_error_of_cross_validation_grows_with_the_share_of_the_test_set() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])  # variance 2.5
    estimate = over_runs(values, 0.25)
    assert estimate.standard_error == pytest.approx(np.sqrt((1 / 5 + 1 / 4) * 2.5))
    assert estimate.df == 4.0
    assert over_seeds(values).standard_error == pytest.approx(np.sqrt(2.5 / 5))


def test_many_tables_at_once_are_judged_like_one() -> None:
    tables = np.random.default_rng(0).standard_normal((4, 2, 5, 9))
    together = over_patients(tables)
    for index in np.ndindex(4, 2):
        assert over_patients(tables[index]) == pytest.approx([part[index] for part in together])
