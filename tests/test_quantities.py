"""Claims about one quantity: an estimate with its interval, against a margin or against rivals."""

import numpy as np
import pytest

from dlx.statistics import reasons as why
from dlx.statistics.claims import Estimate, Quantity, judge_best, judge_greater, judge_less, judge_within, trend_weights
from dlx.statistics.comparison import Pairs
from dlx.statistics.estimate import interval
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope
from made_runs import ALIKE, CONTROL, GOOD, NOISY, paired, runs, shifted

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
