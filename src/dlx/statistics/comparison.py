"""Variants against their control: differences paired by seed, their verdicts, and the noise floor of the study."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from dlx.errors import SettingError
from dlx.statistics.decision import ALPHA, Decision, decide, false_alarm_rate
from dlx.statistics.paired import Floats, interval, paired_t
from dlx.statistics.power import detectable_effect, seeds_needed
from dlx.statistics.runs import collapsed_seeds

Values = Mapping[int, float | None]  # by seed: a missing one has not run yet, None diverged or failed


@dataclass(frozen=True)
class Comparison:
    """One variant against the control, over the n seeds that both have.

    `difference` (variant minus control) needs one pair, `interval` (95 %, uncorrected) and `spread` (standard deviation
    of the paired differences) two. Both p are Holm-adjusted, and None where nothing was tested. `seeds_needed` is for
    finding the smallest effect of interest, given the spread, with 80 % power. `reason` may be empty.
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
    correction for the number of variants. Spreads leave out what did not run through, and variants that collapsed.
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
    def is_sound(self) -> bool:
        """True where the differences may be summed up by an interval and a spread: two at least, and none odd."""
        return len(self.differences) >= 2 and (self.obstacle is None or self.obstacle[0] == "incomplete")

    @property
    def spread(self) -> float | None:
        return _spread(self.differences) if self.is_sound else None


def compare(
    control: Values,
    variants: Mapping[str, Values],
    *,
    declared_seeds: Sequence[int],
    smallest_effect: float,
    higher_is_better: bool = True,
    dice: Mapping[str, Values] | None = None,
    control_dice: Values | None = None,
    unreached: Collection[str] = (),
    earlier_looks: Sequence[int] = (),
) -> Comparisons:
    """Compares each variant with the control by the metric at the end of training, at the declared seeds.

    Other seeds are ignored. `dice` and `control_dice`, given together, tell a collapsed run where the metric is not a
    Dice itself. `unreached` are the variants whose records equal the control's. `earlier_looks` are the numbers of
    seeds at which verdicts were shown before; a look at one seed, or at no fewer than now, changes nothing.
    SettingError unless `smallest_effect` is above 0.
    """
    if not smallest_effect > 0.0:
        raise SettingError(f"smallest effect {smallest_effect:g}: expected more than 0")
    if (dice is None) != (control_dice is None):
        raise ValueError("dice and control_dice go together")
    seeds = sorted(set(declared_seeds))
    if dice is None or control_dice is None:
        dice, control_dice = variants, control
    of_control = _describe_collapse(control, control_dice, seeds, " of the control")
    reference = max((value for seed in seeds if _has_run(value := control_dice.get(seed))), default=0.0)
    pairs = []
    for label, values in variants.items():
        of_variant = _describe_collapse(values, dice[label], seeds, reference=reference)
        collapses = [text for text in (of_variant, of_control) if text]
        pairs.append(_pair(label, values, control, seeds, collapses, label in unreached))
    num_variants = len(pairs)
    table = [np.full(len(seeds), np.nan) if row.obstacle else row.differences for row in pairs]
    decision = decide(np.reshape(table, (num_variants, len(seeds))), smallest_effect)
    looks = [look for look in sorted(set(earlier_looks)) if 2 <= look < len(seeds)]
    rows = []
    for i, row in enumerate(pairs):
        needed = None if row.spread is None else seeds_needed(row.spread, smallest_effect, alpha=ALPHA / num_variants)
        verdict, reason = row.obstacle or _judge(decision, i, len(seeds), smallest_effect, higher_is_better)
        if looks and (decision.is_different[i] or decision.is_equivalent[i]):
            reason = "; ".join(filter(None, [reason, _warn_of_looks(looks, len(seeds), num_variants)]))
        rows.append(_summarize(row, decision, i, verdict, reason, needed))
    return Comparisons(tuple(rows), _noise_floor(control, pairs, seeds))


def _has_run(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _describe_collapse(
    values: Values, dice: Values, seeds: Sequence[int], whose: str = "", *, reference: float = 0.0
) -> str:
    """Which runs collapsed or have no value, as a sentence; empty where none did."""
    judged = {
        seed: dice[seed] if _has_run(values[seed]) and _has_run(dice[seed]) else None
        for seed in seeds
        if seed in values and (seed in dice or not _has_run(values[seed]))
    }
    collapsed = collapsed_seeds(judged, reference)
    if not collapsed:
        return ""
    if len(collapsed) == len(judged):
        return f"{'the only run' if len(judged) == 1 else f'all {len(judged)} runs'}{whose} diverged or failed"
    names = f"seed{'s' if len(collapsed) > 1 else ''} {', '.join(map(str, collapsed))}"
    return f"{len(collapsed)} of {len(judged)} runs{whose} collapsed ({names})"


def _pair(
    label: str, values: Values, control: Values, seeds: Sequence[int], collapses: Sequence[str], is_unreached: bool
) -> _Pairs:
    both = [(values.get(seed), control.get(seed)) for seed in seeds]
    differences = np.array([a - b for a, b in both if _has_run(a) and _has_run(b)], dtype=np.float64)
    obstacle = None
    if is_unreached:
        obstacle = ("no effect: setting not reached", "every epoch and the final weights equal the control's")
    elif collapses:
        obstacle = ("collapsed", "; ".join(collapses))
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
    return "cannot tell", ""


def _warn_of_looks(looks: Sequence[int], n: int, num_variants: int) -> str:
    rate = false_alarm_rate([*looks, n], num_variants)
    when = f"a look at {looks[0]}" if len(looks) == 1 else f"looks at {', '.join(map(str, looks))}"
    return f"seeds were added after {when}: no longer a 5 % verdict (about {100 * rate:.1f} % false alarms)"


def _summarize(row: _Pairs, decision: Decision, i: int, verdict: str, reason: str, needed: int | None) -> Comparison:
    low, high = interval(row.differences)
    p, p_equivalent = float(decision.p[i]), float(decision.equivalence_p[i])
    return Comparison(
        label=row.label,
        n=len(row.differences),
        difference=float(paired_t(row.differences).mean) if len(row.differences) else None,
        interval=(float(low), float(high)) if row.is_sound else None,
        p=None if math.isnan(p) else p,
        equivalence_p=None if math.isnan(p_equivalent) else p_equivalent,
        spread=row.spread,
        verdict=verdict,
        reason=reason,
        seeds_needed=needed,
    )


def _noise_floor(control: Values, pairs: Sequence[_Pairs], seeds: Sequence[int]) -> NoiseFloor:
    known = np.array([value for seed in seeds if _has_run(value := control.get(seed))], dtype=np.float64)
    spreads = [row.spread for row in pairs if row.spread is not None]
    spread = float(np.median(spreads)) if spreads else None
    n = len(known)
    return NoiseFloor(
        n=n,
        control_spread=_spread(known) if n >= 2 else None,
        difference_spread=spread,
        detectable_effect=None if spread is None else detectable_effect(spread, n, alpha=ALPHA / len(pairs)),
    )


def _spread(values: Floats) -> float:
    """Standard deviation of two or more values; exactly 0 where they are equal."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1))
