"""The error of a mean difference in each scope, beside examples worked by hand and an independent implementation."""

import numpy as np
import pytest
from scipy import stats

from calibration import (
    DESIGNS,
    FOLDS,
    MEASURED,
    TRAINING,
    TWO_SEEDS,
    FoldParts,
    coverage,
    false_alarms,
    finds,
    fold_looks,
    over_cases,
    parts_of,
    patient_looks,
    simulate_folds,
    simulate_patients,
)
from dlx.statistics.correction import moderate
from dlx.statistics.decision import decide
from dlx.statistics.estimate import (
    Components,
    FoldComponents,
    MeanEstimate,
    components,
    fold_components,
    greater_p,
    interval,
    less_p,
    mean_squares,
    over_patients,
    over_runs,
    over_seeds,
    two_sided_p,
)
from dlx.statistics.looks import false_alarm_rate
from dlx.statistics.power import FoldDesign, PatientDesign, detectable_effect, median_design, needed

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


def test_the_degrees_of_freedom_are_at_least_1_where_the_mean_squares_almost_cancel() -> None:
    # seeds' mean square 0.02, patients' 3.02, residual 3.0: Satterthwaite's degrees of freedom would be near 0
    rest = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]]) * np.sqrt(9.0 / 8.0)
    patients = np.array([1.0, 1.0, -1.0, -1.0]) * np.sqrt(3.0 * 3.02 / 8.0)
    seeds = np.array([[1.0], [-1.0]]) * np.sqrt(0.02 / 8.0)
    table = rest + patients + seeds
    assert tuple(mean_squares(table)) == pytest.approx((0.02, 3.02, 3.0))
    estimate = over_patients(table)
    low, high = interval(estimate)
    assert estimate.df == 1.0
    assert float(high - low) == pytest.approx(2.0 * stats.t.isf(0.025, 1) * estimate.standard_error)


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


def test_the_tail_for_new_patients_is_the_larger_of_two_approximations() -> None:
    estimate = over_patients(TABLE)  # the seeds have 6 of 10 parts of the variance and 1 df, the patients 4 and 2 df
    satterthwaite = stats.t.sf(2.0, 100.0 / 56.0)
    mixed = 0.6 * stats.t.sf(2.0, 1) + 0.4 * stats.t.sf(2.0, 2)
    assert estimate.tail(np.float64(2.0)) == pytest.approx(max(satterthwaite, mixed))


def test_an_interval_ends_just_where_the_p_is_5_percent() -> None:
    tables = np.random.default_rng(1).standard_normal((50, 3, 8)) + np.linspace(-1.0, 1.0, 8)
    estimate = over_patients(tables)
    for end in interval(estimate):
        assert two_sided_p(estimate._replace(mean=estimate.mean - end)) == pytest.approx(0.05)


def test_the_t_tests_over_seeds_are_those_of_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1.0, (4, 3, 6))
    estimate = over_seeds(differences)
    assert two_sided_p(estimate) == pytest.approx(stats.ttest_1samp(differences, 0.0, axis=-1).pvalue)
    for alternative, p in (("greater", greater_p(estimate, 0.2)), ("less", less_p(estimate, 0.2))):
        expected = stats.ttest_1samp(differences, 0.2, axis=-1, alternative=alternative).pvalue
        assert p == pytest.approx(expected)


def test_moderated_variances_are_those_worked_by_hand() -> None:
    # five seeds: 4 degrees of freedom, 2 of them from the median, 2; the median of chi^2 with 4 of them is 3.35669
    own = np.array([1.0, 2.0, 9.0])
    four, none = np.full(3, 4.0), np.zeros(3)
    found = moderate(MeanEstimate(np.ones(3), own, four, none, four, none))
    typical = 2.0 * 4.0 / 3.35669
    assert found.seed_variance == pytest.approx([(2 * typical + 4 * 1) / 6, (2 * typical + 4 * 2) / 6, 9.0], rel=1e-5)
    assert found.seed_df.tolist() == [6.0, 6.0, 6.0]


def test_a_variant_without_a_test_takes_no_part_in_the_median_and_two_variants_keep_their_variances() -> None:
    own = np.array([1.0, np.nan, 2.0, 9.0])
    four, none = np.full(4, 4.0), np.zeros(4)
    estimate = MeanEstimate(np.ones(4), own, four, none, four, none)
    with_nan = moderate(estimate).seed_variance
    without = moderate(MeanEstimate(*(part[[0, 2, 3]] for part in estimate))).seed_variance
    assert with_nan[[0, 2, 3]] == pytest.approx(without)
    two = MeanEstimate(*(part[:3] for part in estimate))
    assert moderate(two).seed_variance == pytest.approx([1.0, np.nan, 2.0], nan_ok=True)


