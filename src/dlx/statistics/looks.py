"""The cost of looking at verdicts before all seeds are there: the rate of false alarms."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from dlx.statistics.decision import decide
from dlx.statistics.estimate import over_seeds
from dlx.statistics.reasons import EarlierLooks
from dlx.study.run_id import RunId, seed_of
from dlx.study.scope import Scope


def cost_of_looks(
    earlier: Iterable[int], runs: Sequence[RunId], num_tests: int | None, scope: Scope
) -> tuple[EarlierLooks, ...]:
    """The looks at fewer runs than now at which a verdict was possible, as one reason; empty if there was none.

    A verdict takes two runs, of other scopes than the procedure's two seeds in each fold. The rate of false alarms is
    simulated for new seeds alone, and for `num_tests` tests, one a variant, corrected together (None: other tests).
    docs/studies.md has the rates of the other scopes, which depend on their variances.
    """
    num_folds = max(1, len(runs) // max(1, len({seed_of(run) for run in runs})))
    least = 2 if scope is Scope.PROCEDURE else 2 * num_folds
    looks = tuple(look for look in sorted(set(earlier)) if least <= look < len(runs))
    if not looks:
        return ()
    is_known = scope is Scope.SEEDS and num_tests is not None and all(look % num_folds == 0 for look in looks)
    seeds = tuple(number // num_folds for number in (*looks, len(runs)))
    return (EarlierLooks(looks, false_alarm_rate(seeds, num_tests) if is_known and num_tests else None),)


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
