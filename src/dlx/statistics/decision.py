"""Which variants of a study differ from its control: the rule that `compare` and the simulations share."""

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


def decide(differences: Floats, margin: float) -> Decision:
    """Judges m variants, all with n seeds, by their differences from the control (..., m, n).

    A variant without a test is a row with NaN; it counts in the correction. A variant that differs is not called
    equivalent, even if the difference is shown to be smaller than `margin`.
    """
    test = paired_t(differences)
    p, p_equivalent = holm(test.p), holm(equivalence_p(differences, margin))
    is_different = p < ALPHA
    is_equivalent = ~is_different & (p_equivalent < ALPHA)
    return Decision(test.mean, interval(differences), p, p_equivalent, is_different, is_equivalent)
