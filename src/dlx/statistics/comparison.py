"""Variants against their control: differences paired by seed, their verdicts, and the noise floor of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.collapse import Collapse, Values, finite
from dlx.statistics.decision import ALPHA, Decision, decide
from dlx.statistics.looks import cost_of_looks
from dlx.statistics.paired import Floats, interval, paired_t, spread
from dlx.statistics.power import detectable_effect, seeds_needed
from dlx.statistics.verdict import Verdict

Judgement = tuple[Verdict, tuple[why.Reason, ...]]


@dataclass(frozen=True)
class Comparison:
    """One variant against the control, over the n seeds that both have.

    `difference` (variant minus control) needs one pair, `spread` (standard deviation of the paired differences) two,
    and `interval` (95 %, uncorrected) all declared seeds: shown earlier, it would be a look. Both p are
    Holm-adjusted, and None where nothing was tested. `seeds_needed` is for finding the smallest effect of interest,
    given the spread, with 80 % power. `reasons` may be empty.
    """

    label: str
    n: int
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    equivalence_p: float | None
    spread: float | None
    verdict: Verdict
    reasons: tuple[why.Reason, ...]
    smallest_effect: float  # that of the equivalence tests
    seeds_needed: int | None


@dataclass(frozen=True)
class NoiseFloor:
    """The effect of the seed alone: the control's spread over n seeds.

    `detectable_effect` is the smallest true difference that n pairs find with 80 % power after the correction for the
    number of variants, given the median spread of the paired differences. Spreads leave out trials that did not finish,
    collapsed runs of the control, and all runs of a variant with a collapsed run.
    """

    n: int
    control_spread: float | None
    detectable_effect: float | None


@dataclass(frozen=True)
class Comparisons:
    """A row a variant, in the order given, and the noise floor."""

    rows: tuple[Comparison, ...]
    noise_floor: NoiseFloor


@dataclass(frozen=True)
class Runs:
    """The runs of a variant or of the control: their values of the metric, and what prevents a verdict on them."""

    values: Values
    collapse: Collapse  # found from their validation Dice, whatever the metric
    unreached: why.SameRecords | None = None
    unmeasured: why.NotMeasured | None = None
    unlearned: why.NothingLearned | None = None  # such runs are never called equal


@dataclass(frozen=True)
class _Pairs:
    """The paired differences of one variant, and its verdict and reasons if they cannot be tested."""

    differences: Floats
    obstacle: Judgement | None

    @property
    def spread(self) -> float | None:
        """None for fewer than two differences, and if something other than missing seeds prevents a test."""
        is_sound = self.obstacle is None or self.obstacle[0] is Verdict.INCOMPLETE
        return spread(self.differences) if is_sound and len(self.differences) >= 2 else None


def compare(
    control: Runs,
    variants: Mapping[str, Runs],
    *,
    declared_seeds: Sequence[int],
    smallest_effect: float,
    higher_is_better: bool = True,
    earlier_looks: Sequence[int] = (),
) -> Comparisons:
    """Compares each variant with the control by the metric at the end of training, at the declared seeds.

    Other seeds are ignored. `smallest_effect` is above 0. `earlier_looks` are the numbers of seeds at which verdicts
    were shown before.
    """
    seeds, num_variants = sorted(set(declared_seeds)), len(variants)
    pairs = {label: _pair(runs, control, seeds) for label, runs in variants.items()}
    table = [np.full(len(seeds), np.nan) if row.obstacle else row.differences for row in pairs.values()]
    decision = decide(np.reshape(table, (num_variants, len(seeds))), smallest_effect)
    rows = []
    for i, (label, row) in enumerate(pairs.items()):
        verdict, reasons = row.obstacle or _judge(decision, i, len(seeds), smallest_effect, higher_is_better)
        unlearned = variants[label].unlearned
        if verdict is Verdict.NO_DIFFERENCE and unlearned is not None:
            verdict, reasons = Verdict.CANNOT_TELL, (unlearned,)
        if decision.is_different[i] or decision.is_equivalent[i]:
            reasons += cost_of_looks(earlier_looks, len(seeds), num_variants)
        needed = None if row.spread is None else seeds_needed(row.spread, smallest_effect, alpha=ALPHA / num_variants)
        low, high = interval(row.differences)
        rows.append(
            Comparison(
                label=label,
                n=len(row.differences),
                difference=float(paired_t(row.differences).mean) if len(row.differences) else None,
                interval=(float(low), float(high)) if row.obstacle is None and len(row.differences) >= 2 else None,
                p=finite(float(decision.p[i])),
                equivalence_p=finite(float(decision.equivalence_p[i])),
                spread=row.spread,
                verdict=verdict,
                reasons=reasons,
                smallest_effect=smallest_effect,
                seeds_needed=needed,
            )
        )
    spreads = [row.spread for label, row in pairs.items() if row.spread is not None and not variants[label].unlearned]
    return Comparisons(tuple(rows), _noise_floor(control, seeds, spreads, num_variants))


def _pair(runs: Runs, control: Runs, seeds: Sequence[int]) -> _Pairs:
    both = [(finite(runs.values.get(seed)), finite(control.values.get(seed))) for seed in seeds]
    differences = np.array([a - b for a, b in both if a is not None and b is not None], dtype=np.float64)
    obstacle: Judgement | None = None
    if runs.unreached is not None:
        obstacle = (Verdict.NO_EFFECT, (runs.unreached,))
    elif runs.collapse or control.collapse:
        obstacle = (Verdict.COLLAPSED, (why.CollapsedPair(runs.collapse, control.collapse),))
    elif runs.unmeasured is not None:
        obstacle = (Verdict.NOT_MEASURED, (runs.unmeasured,))
    elif len(differences) < len(seeds):
        obstacle = (Verdict.INCOMPLETE, (why.MissingSeeds(len(differences), len(seeds)),))
    return _Pairs(differences, obstacle)


def _judge(decision: Decision, i: int, n: int, smallest_effect: float, higher_is_better: bool) -> Judgement:
    """Verdict and reasons of a variant that was tested."""
    low, high = (end[i] for end in decision.interval)
    if decision.is_different[i]:
        is_small = -smallest_effect < low and high < smallest_effect
        verdict = Verdict.BETTER if (decision.difference[i] > 0.0) == higher_is_better else Verdict.WORSE
        return verdict, (why.SmallDifference(smallest_effect),) if is_small else ()
    if decision.is_equivalent[i]:
        return Verdict.NO_DIFFERENCE, ()
    if n < 2:
        return Verdict.CANNOT_TELL, (why.TooFewSeeds(),)
    is_lost = low > 0.0 or high < 0.0
    return Verdict.CANNOT_TELL, (why.LostByCorrection(len(decision.difference)),) if is_lost else ()


def _noise_floor(control: Runs, seeds: Sequence[int], spreads: Sequence[float], num_variants: int) -> NoiseFloor:
    healthy = [seed for seed in seeds if seed not in control.collapse.all_seeds]
    known = [value for seed in healthy if (value := finite(control.values.get(seed))) is not None]
    n, detectable = len(known), None
    if spreads:
        detectable = detectable_effect(float(np.median(spreads)), n, alpha=ALPHA / num_variants)
    return NoiseFloor(
        n=n,
        control_spread=spread(np.array(known, dtype=np.float64)) if n >= 2 else None,
        detectable_effect=detectable,
    )
