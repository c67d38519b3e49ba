"""Statistics: worked by hand, against scipy, and calibrated on 20,000 simulated studies (`calibration.py`)."""

import math

import numpy as np
import pytest
from scipy import stats

from calibration import UNEQUAL, coverage, equivalences, false_alarms, finds, one_of, plain_finds, simulate
from dlx.statistics.collapse import collapsed_runs
from dlx.statistics.correction import holm
from dlx.statistics.estimate import equivalence_p, greater_p, interval, over_seeds, two_sided_p
from dlx.statistics.looks import false_alarm_rate
from dlx.statistics.power import SeedDesign, detectable_effect
from dlx.statistics.verdict import Verdict
from dlx.study.jitter import jitter
from made_runs import NAN, array, compare_one, paired, seeds_needed

STUDIES = 20_000


def tail_of_t_with_2_df(t):
    return 0.5 * (1 - t / math.sqrt(t * t + 2))


# paired tests


def test_paired_t_worked_by_hand():
    estimate = paired(1, 2, 3)  # standard deviation 1, t = 2 sqrt(3)
    assert estimate.mean == 2.0
    assert estimate.standard_error == pytest.approx(1 / math.sqrt(3))
    assert two_sided_p(estimate) == pytest.approx(2 * tail_of_t_with_2_df(2 * math.sqrt(3)))  # 0.074


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_differences_are_no_test(n):
    estimate = over_seeds(np.ones((3, n)))
    found = [two_sided_p(estimate), greater_p(estimate), equivalence_p(estimate, 0.1), *interval(estimate)]
    assert all(values.shape == (3,) and np.isnan(values).all() for values in found)


def test_differences_without_spread_are_certain():
    estimate = paired([0, 0, 0], [0.1, 0.1, 0.1], [-0.1, -0.1, -0.1])  # the computed mean of three 0.1 is not 0.1
    assert estimate.mean.tolist() == [0.0, 0.1, -0.1]
    assert estimate.standard_error.tolist() == [0.0, 0.0, 0.0]
    assert two_sided_p(estimate).tolist() == [1.0, 0.0, 0.0]
    assert greater_p(estimate).tolist() == [1.0, 0.0, 1.0]
    assert equivalence_p(estimate, 0.05).tolist() == [0.0, 1.0, 1.0]
    assert [end.tolist() for end in interval(estimate)] == [[0.0, 0.1, -0.1]] * 2


def test_interval_worked_by_hand():
    low, high = interval(paired(1, 2, 3))
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))  # t(0.975, 2 df)


def test_interval_excludes_0_just_where_the_p_is_below_5_percent():
    estimate = over_seeds(np.random.default_rng(1).normal(0.6, 1.0, (2000, 5)))
    low, high = interval(estimate)
    assert (((low > 0) | (high < 0)) == (two_sided_p(estimate) < 0.05)).all()


def test_equivalence_p_worked_by_hand():
    # standard error 1 / sqrt(3), so both t are 2 sqrt(3) at a margin of 2
    assert equivalence_p(paired(-1, 0, 1), 2.0) == pytest.approx(tail_of_t_with_2_df(2 * math.sqrt(3)))
    shifted_up, shifted_down = paired(-0.5, 0.5, 1.5), paired(-1.5, -0.5, 0.5)
    assert equivalence_p(shifted_up, 2.0) == pytest.approx(tail_of_t_with_2_df(1.5 * math.sqrt(3)))
    assert equivalence_p(shifted_down, 2.0) == pytest.approx(equivalence_p(shifted_up, 2.0))


def test_equivalence_is_shown_just_where_the_90_percent_interval_lies_within_the_margin():
    estimate = over_seeds(np.random.default_rng(2).normal(0.2, 1.0, (2000, 8)))
    low, high = interval(estimate, level=0.9)
    assert (((low > -1) & (high < 1)) == (equivalence_p(estimate, 1.0) < 0.05)).all()


def test_holm_worked_by_hand():
    adjusted = holm(array([0.01, 0.04, 0.03, 0.005], [0.5, 0.3, 0.4, 0.001]))
    assert adjusted[0].tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted[1].tolist() == pytest.approx([0.9, 0.9, 0.9, 0.004])


