"""Variants against their control: differences paired by seed, their verdicts, and the noise floor of the study."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from dlx.statistics.decision import ALPHA, Decision, decide
from dlx.statistics.looks import warn_of_looks
from dlx.statistics.paired import Floats, interval, paired_t, spread
from dlx.statistics.power import detectable_effect, seeds_needed
from dlx.statistics.runs import Collapse, Values, find_collapse
from dlx.system.errors import SettingError


@dataclass(frozen=True)
class Comparison:
    """One variant against the control, over the n seeds that both have.

    `difference` (variant minus control) needs one pair, `spread` (standard deviation of the paired differences) two,
    and `interval` (95 %, uncorrected) all declared seeds: one that is shown earlier is a look. Both p are
    Holm-adjusted, and None where nothing was tested. `seeds_needed` is for finding the smallest effect of interest,
    given the spread, with 80 % power. `reason` may be empty.
    """

    label: str
    n: int
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    equivalence_p: float | None
    spread: float | None
    verdict: str
    reason: str
    seeds_needed: int | None


@dataclass(frozen=True)
class NoiseFloor:
    """What the seed alone does: the control's spread over its n seeds, and the median spread of the paired differences.

    `detectable_effect` is the smallest true difference that n pairs of that spread find with 80 % power after the
    correction for the number of variants. Spreads leave out what did not run through, and what collapsed: single runs
    of the control, whole variants.
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
    """The paired differences of one variant, and what stands in the way of a test: a verdict and its reason."""

    label: str
    differences: Floats
    obstacle: tuple[str, str] | None

    @property
    def spread(self) -> float | None:
        """None where it would say nothing: of fewer than two differences, or where something odd happened."""
        is_sound = self.obstacle is None or self.obstacle[0] == "incomplete"
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
    unlearned: Mapping[str, str] | None = None,
    earlier_looks: Sequence[int] = (),
) -> Comparisons:
    """Compares each variant with the control by the metric at the end of training, at the declared seeds.

    Other seeds are ignored. `collapses` and `control_collapse`, given together, are what `find_collapse` says of the
    validation Dice; without them the values are taken for Dice. `unreached` are the variants whose records equal the
    control's, `unmeasured` those whose runs ended without the metric, and why; `unlearned` those of which, as of the
    control, no run learned what the metric is of, and what that is: they are never called equal. `earlier_looks` are
    the numbers of seeds at which verdicts were shown before. SettingError unless `smallest_effect` is above 0.
    """
    if not smallest_effect > 0.0:
        raise SettingError(f"smallest effect {smallest_effect:g}: expected more than 0")
    if (collapses is None) != (control_collapse is None):
        raise ValueError("collapses and control_collapse go together")
    seeds, unlearned = sorted(set(declared_seeds)), unlearned or {}
    if collapses is None or control_collapse is None:
        control_collapse = find_collapse(control, control, seeds)
        collapses = {label: find_collapse(values, control, seeds) for label, values in variants.items()}
    of_control = control_collapse.describe(" of the control")
    pairs = []
    for label, values in variants.items():
        collapse = "; ".join(filter(None, (collapses[label].describe(), of_control)))
        pairs.append(_pair(label, values, control, seeds, collapse, label in unreached, (unmeasured or {}).get(label)))
    num_variants = len(pairs)
    table = [np.full(len(seeds), np.nan) if row.obstacle else row.differences for row in pairs]
    decision = decide(np.reshape(table, (num_variants, len(seeds))), smallest_effect)
    rows = []
    for i, row in enumerate(pairs):
        needed = None if row.spread is None else seeds_needed(row.spread, smallest_effect, alpha=ALPHA / num_variants)
        verdict, reason = row.obstacle or _judge(decision, i, len(seeds), smallest_effect, higher_is_better)
        if row.obstacle is None and decision.is_equivalent[i] and row.label in unlearned:
            verdict, reason = "cannot tell", unlearned[row.label]
        if decision.is_different[i] or decision.is_equivalent[i]:
            warning = warn_of_looks(earlier_looks, len(seeds), num_variants)
            reason = "; ".join(filter(None, [reason, warning]))
        rows.append(_summarize(row, decision, i, verdict, reason, needed))
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
    collapse: str,
    is_unreached: bool,
    unmeasured: str | None,
) -> _Pairs:
    both = [(values.get(seed), control.get(seed)) for seed in seeds]
    differences = np.array([a - b for a, b in both if _has_run(a) and _has_run(b)], dtype=np.float64)
    obstacle = None
    if is_unreached:
        obstacle = ("no effect: setting not reached", "every epoch and the final weights equal the control's")
    elif collapse:
        obstacle = ("collapsed", collapse)
    elif unmeasured is not None:
        obstacle = ("not measured", unmeasured)
    elif len(differences) < len(seeds):
        obstacle = ("incomplete", f"{len(differences)} of {len(seeds)} seeds")
    return _Pairs(label, differences, obstacle)


def _judge(decision: Decision, i: int, n: int, smallest_effect: float, higher_is_better: bool) -> tuple[str, str]:
    """Verdict and reason of a variant that was tested."""
    if decision.is_different[i]:
        low, high = (end[i] for end in decision.interval)
        is_small = -smallest_effect < low and high < smallest_effect
        verdict = "better" if (decision.difference[i] > 0.0) == higher_is_better else "worse"
        return verdict, f"but by less than {smallest_effect:g}" if is_small else ""
    if decision.is_equivalent[i]:
        return f"no difference larger than {smallest_effect:g}", ""
    if n < 2:
        return "cannot tell", "fewer than two seeds show no spread"
    low, high = (end[i] for end in decision.interval)
    num_variants = len(decision.difference)
    if low > 0.0 or high < 0.0:
        return "cannot tell", f"0 is outside the interval, but not after correction for {num_variants} variants"
    return "cannot tell", ""


def _summarize(row: _Pairs, decision: Decision, i: int, verdict: str, reason: str, needed: int | None) -> Comparison:
    low, high = interval(row.differences)
    p, p_equivalent = float(decision.p[i]), float(decision.equivalence_p[i])
    return Comparison(
        label=row.label,
        n=len(row.differences),
        difference=float(paired_t(row.differences).mean) if len(row.differences) else None,
        interval=(float(low), float(high)) if row.obstacle is None and len(row.differences) >= 2 else None,
        p=None if math.isnan(p) else p,
        equivalence_p=None if math.isnan(p_equivalent) else p_equivalent,
        spread=row.spread,
        verdict=verdict,
        reason=reason,
        seeds_needed=needed,
    )


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
