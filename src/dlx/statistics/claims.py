"""Verdicts on claims that a study declares before it runs: of a quantity, or of the best variant.

Each claim is a separate hypothesis, tested at 5 % and not corrected for other claims.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.collapse import finite
from dlx.statistics.correction import holm
from dlx.statistics.decision import ALPHA
from dlx.statistics.estimate import MeanEstimate, equivalence_p, greater_p, interval, less_p, over_seeds, spread
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope


@dataclass(frozen=True)
class Estimate:
    """A quantity measured once a run: its mean, spread and 95 % t interval over runs, each None where there is none."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self:
        """The estimate from the runs that have a value."""
        return cls(tuple(value for value in values if value is not None))

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return math.fsum(self.values) / self.n if self.values else None

    @property
    def sd(self) -> float | None:
        """The standard deviation over the runs."""
        return spread(np.array(self.values, dtype=np.float64)) if self.n >= 2 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return interval_of(over_seeds(np.array(self.values, dtype=np.float64)))


def interval_of(estimate: MeanEstimate) -> tuple[float, float] | None:
    """The 95 % interval of a single estimate; None without an error."""
    low, high = (float(end) for end in interval(estimate))
    return None if math.isnan(low) else (low, high)


@dataclass(frozen=True)
class Quantity:
    """What a claim is about, as measured in `num_runs` runs: a difference, a slope, an advantage.

    `n` counts the seeds, patients or runs behind the estimate, whose scope is `scope`.
    """

    scope: Scope
    num_runs: int
    n: int
    estimate: MeanEstimate


@dataclass(frozen=True)
class ClaimResult:
    """A claim's verdict, the estimate behind it and its scope, and its reasons (there may be none)."""

    verdict: Verdict
    scope: Scope
    estimate: float | None
    interval: tuple[float, float] | None
    n: int
    num_runs: int
    reasons: tuple[why.Reason, ...] = ()


def judge_greater(quantity: Quantity, margin: float = 0.0) -> ClaimResult:
    """The claim that a quantity is greater than `margin` (0 or more), by its 95 % interval.

    Contradicted if the quantity is shown to be below -`margin`: the opposite of the claim.
    """
    ends = interval_of(quantity.estimate)
    if ends is None:
        return _too_few(quantity)
    low, high = ends
    if low > margin:
        verdict = Verdict.CONFIRMED
    elif high < -margin:
        verdict = Verdict.CONTRADICTED
    else:
        verdict = Verdict.NOT_CONFIRMED if high <= margin else Verdict.CANNOT_TELL
    return _result(verdict, quantity, why.AboveMargin(margin))


def judge_less(quantity: Quantity, margin: float = 0.0) -> ClaimResult:
    """The opposite claim: that the quantity is less than -`margin`. It has no reason in words of its own."""
    estimate = quantity.estimate
    verdict = judge_greater(replace(quantity, estimate=estimate._replace(mean=-estimate.mean)), margin).verdict
    return _result(verdict, quantity)


def judge_within(quantity: Quantity, margin: float) -> ClaimResult:
    """The claim that a quantity is no further than `margin` (above 0) from 0.

    Confirmed by two one-sided tests at 5 %, contradicted if the 95 % interval lies wholly outside.
    """
    ends = interval_of(quantity.estimate)
    if ends is None:
        return _too_few(quantity)
    low, high = ends
    if equivalence_p(quantity.estimate, margin) < ALPHA:
        verdict = Verdict.CONFIRMED
    else:
        verdict = Verdict.CONTRADICTED if low > margin or high < -margin else Verdict.CANNOT_TELL
    return _result(verdict, quantity, why.WithinMargin(margin))


def judge_best(advantages: Mapping[str, Quantity]) -> ClaimResult:
    """The claim that a variant is the best, by its advantage over each rival, of which there is at least one.

    Confirmed if it is shown to be better than every rival at a one-sided 2.5 % (intersection-union: no correction is
    needed), contradicted if some rival is shown to be better, Holm-corrected over the rivals. The estimate is the
    advantage over the closest rival, or over the one that beats it.
    """
    losing_p = holm(np.array([float(less_p(advantage.estimate)) for advantage in advantages.values()]))
    losing = dict(zip(advantages, losing_p.tolist(), strict=True))
    winner = min(advantages, key=lambda rival: math.inf if math.isnan(losing[rival]) else losing[rival])
    if losing[winner] < ALPHA / 2.0:
        return _result(Verdict.CONTRADICTED, advantages[winner], why.AgainstRivals((winner,)))
    untested = [rival for rival, advantage in advantages.items() if interval_of(advantage.estimate) is None]
    if untested:
        return _too_few(advantages[untested[0]], untested[0])
    closest = min(advantages, key=lambda rival: float(advantages[rival].estimate.mean))
    rest = [rival for rival, a in advantages.items() if not greater_p(a.estimate) < ALPHA / 2.0]
    if not rest:
        return _result(Verdict.CONFIRMED, advantages[closest], why.AgainstRivals((closest,)))
    return _result(Verdict.CANNOT_TELL, advantages[closest], why.AgainstRivals(tuple(rest)))


def trend_weights(x: Sequence[float]) -> list[float]:
    """The weights of the values at `x` (not all equal) in the slope of their least-squares line."""
    centred = np.asarray(x, dtype=np.float64) - np.mean(x)
    return [float(weight) for weight in centred / (centred @ centred)]


def _result(verdict: Verdict, quantity: Quantity, *found: why.Reason) -> ClaimResult:
    mean = finite(float(quantity.estimate.mean))
    return ClaimResult(
        verdict, quantity.scope, mean, interval_of(quantity.estimate), quantity.n, quantity.num_runs, found
    )


def _too_few(quantity: Quantity, rival: str | None = None) -> ClaimResult:
    return _result(Verdict.CANNOT_TELL, quantity, why.TooFew(quantity.scope, rival))
