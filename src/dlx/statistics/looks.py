"""The cost of looking at verdicts before all seeds are there: the rate of false alarms."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from dlx.statistics.decision import decide
from dlx.statistics.estimate import over_seeds
from dlx.statistics.reasons import EarlierLooks
from dlx.study.scope import Scope


def cost_of_looks(earlier: Iterable[int], n: int, num_tests: int | None, scope: Scope) -> tuple[EarlierLooks, ...]:
    """The looks at fewer than n runs at which a verdict was possible, as one reason; empty if there was none.

    A look at one run, or at no fewer than now, changes nothing. Without `num_tests` (tests, one a variant, corrected
    together) the rate of false alarms is unknown. For new patients and new training sets the rate of one variant over
    seeds is a bound: in simulations (`tests/calibration.py`) looks cost less there, as the patients stay the same and
    the test of cross-validation is conservative.
    """
    looks = tuple(look for look in sorted(set(earlier)) if 2 <= look < n)
    if not looks:
        return ()
    is_bound = scope is not Scope.SEEDS
    rate = None if num_tests is None else false_alarm_rate((*looks, n), 1 if is_bound else num_tests)
    return (EarlierLooks(looks, rate, is_bound and rate is not None),)


@lru_cache(maxsize=64)
def false_alarm_rate(looks: tuple[int, ...], num_variants: int, *, studies: int = 20_000) -> float:
    """The chance, simulated, that without any effect some variant is declared different at one look or another.

    `looks` are the numbers of seeds at which the verdicts were read, each with the data of those before. The noise of
    control and variants is independent, normal and of one size; what the runs of a seed have in common cancels.
    """
    noise = np.random.default_rng(0).standard_normal((studies, num_variants + 1, max(looks)))
    differences = noise[:, 1:] - noise[:, :1]
    alarms = [decide(over_seeds(differences[..., :n]), 0.0).is_different.any(axis=-1) for n in looks]
    return float(np.mean(np.any(alarms, axis=0)))
