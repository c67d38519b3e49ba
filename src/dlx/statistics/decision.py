"""Which variants of a study differ from its control: the rule that `compare` and the simulations share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlx.statistics.correction import holm, moderate
from dlx.statistics.estimate import Floats, MeanEstimate, equivalence_p, two_sided_p

ALPHA = 0.05


class Decision(NamedTuple):
    """What is declared of each variant (..., m), and on what grounds: both p are Holm-adjusted."""

    difference: Floats
    p: Floats
    equivalence_p: Floats
    is_different: NDArray[np.bool_]
    is_equivalent: NDArray[np.bool_]


def decide(estimate: MeanEstimate, margin: float) -> Decision:
    """Judges m variants by the estimates (..., m) of their differences from the control.

    A variant without a test is NaN; it counts in the correction. A variant differs if the corrected p, of moderated
    variances, is below 5 %, and its own uncorrected p too: then its interval does not contain 0. A variant that differs
    is not called equivalent, even if the difference is shown to be smaller than `margin`.
    """
    moderated = moderate(estimate)
    p = np.maximum(holm(two_sided_p(moderated)), two_sided_p(estimate))
    p_equivalent = np.maximum(holm(equivalence_p(moderated, margin)), equivalence_p(estimate, margin))
    is_different = p < ALPHA
    is_equivalent = ~is_different & (p_equivalent < ALPHA)
    return Decision(estimate.mean, p, p_equivalent, is_different, is_equivalent)
