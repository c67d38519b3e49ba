"""Comparisons of variants with a control: verdicts, reasons, collapse, missing runs, and the noise floor."""

import math

import numpy as np
import pytest
from scipy import stats

from dlx.statistics import reasons as why
from dlx.statistics.collapse import find_collapse
from dlx.statistics.comparison import Design, Runs, compare
from dlx.statistics.correction import holm
from dlx.statistics.decision import decide
from dlx.statistics.estimate import equivalence_p, interval, over_seeds
from dlx.statistics.looks import false_alarm_rate
from dlx.statistics.power import Needed, SeedDesign, detectable_effect
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope
from made_runs import (
    ALIKE,
    CONTROL,
    GOOD,
    NAN,
    NOISY,
    SAME,
    SEEDS,
    array,
    collapsed_seeds_of,
    compare_dice,
    compare_one,
    runs,
    seeds_needed,
    shifted,
    with_obstacle,
)


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
