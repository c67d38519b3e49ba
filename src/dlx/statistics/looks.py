"""The cost of looking at verdicts before all seeds are there: the rate of false alarms."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from dlx.statistics.decision import decide
from dlx.statistics.estimate import over_seeds
from dlx.statistics.reasons import EarlierLooks


def cost_of_looks(earlier: Iterable[int], n: int, num_tests: int | None) -> tuple[EarlierLooks, ...]:
    """The looks at fewer than n seeds at which a verdict was possible, as one reason; empty if there was none.

    A look at one seed, or at no fewer than now, changes nothing. Without `num_tests` (paired t tests, one a variant,
    corrected together) the rate of false alarms is unknown.
    """
    looks = tuple(look for look in sorted(set(earlier)) if 2 <= look < n)
    if not looks:
        return ()
    rate = None if num_tests is None else false_alarm_rate((*looks, n), num_tests)
    return (EarlierLooks(looks, rate),)


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
