"""Verdicts on claims that a study declares before it runs: of a quantity with one value a seed, or of the best variant.

Each claim is a separate hypothesis, tested at 5 % and not corrected for other claims.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.decision import ALPHA
from dlx.statistics.paired import Floats, equivalence_p, greater_p, holm, interval, spread
from dlx.statistics.verdict import Verdict


@dataclass(frozen=True)
class Estimate:
    """A quantity measured once a seed: its mean, spread and 95 % t interval, each None where there is none."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self:
        """The estimate from the seeds that have a value."""
        return cls(tuple(value for value in values if value is not None))

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return math.fsum(self.values) / self.n if self.values else None

    @property
    def sd(self) -> float | None:
        """The standard deviation over the seeds."""
        return spread(np.array(self.values, dtype=np.float64)) if self.n >= 2 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        low, high = interval(np.array(self.values, dtype=np.float64))
        return (float(low), float(high)) if self.n >= 2 else None


@dataclass(frozen=True)
class ClaimResult:
    """A claim's verdict, the estimate behind it, and its reasons (there may be none)."""

    verdict: Verdict
    estimate: float | None
    interval: tuple[float, float] | None
    n: int
    reasons: tuple[why.Reason, ...] = ()


def judge_greater(values: Sequence[float], margin: float = 0.0) -> ClaimResult:
    """The claim that a quantity, one value a seed, is greater than `margin` (0 or more), by its 95 % interval.

    Contradicted if the quantity is shown to be below -`margin`: the opposite of the claim.
    """
    estimate = Estimate(tuple(values))
    if estimate.interval is None:
        return _too_few(estimate)
    low, high = estimate.interval
    if low > margin:
        verdict = Verdict.CONFIRMED
    elif high < -margin:
        verdict = Verdict.CONTRADICTED
    else:
        verdict = Verdict.NOT_CONFIRMED if high <= margin else Verdict.CANNOT_TELL
    return _result(verdict, estimate, why.AboveMargin(margin))


def judge_within(values: Sequence[float], margin: float) -> ClaimResult:
    """The claim that a quantity, one value a seed, is no further than `margin` (above 0) from 0.

    Confirmed by two one-sided tests at 5 %, contradicted if the 95 % interval lies wholly outside.
    """
    estimate = Estimate(tuple(values))
    if estimate.interval is None:
        return _too_few(estimate)
    low, high = estimate.interval
    if equivalence_p(np.array(values, dtype=np.float64), margin) < ALPHA:
        verdict = Verdict.CONFIRMED
    else:
        verdict = Verdict.CONTRADICTED if low > margin or high < -margin else Verdict.CANNOT_TELL
    return _result(verdict, estimate, why.WithinMargin(margin))


def judge_best(values: Mapping[str, Mapping[int, float]], label: str, *, higher_is_better: bool = True) -> ClaimResult:
    """The claim that the variant `label` is the best of two or more, by its advantage over each rival, paired by seed.

    Confirmed if it is shown to be better than every rival at a one-sided 2.5 % (intersection-union: no correction is
    needed), contradicted if some rival is shown to be better, Holm-corrected over the rivals. The estimate is the
    advantage over the closest rival, or over the one that beats it.
    """
    rivals = {name: _advantage(values[label], v, higher_is_better) for name, v in values.items() if name != label}
    estimates = {name: Estimate(tuple(advantage.tolist())) for name, advantage in rivals.items()}
    losing = dict(zip(rivals, holm(np.array([float(greater_p(-a)) for a in rivals.values()])).tolist(), strict=True))
    winner = min(rivals, key=lambda name: math.inf if math.isnan(losing[name]) else losing[name])
    if losing[winner] < ALPHA / 2.0:
        return _result(Verdict.CONTRADICTED, estimates[winner], why.AgainstRivals((winner,)))
    untested = [name for name in rivals if estimates[name].n < 2]
    if untested:
        return _too_few(estimates[untested[0]], untested[0])
    closest = min(rivals, key=lambda name: float(rivals[name].mean()))
    rest = [name for name, advantage in rivals.items() if not greater_p(advantage) < ALPHA / 2.0]
    if not rest:
        return _result(Verdict.CONFIRMED, estimates[closest], why.AgainstRivals((closest,)))
    return _result(Verdict.CANNOT_TELL, estimates[closest], why.AgainstRivals(tuple(rest)))


def trend_slopes(x: Sequence[float] | Floats, values_by_seed: Floats) -> Floats:
    """The slope of each seed's least-squares line through its values (n_seeds, n_x) at `x` (n_x, not all equal)."""
    centred = np.asarray(x, dtype=np.float64) - np.mean(x)
    return np.asarray(values_by_seed @ centred / (centred @ centred), dtype=np.float64)


def _advantage(values: Mapping[int, float], rival: Mapping[int, float], higher_is_better: bool) -> Floats:
    sign = 1.0 if higher_is_better else -1.0
    return np.array([sign * (values[seed] - rival[seed]) for seed in sorted(values.keys() & rival.keys())])


def _result(verdict: Verdict, estimate: Estimate, reason: why.Reason) -> ClaimResult:
    return ClaimResult(verdict, estimate.mean, estimate.interval, estimate.n, (reason,))


def _too_few(estimate: Estimate, rival: str | None = None) -> ClaimResult:
    return _result(Verdict.CANNOT_TELL, estimate, why.TooFewSeeds(rival))