def test_a_variant_is_different_only_if_its_own_interval_excludes_0() -> None:
    rng = np.random.default_rng(2)
    differences = rng.standard_normal((2000, 8, 5)) + rng.choice([0.0, 1.5, 3.0], (2000, 8, 1))
    estimate = over_seeds(differences)
    low, high = interval(estimate)
    decision = decide(estimate, 0.5)
    assert decision.is_different.sum() > 1000
    assert not (decision.is_different & (low <= 0.0) & (high >= 0.0)).any()


PARTS = [(1e-4, 2e-4, 9e-4), (4e-5, 3.6e-3, 5e-4), (1e-4, 0.0, 9e-4)]


@pytest.mark.parametrize("parts", PARTS)
def test_the_planned_patients_reach_the_power_that_was_asked_for(parts: tuple[float, float, float]) -> None:
    known = Components(*map(np.float64, parts))
    patients = needed(PatientDesign(known, 5, 20), 0.02, alpha=0.05).patients
    assert patients is not None
    simulated = simulate_patients(1, 5, patients, known, studies=4000, effect=0.02)
    assert 0.75 < finds(over_patients(simulated)) < 0.85


@pytest.mark.parametrize(("num_seeds", "num_patients"), [(5, 20), (2, 20), (10, 5)])
@pytest.mark.parametrize("parts", [*PARTS, (0.0, 0.0, 9e-4)])
def test_the_detectable_effect_for_new_patients_is_found_in_80_percent_of_studies(
    parts: tuple[float, float, float], num_seeds: int, num_patients: int
) -> None:
    known = Components(*map(np.float64, parts))
    effect = detectable_effect(PatientDesign(known, num_seeds, num_patients), alpha=0.05)
    simulated = simulate_patients(1, num_seeds, num_patients, known, studies=8000, effect=effect)
    assert 0.77 < finds(over_patients(simulated)) < 0.83


# variances of folds and of runs within them
FOLD_PARTS = [(0.0, 4e-4), (4e-4, 2.5e-5), (2e-4, 2e-4), (1e-4, 4e-4)]


