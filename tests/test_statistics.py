"""Statistics: worked by hand, against scipy, and calibrated on 20,000 simulated studies (`calibration.py`)."""

import math

import numpy as np
import pytest
from scipy import stats

from calibration import UNEQUAL, coverage, equivalences, false_alarms, finds, one_of, plain_finds, simulate
from dlx.statistics import reasons as why
from dlx.statistics.claims import Estimate, Quantity, judge_best, judge_greater, judge_less, judge_within, trend_weights
from dlx.statistics.collapse import Collapse, collapsed_runs, find_collapse
from dlx.statistics.comparison import Comparison, Design, Pairs, Runs, compare
from dlx.statistics.correction import holm
from dlx.statistics.decision import decide
from dlx.statistics.estimate import equivalence_p, greater_p, interval, over_seeds, two_sided_p
from dlx.statistics.looks import false_alarm_rate
from dlx.statistics.power import Needed, SeedDesign, detectable_effect, needed
from dlx.statistics.verdict import Verdict
from dlx.study.jitter import jitter
from dlx.study.scope import Scope

NAN = math.nan
STUDIES = 20_000
SEEDS = range(5)


def array(*values):
    return np.array(values, dtype=np.float64)


def paired(*values):
    """The estimate of these differences, or of each of these lists of differences, for new seeds."""
    return over_seeds(array(*values))


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


# seeds and power


def seeds_needed(spread, effect, *, alpha):
    return needed(SeedDesign(spread**2, 5), effect, alpha=alpha).seeds


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


# the comparison of a study

SAME = why.SameRecords(is_plateau=False)


def runs(*values):
    return dict(enumerate(values))


def shifted(control, *differences):
    return {seed: control[seed] + d for seed, d in enumerate(differences)}


CONTROL = runs(0.80, 0.81, 0.79, 0.82, 0.80)
GOOD = shifted(CONTROL, 0.040, 0.042, 0.041, 0.039, 0.043)
NOISY = shifted(CONTROL, 0.02, -0.03, 0.01, 0.04, -0.02)
ALIKE = shifted(CONTROL, 0.001, -0.001, 0.0, 0.0005, -0.0005)


def compare_dice(control, variants, *, declared=SEEDS, smallest_effect=0.01, **changes):
    """Compares values that are validation Dice, so that collapsed runs are found from them."""
    runs_of = {
        label: values if isinstance(values, Runs) else Runs(values, find_collapse(values, control, declared))
        for label, values in {"control": control, **variants}.items()
    }
    of_control = runs_of.pop("control")
    return compare(of_control, runs_of, Design(tuple(declared), smallest_effect, **changes))


def compare_one(values, control=CONTROL, **changes) -> Comparison:
    return compare_dice(control, {"variant": values}, **changes).rows[0]


def with_obstacle(values, **obstacle):
    """Runs with a reason that prevents a verdict, of which some may have collapsed."""
    return Runs(values, find_collapse(values, CONTROL, SEEDS), **obstacle)


def collapsed_seeds_of(variant=(), control=(), num_runs=5):
    """The reasons of a comparison with these collapsed runs."""
    return (why.CollapsedPair(Collapse(tuple(variant), num_runs), Collapse(tuple(control), 5)),)


def test_a_comparison_holds_the_numbers_of_its_pairs():
    row = compare_one(NOISY)
    differences = array(0.02, -0.03, 0.01, 0.04, -0.02)
    assert row.num_pairs == row.headline.n == 5
    assert row.difference == pytest.approx(0.004)
    assert row.spread == pytest.approx(differences.std(ddof=1))
    assert row.interval == pytest.approx(tuple(float(end) for end in interval(over_seeds(differences))))
    assert row.p == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue)
    assert row.headline.equivalence_p == pytest.approx(equivalence_p(over_seeds(differences), 0.01))
    assert row.needed == Needed(seeds_needed(row.spread, 0.01, alpha=0.05))
    assert (row.verdict, row.reasons) == (Verdict.CANNOT_TELL, ())


