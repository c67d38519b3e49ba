"""Which variants of a study differ from its control: the rule that `compare` and the simulations share."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlx.statistics.paired import Floats, equivalence_p, holm, interval, paired_t

ALPHA = 0.05


class Decision(NamedTuple):
    """What is declared of each variant (..., m), and on what grounds; both p are Holm-adjusted, the interval is not."""

    difference: Floats
    interval: tuple[Floats, Floats]
    p: Floats
    equivalence_p: Floats
    is_different: NDArray[np.bool_]
    is_equivalent: NDArray[np.bool_]


def decide(differences: Floats, margin: float, *, alpha: float = ALPHA) -> Decision:
    """Judges m variants, all with n seeds, by their differences from the control (..., m, n).

    A variant without a test is a row with NaN; it counts in the correction. A variant that differs is not called
    equivalent, even if the difference is shown to be smaller than `margin`.
    """
    test = paired_t(differences)
    p, p_equivalent = holm(test.p), holm(equivalence_p(differences, margin))
    is_different = p < alpha
    is_equivalent = ~is_different & (p_equivalent < alpha)
    return Decision(test.mean, interval(differences), p, p_equivalent, is_different, is_equivalent)


def false_alarm_rate(
    looks: Sequence[int], num_variants: int, *, alpha: float = ALPHA, studies: int = 20_000, seed: int = 0
) -> float:
    """The chance, simulated, that without any effect some variant is declared different at one look or another.

    `looks` are the numbers of seeds at which the verdicts were read, each with the data of those before. The noise of
    control and variants is independent, normal and of one size; what the runs of a seed have in common cancels.
    """
    return _false_alarm_rate(tuple(sorted(set(looks))), num_variants, alpha, studies, seed)


@lru_cache(maxsize=64)
def _false_alarm_rate(looks: tuple[int, ...], num_variants: int, alpha: float, studies: int, seed: int) -> float:
    noise = np.random.default_rng(seed).standard_normal((studies, num_variants + 1, max(looks)))
    differences = noise[:, 1:] - noise[:, :1]
    alarms = [decide(differences[..., :n], 0.0, alpha=alpha).is_different.any(axis=-1) for n in looks]
    return float(np.mean(np.any(alarms, axis=0)))