def test_holm_of_one_hypothesis_changes_nothing_and_never_exceeds_1():
    assert holm(array(0.03)).tolist() == [0.03]
    assert holm(array(0.9, 0.8)).tolist() == [1.0, 1.0]


def test_holm_counts_a_hypothesis_without_a_test():
    assert holm(array(0.01, NAN, 0.02)).tolist() == pytest.approx([0.03, NAN, 0.04], nan_ok=True)


def power_of_paired_t(ratio, n, *, alpha):
    return SeedDesign(1.0, n).power(ratio, alpha=alpha)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_the_published_tables(effect, n):
    # Cohen's d of a paired t test, two-sided 5 %, power 80 %, as G*Power 3.1 gives them
    assert seeds_needed(1.0, effect, alpha=0.05) == n
    assert seeds_needed(0.02, -0.02 * effect, alpha=0.05) == n


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8])
@pytest.mark.parametrize(("n", "ratio"), [(2, 5.0), (3, 3.0), (5, 1.0), (10, 1.0), (1000, 0.1)])
def test_power_is_that_of_the_noncentral_t_of_scipy(n, ratio, alpha):
    bound, shift = stats.t.isf(alpha / 2, n - 1), ratio * math.sqrt(n)
    expected = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
    assert power_of_paired_t(ratio, n, alpha=alpha) == pytest.approx(expected, abs=2e-5)


def test_power_is_known_where_the_noncentral_t_of_scipy_is_not():
    simulated = simulate(1, 5, studies=200_000, effects=[3.5777])  # 4 degrees of freedom, noncentrality 8: NaN there
    share = float((two_sided_p(over_seeds(simulated)) < 0.05 / 8).mean())
    assert power_of_paired_t(3.5777, 5, alpha=0.05 / 8) == pytest.approx(share, abs=0.003)


def test_seeds_needed_are_the_fewest():
    n = seeds_needed(0.02, 0.01, alpha=0.01)
    assert power_of_paired_t(0.5, n, alpha=0.01) >= 0.8 > power_of_paired_t(0.5, n - 1, alpha=0.01)


def test_seeds_needed_at_the_ends():
    assert seeds_needed(0.0, 0.01, alpha=0.05) == 2
    assert seeds_needed(1e-9, 0.01, alpha=0.05) == 2
    assert seeds_needed(1.0, 0.0029, alpha=0.05) < 1_000_000
    assert seeds_needed(1.0, 0.0027, alpha=0.05) is None
    assert seeds_needed(1.0, 0.0, alpha=0.05) is None


def test_the_detectable_effect_is_the_inverse_of_the_seeds_needed():
    effect = detectable_effect(SeedDesign(0.02**2, 5), alpha=0.01)
    assert power_of_paired_t(effect / 0.02, 5, alpha=0.01) == pytest.approx(0.8)
    assert seeds_needed(0.02, effect * 1.001, alpha=0.01) == 5
    assert seeds_needed(0.02, effect * 0.999, alpha=0.01) == 6


def test_without_an_error_any_effect_is_detectable():
    assert detectable_effect(SeedDesign(0.0, 5), alpha=0.05) == 0.0


# single runs


def test_jitter_worked_by_hand():
    # the line through 0, 1, 0 is flat at 1/3: squared residuals 1/9 + 4/9 + 1/9, over one degree of freedom
    assert jitter([8, 9, 10], [0.0, 1.0, 0.0], 10) == pytest.approx(math.sqrt(2 / 3))


def test_jitter_of_a_straight_line_is_zero():
    assert jitter(range(1, 41), [0.01 * epoch for epoch in range(1, 41)], 40) == pytest.approx(0.0, abs=1e-15)


def test_jitter_is_that_of_polyfit_over_the_last_quarter():
    values = np.random.default_rng(3).random(41)
    epochs = np.arange(1, 42)  # a quarter of 41, rounded up, is 11
    fit = np.polyfit(epochs[-11:], values[-11:], 1)
    residuals = values[-11:] - np.polyval(fit, epochs[-11:])
    assert jitter(epochs.tolist(), values.tolist(), 41) == pytest.approx(math.sqrt((residuals**2).sum() / 9))