def test_better_and_worse_follow_the_direction_of_the_metric():
    assert compare_one(GOOD).verdict is Verdict.BETTER
    assert compare_one(GOOD, higher_is_better=False).verdict is Verdict.WORSE
    assert compare_one(CONTROL, control=GOOD).verdict is Verdict.WORSE
    assert compare_one(CONTROL, control=GOOD, higher_is_better=False).verdict is Verdict.BETTER


def test_a_difference_below_the_smallest_effect_has_a_reason_that_names_it():
    row = compare_one(GOOD, smallest_effect=0.05)
    assert (row.verdict, row.reasons) == (Verdict.BETTER, (why.SmallDifference(0.05),))
    assert compare_one(GOOD).reasons == ()


def test_no_difference_is_shown_not_assumed():
    assert compare_one(ALIKE).verdict is Verdict.NO_DIFFERENCE
    assert compare_one(ALIKE, smallest_effect=0.0005).verdict is Verdict.CANNOT_TELL


def test_an_interval_within_the_smallest_effect_that_is_lost_by_correction_has_a_reason():
    variants = {f"v{i}": shifted(CONTROL, *[0.003 * sign for sign in (1, -1, 0.5, -0.6, 0.9)]) for i in range(8)}
    row = compare_dice(CONTROL, variants, smallest_effect=0.0045).rows[0]
    assert (row.verdict, row.reasons) == (Verdict.CANNOT_TELL, (why.LostByCorrection(8, within=0.0045),))
    assert (
        compare_dice(CONTROL, {"v0": variants["v0"]}, smallest_effect=0.0045).rows[0].verdict is Verdict.NO_DIFFERENCE
    )


def test_runs_equal_to_the_controls_by_chance_show_no_difference():
    row = compare_one(CONTROL)
    assert (row.difference, row.spread, row.p, row.verdict) == (0.0, 0.0, 1.0, Verdict.NO_DIFFERENCE)


def test_the_p_are_corrected_for_all_variants_in_the_order_given():
    result = compare_dice(CONTROL, {"b": GOOD, "a": NOISY})
    alone = {label: compare_one(values).p for label, values in (("b", GOOD), ("a", NOISY))}
    assert [row.label for row in result.rows] == ["b", "a"]
    assert [row.p for row in result.rows] == pytest.approx(holm(array(alone["b"], alone["a"])).tolist())


def test_a_setting_that_was_not_reached_gets_no_interval_whatever_its_numbers():
    row = compare_one(with_obstacle(GOOD, unreached=SAME))
    assert (row.verdict, row.reasons, row.interval, row.p) == (Verdict.NO_EFFECT, (SAME,), None, None)


def test_a_collapse_is_named_and_gets_neither_interval_nor_p():
    row = compare_one(runs(0.8, 0.1, 0.8, None, 0.8))
    assert (row.verdict, row.reasons) == (Verdict.COLLAPSED, collapsed_seeds_of((1, 3)))
    assert (row.num_pairs, row.interval, row.p, row.headline.equivalence_p, row.spread, row.needed) == (4, *[None] * 5)


def test_a_collapse_of_the_control_is_reported_for_every_variant():
    row = compare_one(GOOD, control=CONTROL | {2: 0.01})
    assert (row.verdict, row.reasons) == (Verdict.COLLAPSED, collapsed_seeds_of(control=(2,)))
    row = compare_one(GOOD | {4: None}, control=CONTROL | {2: 0.01})
    assert row.reasons == collapsed_seeds_of((4,), control=(2,))


def test_a_variant_that_diverged_on_every_seed_is_reported_as_such():
    row = compare_one(dict.fromkeys(SEEDS))
    assert (row.verdict, row.reasons, row.difference) == (Verdict.COLLAPSED, collapsed_seeds_of(SEEDS), None)
    assert compare_one({2: NAN}).reasons == collapsed_seeds_of((2,), num_runs=1)


def test_a_collapse_comes_before_missing_seeds_and_after_an_unreached_setting():
    collapsed_and_incomplete = {0: 0.8, 1: 0.1}
    assert compare_one(collapsed_and_incomplete).reasons == collapsed_seeds_of((1,), num_runs=2)
    assert compare_one(with_obstacle(collapsed_and_incomplete, unreached=SAME)).verdict is Verdict.NO_EFFECT


