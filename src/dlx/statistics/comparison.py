"""Variants against their control: differences paired by seed, their verdicts, and the noise floor of the study."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.collapse import Collapse, Values, find_collapse
from dlx.statistics.decision import ALPHA, Decision, decide
from dlx.statistics.looks import cost_of_looks
from dlx.statistics.paired import Floats, interval, paired_t, spread
from dlx.statistics.power import detectable_effect, seeds_needed
from dlx.statistics.verdict import Verdict
from dlx.system.errors import SettingError


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
    """The effect of the seed alone: the control's spread over n seeds, the median spread of the paired differences.

    `detectable_effect` is the smallest true difference that n pairs of that spread find with 80 % power after the
    correction for the number of variants. Spreads leave out trials that did not finish, collapsed runs of the control,
    and all runs of a variant with a collapsed run.
    """

    n: int
    control_spread: float | None
    difference_spread: float | None
    detectable_effect: float | None


@dataclass(frozen=True)
class Comparisons:
    """A row a variant, in the order given, and the noise floor."""

    rows: tuple[Comparison, ...]
    noise_floor: NoiseFloor


@dataclass(frozen=True)
class _Pairs:
    """The paired differences of one variant, and its verdict and reasons if they cannot be tested."""

    label: str
    differences: Floats
    obstacle: tuple[Verdict, tuple[why.Reason, ...]] | None

    @property
    def spread(self) -> float | None:
        """None for fewer than two differences, and if something other than missing seeds prevents a test."""
        is_sound = self.obstacle is None or self.obstacle[0] is Verdict.INCOMPLETE
        return spread(self.differences) if is_sound and len(self.differences) >= 2 else None


def compare(
    control: Values,
    variants: Mapping[str, Values],
    *,
    declared_seeds: Sequence[int],
    smallest_effect: float,
    higher_is_better: bool = True,
    collapses: Mapping[str, Collapse] | None = None,
    control_collapse: Collapse | None = None,
    unreached: Collection[str] = (),
    unmeasured: Mapping[str, str] | None = None,
    unlearned: Mapping[str, str | None] | None = None,
    earlier_looks: Sequence[int] = (),
) -> Comparisons:
    """Compares each variant with the control by the metric at the end of training, at the declared seeds.

    Other seeds are ignored. `collapses` and `control_collapse`, given together, are what `find_collapse` says of the
    validation Dice; without them the values are taken for Dice. `unreached` are the variants whose records equal the
    control's, `unmeasured` those whose runs ended without the metric, and why; `unlearned` those that are never called
    equal, as neither they nor the control learned the metric's class (None: any class). `earlier_looks` are the numbers
    of seeds at which verdicts were shown before. SettingError unless `smallest_effect` is above 0.
    """
    if not smallest_effect > 0.0:
        raise SettingError(f"smallest effect {smallest_effect:g}: expected more than 0")
    if (collapses is None) != (control_collapse is None):
        raise ValueError("collapses and control_collapse go together")
    seeds, unlearned = sorted(set(declared_seeds)), unlearned or {}
    if collapses is None or control_collapse is None:
        control_collapse = find_collapse(control, control, seeds)
        collapses = {label: find_collapse(values, control, seeds) for label, values in variants.items()}
    pairs = []
    for label, values in variants.items():
        collapse = why.CollapsedPair(collapses[label], control_collapse)
        pairs.append(_pair(label, values, control, seeds, collapse, label in unreached, (unmeasured or {}).get(label)))
    num_variants = len(pairs)
    table = [np.full(len(seeds), np.nan) if row.obstacle else row.differences for row in pairs]
    decision = decide(np.reshape(table, (num_variants, len(seeds))), smallest_effect)
    rows = []
    for i, row in enumerate(pairs):
        needed = None if row.spread is None else seeds_needed(row.spread, smallest_effect, alpha=ALPHA / num_variants)
        verdict, reasons = row.obstacle or _judge(decision, i, len(seeds), smallest_effect, higher_is_better)
        if row.obstacle is None and decision.is_equivalent[i] and row.label in unlearned:
            verdict, reasons = Verdict.CANNOT_TELL, (why.NothingLearned(unlearned[row.label]),)
        if decision.is_different[i] or decision.is_equivalent[i]:
            reasons += cost_of_looks(earlier_looks, len(seeds), num_variants)
        low, high = interval(row.differences)
        rows.append(
            Comparison(
                label=row.label,
                n=len(row.differences),
                difference=float(paired_t(row.differences).mean) if len(row.differences) else None,
                interval=(float(low), float(high)) if row.obstacle is None and len(row.differences) >= 2 else None,
                p=_known(decision.p[i]),
                equivalence_p=_known(decision.equivalence_p[i]),
                spread=row.spread,
                verdict=verdict,
                reasons=reasons,
                smallest_effect=smallest_effect,
                seeds_needed=needed,
            )
        )
    healthy = [seed for seed in seeds if seed not in control_collapse.all_seeds]
    learned = [row for row in pairs if row.label not in unlearned]
    return Comparisons(tuple(rows), _noise_floor(control, learned, healthy, num_variants))


def _has_run(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _pair(
    label: str,
    values: Values,
    control: Values,
    seeds: Sequence[int],
    collapse: why.CollapsedPair,
    is_unreached: bool,
    unmeasured: str | None,
) -> _Pairs:
    both = [(values.get(seed), control.get(seed)) for seed in seeds]
    differences = np.array([a - b for a, b in both if _has_run(a) and _has_run(b)], dtype=np.float64)
    obstacle: tuple[Verdict, tuple[why.Reason, ...]] | None = None
    if is_unreached:
        obstacle = (Verdict.NO_EFFECT, ())
    elif collapse.variant or collapse.control:
        obstacle = (Verdict.COLLAPSED, (collapse,))
    elif unmeasured is not None:
        obstacle = (Verdict.NOT_MEASURED, (why.NotMeasured(unmeasured),))
    elif len(differences) < len(seeds):
        obstacle = (Verdict.INCOMPLETE, (why.MissingSeeds(len(differences), len(seeds)),))
    return _Pairs(label, differences, obstacle)


def _judge(
    decision: Decision, i: int, n: int, smallest_effect: float, higher_is_better: bool
) -> tuple[Verdict, tuple[why.Reason, ...]]:
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


def _known(p: float) -> float | None:
    """None for NaN: nothing was tested."""
    return None if math.isnan(p) else float(p)


def _noise_floor(control: Values, pairs: Sequence[_Pairs], seeds: Sequence[int], num_variants: int) -> NoiseFloor:
    known = np.array([value for seed in seeds if _has_run(value := control.get(seed))], dtype=np.float64)
    spreads = [row.spread for row in pairs if row.spread is not None]
    median = float(np.median(spreads)) if spreads else None
    n = len(known)
    return NoiseFloor(
        n=n,
        control_spread=spread(known) if n >= 2 else None,
        difference_spread=median,
        detectable_effect=None if median is None else detectable_effect(median, n, alpha=ALPHA / num_variants),
    )