def simulate_runs(parts: FoldComponents, num_folds: int, num_seeds: int, effect: float, studies: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    runs = np.sqrt(parts.run) * rng.standard_normal((studies, 1, num_folds, num_seeds))
    return effect + runs + np.sqrt(parts.fold) * rng.standard_normal((studies, 1, num_folds, 1))


@pytest.mark.parametrize("num_seeds", [1, 2, 3])
@pytest.mark.parametrize("parts", FOLD_PARTS)
def test_the_detectable_effect_of_cross_validation_is_found_in_80_percent_of_studies(
    parts: tuple[float, float], num_seeds: int
) -> None:
    known = FoldComponents(*map(np.float64, parts))
    effect = detectable_effect(FoldDesign(known, 5, num_seeds, 0.25), alpha=0.05)
    simulated = simulate_runs(known, 5, num_seeds, effect, 8000).reshape(8000, 1, -1)
    assert 0.77 < finds(over_runs(simulated, 0.25)) < 0.83


@pytest.mark.parametrize(("parts", "effect"), [((0.0, 4e-4), 0.0262), ((1e-4, 4e-4), 0.0281), ((2e-4, 2e-4), 0.0291)])
def test_the_planned_seeds_of_each_fold_reach_the_power_that_was_asked_for(
    parts: tuple[float, float], effect: float
) -> None:
    known = FoldComponents(*map(np.float64, parts))
    seeds = needed(FoldDesign(known, 5, 2, 0.25), effect, alpha=0.05).seeds
    assert seeds is not None
    assert seeds > 3
    simulated = simulate_runs(known, 5, seeds, effect, 8000).reshape(8000, 1, -1)
    assert 0.75 < finds(over_runs(simulated, 0.25)) < 0.85


def test_more_patients_make_the_folds_alike() -> None:
    known = FoldComponents(np.float64(4e-4), np.float64(2.5e-5))
    patients = needed(FoldDesign(known, 5, 2, 0.25, num_patients=100), 0.03, alpha=0.05).patients
    assert patients is not None
    assert patients > 100
    alike = known._replace(fold=known.fold * 100 / patients)
    simulated = simulate_runs(alike, 5, 2, 0.03, 8000).reshape(8000, 1, -1)
    assert 0.77 < finds(over_runs(simulated, 0.25)) < 0.83
    assert needed(FoldDesign(known, 5, 2, 0.25), 0.03, alpha=0.05).patients is None  # their number is unknown


def test_no_number_of_seeds_is_enough_where_the_folds_vary_too_much() -> None:
    few = FoldDesign(FoldComponents(np.float64(4e-4), np.float64(2.5e-5)), 5, 2, 0.25)
    assert needed(few, 0.02, alpha=0.05).seeds is None


def test_one_seed_in_each_fold_gives_no_plan() -> None:
    one = FoldDesign(FoldComponents(np.float64(4e-4), np.float64(0.0)), 5, 1, 0.25)
    assert needed(one, 0.1, alpha=0.05).seeds is None


def test_the_components_of_folds_are_those_worked_by_hand() -> None:
    # folds' means 1, 2 and 6: variance 7; within: variances 2, 0 and 2
    found = fold_components(np.array([[0.0, 2.0], [2.0, 2.0], [5.0, 7.0]]))
    assert found == pytest.approx((7.0 - (4.0 / 3.0) / 2.0, 4.0 / 3.0))


def test_the_median_design_takes_each_variance_over_the_designs() -> None:
    designs = [PatientDesign(Components(*map(np.float64, p)), 5, 20) for p in ((1, 5, 9), (2, 4, 7), (3, 6, 8))]
    assert median_design([None, *designs]) == PatientDesign(Components(*map(np.float64, (2, 5, 8))), 5, 20)
    assert median_design([None]) is None


# calibration: a share of `make calibrate`


@pytest.mark.parametrize(("num_seeds", "num_patients"), DESIGNS)
def test_at_most_5_5_percent_of_studies_without_an_effect_declare_one_for_new_patients(
    num_seeds: int, num_patients: int
) -> None:
    for name in MEASURED:
        differences = simulate_patients(1, num_seeds, num_patients, parts_of(name), studies=8000)
        estimate = over_patients(differences)
        assert false_alarms(estimate) <= 0.055
        assert coverage(estimate, 0.0) >= 0.94


@pytest.mark.parametrize(("num_seeds", "num_patients"), TWO_SEEDS)
def test_with_two_seeds_at_most_8_percent_declare_one_for_new_patients_as_reports_say(
    num_seeds: int, num_patients: int
) -> None:
    for name in MEASURED:
        differences = simulate_patients(1, num_seeds, num_patients, parts_of(name), studies=8000)
        assert false_alarms(over_patients(differences)) <= 0.085


@pytest.mark.parametrize("looks", [(3, 5), (5, 10)])
def test_after_looks_false_alarms_in_the_wider_scopes_are_at_most_those_of_one_variant_over_seeds(
    looks: tuple[int, ...],
) -> None:
    bound = false_alarm_rate(looks, 1) + 0.01  # three standard errors of 6000 studies
    for name in MEASURED:
        assert 0.04 < patient_looks(looks, 1, 20, parts_of(name), studies=6000) <= bound
        assert fold_looks(looks, FoldParts(parts_of(name), 0.0, 0.0), studies=6000) <= bound
    assert patient_looks(looks, 8, 20, parts_of("median"), studies=2000) <= bound


def test_a_t_test_over_seeds_alone_is_wrong_about_new_patients_far_more_often() -> None:
    differences = simulate_patients(1, 5, 52, parts_of("training subjects"), studies=4000)
    assert false_alarms(over_seeds(differences.mean(axis=-1))) > 0.35
    assert false_alarms(over_cases(simulate_patients(1, 5, 52, parts_of("weight sharing"), studies=4000))) > 0.5


@pytest.mark.parametrize(("num_folds", "num_seeds"), FOLDS)
def test_at_most_5_5_percent_of_cross_validations_without_an_effect_declare_one(num_folds: int, num_seeds: int) -> None:
    for name in MEASURED:
        for sd, correlation in (TRAINING["none"], TRAINING["0.005"]):
            of = FoldParts(parts_of(name), sd**2, correlation)
            estimate = over_runs(simulate_folds(num_folds, num_seeds, 50, of, studies=20_000), 1 / (num_folds - 1))
            assert false_alarms(estimate) <= 0.055
            assert coverage(estimate, 0.0) >= 0.94