def test_collapse_is_found_by_validation_dice_for_any_metric():
    gap, gap_of_control = runs(0.30, 0.02, 0.28, 0.29, 0.31), runs(0.1, 0.01, 0.12, 0.11, 0.1)
    assert compare_one(gap, control=gap_of_control).verdict is Verdict.COLLAPSED  # the gaps mistaken for Dice
    control = Runs(gap_of_control, find_collapse(CONTROL, CONTROL, SEEDS))
    healthy = Runs(gap, find_collapse(NOISY, CONTROL, SEEDS))
    sick = Runs(gap, find_collapse(NOISY | {4: 0.2}, CONTROL, SEEDS))
    rows = compare(control, {"a": healthy, "b": sick}, Design(tuple(SEEDS), 0.01)).rows
    assert rows[0].verdict is Verdict.BETTER
    assert rows[1].reasons == collapsed_seeds_of((4,))


def test_missing_seeds_make_a_comparison_incomplete_without_a_p_and_an_interval_that_would_be_a_look():
    row = compare_one({seed: GOOD[seed] for seed in (0, 2, 3)})
    assert (row.verdict, row.reasons, row.num_pairs, row.p) == (Verdict.INCOMPLETE, (why.MissingRuns(3, 5),), 3, None)
    assert row.interval is None
    assert row.difference == pytest.approx(0.04)
    assert row.spread == pytest.approx(0.001)  # the seeds needed follow from it, and it tells of no direction
    assert (compare_one({}).difference, compare_one({}).reasons) == (None, (why.MissingRuns(0, 5),))


def test_a_metric_that_no_run_has_is_not_measured_and_not_incomplete():
    reason = why.NotMeasured("validation every 5 epochs")
    row = compare_one(with_obstacle({}, unmeasured=reason))
    assert (row.verdict, row.reasons, row.num_pairs) == (Verdict.NOT_MEASURED, (reason,), 0)


def test_a_variant_without_a_test_counts_in_the_correction_of_the_others():
    variants = {"missing": {}, "collapsed": GOOD | {0: 0.0}, "good": GOOD}
    row = compare_dice(CONTROL, variants).rows[2]
    assert row.p == pytest.approx(3 * compare_one(GOOD).p)


def test_seeds_beyond_the_declared_ones_are_ignored():
    more = {5: 0.0, 6: None}
    assert compare_one(GOOD | more, control=CONTROL | {5: 0.9, 6: 0.9}) == compare_one(GOOD)
    assert compare_one(GOOD | {5: 0.85}, control=CONTROL | {5: 0.8}, declared=range(6)).num_pairs == 6


def test_one_seed_cannot_tell():
    row = compare_one(GOOD, declared=[0])
    assert (row.verdict, row.reasons, row.interval, row.p) == (
        Verdict.CANNOT_TELL,
        (why.TooFew(Scope.SEEDS),),
        None,
        None,
    )
    assert row.difference == pytest.approx(0.04)


@pytest.mark.parametrize("values", [GOOD, ALIKE])
def test_a_verdict_after_an_earlier_look_says_that_it_is_no_5_percent_one(values):
    plain, looked = compare_one(values), compare_one(values, earlier_looks=[3])
    rate = false_alarm_rate((3, 5), 1)
    assert (looked.verdict, looked.reasons) == (plain.verdict, (why.EarlierLooks((3,), rate),))


def test_earlier_looks_that_could_decide_nothing_are_not_warned_of():
    assert compare_one(GOOD, earlier_looks=[1, 5]).reasons == ()
    assert compare_one(NOISY, earlier_looks=[3]) == compare_one(NOISY)
    (looks,) = compare_one(GOOD, earlier_looks=[3, 2, 3]).reasons
    assert looks.num_runs == (2, 3)


def test_the_noise_floor_holds_the_spread_of_the_control_and_the_median_one_of_the_differences():
    unreached = with_obstacle(CONTROL, unreached=SAME)
    variants = {"a": GOOD, "b": NOISY, "c": ALIKE, "collapsed": GOOD | {0: 0.0}, "unreached": unreached}
    result = compare_dice(CONTROL, variants)
    floor, spreads = result.noise_floor, [row.spread for row in result.rows]
    assert floor.n == 5
    assert floor.control_spread == pytest.approx(np.std(list(CONTROL.values()), ddof=1))
    assert spreads[3:] == [None, None]
    median = SeedDesign(sorted(spreads[:3])[1] ** 2, 5)
    assert floor.detectable_effect == pytest.approx(detectable_effect(median, alpha=0.05 / 5))