def test_jitter_looks_at_three_epochs_of_a_short_run():
    assert jitter([1, 2, 3, 4], [9.0, 0.0, 1.0, 0.0], 4) == pytest.approx(math.sqrt(2 / 3))


def test_jitter_needs_three_measured_epochs():
    assert jitter([2, 4, 6, 8, 10], [0.1, 0.2, 0.1, 0.2, 0.1], 10) is None
    assert jitter([8, 9, 10], [0.1, None, 0.1], 10) is None
    assert jitter([], [], 0) is None


def test_collapsed_is_what_has_less_than_half_of_the_best():
    assert collapsed_runs({3: 0.8, 2: 0.39, 1: 0.0, 0: 0.4}) == (1, 2)
    assert collapsed_runs({0: 0.8, 1: None}) == (1,)


def test_all_collapsed_only_if_all_diverged():
    assert collapsed_runs({0: None, 1: None}) == (0, 1)
    assert collapsed_runs({0: 0.0, 1: 0.0}) == ()
    assert collapsed_runs({}) == ()


def test_a_variant_that_learns_badly_on_every_seed_did_not_collapse():
    assert collapsed_runs({0: 0.3, 1: 0.1, 2: 0.05}, reference=0.8) == ()
    assert collapsed_runs({0: 0.4, 1: 0.1}, reference=0.8) == (1,)
    assert collapsed_runs({0: 0.3, 1: None}, reference=0.8) == (1,)
    control = {0: 0.80, 1: 0.82, 2: 0.81}
    row = compare_one({0: 0.02, 1: 0.05, 2: 0.01}, control=control, declared=(0, 1, 2))
    assert row.verdict is Verdict.WORSE


# calibration: 20,000 simulated studies through the functions above


@pytest.mark.parametrize("spreads", [(1.0,), UNEQUAL], ids=["equal spreads", "unequal spreads"])
def test_without_an_effect_at_most_5_3_percent_of_studies_declare_any_variant_different(spreads):
    assert false_alarms(over_seeds(simulate(5, 5, studies=STUDIES, spreads=spreads))) <= 0.053


def test_an_effect_of_3_standard_deviations_in_one_of_8_variants_is_found_in_92_percent_and_not_in_81():
    estimate = over_seeds(simulate(8, 5, studies=STUDIES, effects=one_of(8, 3.0)))
    assert finds(estimate) >= 0.92
    assert plain_finds(estimate) == pytest.approx(0.81, abs=0.01)  # without moderated variances


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_the_uncorrected_interval_covers_the_truth_in_93_to_97_percent(num_seeds):
    truth = 2.0 * math.sqrt(2.0)  # the paired difference of runs of standard deviation 1 has sqrt(2)
    assert 0.93 <= coverage(over_seeds(simulate(5, num_seeds, studies=STUDIES, effects=[2.0])), truth) <= 0.97


@pytest.mark.parametrize("num_seeds", [5, 10])
def test_at_a_true_difference_of_the_margin_at_most_5_3_percent_of_studies_declare_equivalence(num_seeds):
    for num_variants in (1, 5):
        estimate = over_seeds(simulate(num_variants, num_seeds, studies=STUDIES, effects=[1.0]))
        assert equivalences(estimate, math.sqrt(2.0)) <= 0.053
        # the test itself, before a variant that differs is taken out
        assert (holm(equivalence_p(estimate, math.sqrt(2.0))) < 0.05).any(axis=-1).mean() <= 0.053


def test_looking_again_after_adding_seeds_raises_the_false_alarms_as_known():
    assert false_alarm_rate((3, 5), 1) == pytest.approx(0.085, abs=0.004)
    assert false_alarm_rate(tuple(range(5, 11)), 1) == pytest.approx(0.127, abs=0.005)
    assert false_alarm_rate((5,), 1) == pytest.approx(0.05, abs=0.004)


def test_the_rate_of_false_alarms_is_the_same_each_time_and_of_the_order_of_looks_independent():
    once = false_alarm_rate((3, 5), 2, studies=500)
    false_alarm_rate.cache_clear()
    assert false_alarm_rate((3, 5), 2, studies=500) == false_alarm_rate((5, 3), 2, studies=500) == once