def test_the_noise_floor_leaves_out_a_run_of_the_control_that_collapsed():
    control = CONTROL | {1: 0.05, 3: None}  # 0.80, 0.79 and 0.80 are left
    floor = compare_dice(control, {"a": GOOD}).noise_floor
    assert floor.n == 3
    assert floor.control_spread == pytest.approx(math.sqrt(1e-4 / 3.0))
    assert floor.detectable_effect is None


def test_a_control_alone_has_a_noise_floor():
    result = compare_dice(CONTROL, {})
    floor = result.noise_floor
    assert result.rows == ()
    assert (floor.n, floor.detectable_effect) == (5, None)
    assert floor.control_spread == pytest.approx(np.std(list(CONTROL.values()), ddof=1))


def test_compare_declares_what_decide_does():
    rng = np.random.default_rng(4)
    seen = set()
    for _ in range(20):
        control = 0.8 + 0.01 * rng.standard_normal(5)
        variants = control + 0.01 * rng.standard_normal((4, 5)) * [[1], [0.2], [1], [0.2]] + [[0], [0], [0.04], [0.005]]
        estimate = over_seeds(variants - control)
        decision = decide(estimate, 0.01)
        named = {f"v{i}": runs(*values.tolist()) for i, values in enumerate(variants)}
        rows = compare_dice(runs(*control.tolist()), named).rows
        assert [row.verdict in (Verdict.BETTER, Verdict.WORSE) for row in rows] == decision.is_different.tolist()
        assert [row.verdict is Verdict.NO_DIFFERENCE for row in rows] == decision.is_equivalent.tolist()
        assert [row.p for row in rows] == decision.p.tolist()
        assert [row.interval[0] for row in rows] == pytest.approx(interval(estimate)[0].tolist())
        seen |= {row.verdict for row in rows}
    assert seen >= {Verdict.BETTER, Verdict.NO_DIFFERENCE, Verdict.CANNOT_TELL}


# claims


def quantity(values):
    """A quantity with one value a seed."""
    pairs = Pairs(values if isinstance(values, dict) else runs(*values), None)
    return Quantity(Scope.SEEDS, len(pairs.differences), len(pairs.differences), pairs.estimate(Scope.SEEDS, None))


def advantages(values, label, sign=1.0):
    """The advantage of a variant over each of the others, over the seeds that both have."""
    mine = values[label]
    rivals = {name: theirs for name, theirs in values.items() if name != label}
    return {
        name: quantity({seed: sign * (mine[seed] - theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())})
        for name, theirs in rivals.items()
    }


def test_an_estimate_is_the_mean_over_seeds_and_its_interval():
    estimate = Estimate((1.0, 2.0, 3.0))
    assert (estimate.n, estimate.mean) == (3, 2.0)
    assert estimate.interval == pytest.approx(tuple(float(end) for end in interval(paired(1, 2, 3))))
    assert (Estimate((1.0,)).mean, Estimate((1.0,)).interval, Estimate(()).mean) == (1.0, None, None)


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ((1.0, 1.1, 0.9), 0.0, Verdict.CONFIRMED),  # 0.75 to 1.25
        ((1.0, 1.1, 0.9), 0.7, Verdict.CONFIRMED),
        ((1.0, 1.1, 0.9), 0.8, Verdict.CANNOT_TELL),
        ((1.0, 1.1, 0.9), 1.3, Verdict.NOT_CONFIRMED),
        ((-1.0, -1.1, -0.9), 0.0, Verdict.CONTRADICTED),
        ((-1.0, -1.1, -0.9), 0.7, Verdict.CONTRADICTED),
        ((-1.0, -1.1, -0.9), 0.8, Verdict.NOT_CONFIRMED),
        ((1.0, -1.0, 0.5), 0.0, Verdict.CANNOT_TELL),
        ((0.0, 0.0, 0.0), 0.0, Verdict.NOT_CONFIRMED),
        ((1.0,), 0.0, Verdict.CANNOT_TELL),
        ((), 0.0, Verdict.CANNOT_TELL),
    ],
)
def test_a_quantity_is_greater_where_its_interval_is(values, margin, verdict):
    judged = judge_greater(quantity(values), margin)
    opposite = judge_less(quantity([-value for value in values]), margin)
    assert opposite.verdict is verdict
    assert (judged.verdict, judged.n) == (verdict, len(values))


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ((0.1, 0.0, -0.1), 0.2, Verdict.CONFIRMED),  # 90 % interval: 0.17
        ((0.1, 0.0, -0.1), 0.15, Verdict.CANNOT_TELL),
        ((1.0, 1.1, 0.9), 0.7, Verdict.CONTRADICTED),
        ((-1.0, -1.1, -0.9), 0.7, Verdict.CONTRADICTED),
        ((1.0, 1.1, 0.9), 0.8, Verdict.CANNOT_TELL),
        ((0.1,), 0.2, Verdict.CANNOT_TELL),
    ],
)
def test_a_quantity_is_within_the_margin_where_two_one_sided_tests_say_so(values, margin, verdict):
    assert judge_within(quantity(values), margin).verdict == verdict


def test_the_best_is_better_than_each_of_the_others():
    judged = judge_best(advantages({"control": CONTROL, "good": GOOD, "alike": ALIKE}, "good"))
    assert (judged.verdict, judged.n) == (Verdict.CONFIRMED, 5)
    assert judged.estimate == pytest.approx(0.041)
    assert judge_best(advantages({"control": CONTROL, "good": GOOD, "alike": ALIKE}, "alike")).reasons == (
        why.AgainstRivals(("good",)),
    )
    judged = judge_best(advantages({"control": CONTROL, "good": GOOD}, "control", sign=-1.0))
    assert judged.verdict is Verdict.CONFIRMED


def test_the_best_by_chance_is_not_confirmed():
    judged = judge_best(
        advantages({"control": CONTROL, "noisy": NOISY, "bad": shifted(CONTROL, *[-0.2, -0.21] * 2)}, "noisy")
    )
    assert (judged.verdict, judged.reasons) == (Verdict.CANNOT_TELL, (why.AgainstRivals(("control",)),))


def test_one_better_rival_contradicts_and_the_estimate_is_what_is_lost_to_it():
    judged = judge_best(advantages({"control": CONTROL, "good": GOOD, "noisy": NOISY}, "control"))
    assert judged.verdict is Verdict.CONTRADICTED
    assert judged.estimate == pytest.approx(-0.041)


def test_a_rival_must_beat_the_claimed_best_by_a_corrected_test():
    # one-sided p of the rival is 0.020 (2 degrees of freedom, t = 4.91): below 0.025 against one, not doubled among two
    claimed, rival = runs(0.0, 0.0, 0.0), runs(0.15, 0.2, 0.3)
    third = runs(-0.1, 0.1, 0.0)
    assert judge_best(advantages({"claimed": claimed, "rival": rival}, "claimed")).verdict is Verdict.CONTRADICTED
    assert (
        judge_best(advantages({"claimed": claimed, "rival": rival, "third": third}, "claimed")).verdict
        is Verdict.CANNOT_TELL
    )


def test_the_best_is_paired_by_seed_and_needs_two_shared_seeds_with_each():
    judged = judge_best(advantages({"good": GOOD, "control": CONTROL, "short": {7: 0.1, 0: 0.1}}, "good"))
    assert (judged.verdict, judged.n, judged.reasons) == (Verdict.CANNOT_TELL, 1, (why.TooFew(Scope.SEEDS, "short"),))
    assert judge_best(advantages({"good": GOOD, "control": {seed: CONTROL[seed] for seed in (3, 1)}}, "good")).n == 2


def test_the_weights_of_a_trend_give_the_slope_of_polyfit():
    x = [0.1, 0.2, 0.4, 0.8]
    values = np.random.default_rng(5).random((6, 4))
    assert values @ trend_weights(x) == pytest.approx(np.polyfit(x, values.T, 1)[0])
    assert trend_weights([1, 2, 3]) == pytest.approx([-0.5, 0.0, 0.5])


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
