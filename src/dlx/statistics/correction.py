"""Several variants judged together: their p corrected by Holm's method, and their variances drawn together."""

import numpy as np
from scipy import special

from dlx.statistics.estimate import Floats, MeanEstimate

MIN_VARIANTS = 3  # of fewer, the median variance is not known well enough

# The weight of the median variance, in degrees of freedom. `tests/calibration.py` simulates 3 to 10 seeds and variances
# that differ by up to 16 times: with this weight no setting with normal noise has more than 5.0 % false alarms for new
# seeds. For new patients docs/studies.md has the rates.
MAX_PRIOR_DF = 2.0


def holm(p: Floats) -> Floats:
    """The p of m hypotheses (..., m), adjusted by Holm's step-down method (Holm 1979, Scand. J. Statist. 6).

    A hypothesis without a test (NaN) stays NaN but still counts towards m, so a missing variant does not weaken the
    correction of the others.
    """
    num_hypotheses = p.shape[-1]
    order = np.argsort(p, axis=-1)  # NaN come last
    factors = num_hypotheses - np.arange(num_hypotheses)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def moderate(estimate: MeanEstimate) -> MeanEstimate:
    """Estimates (..., m) whose seed variances have more degrees of freedom, taken from the median over the variants.

    The variance of few seeds is itself uncertain, which makes the tests of a study with many variants weak. A moderated
    variance is the mean of the variant's own and of the median, weighted by degrees of freedom (as in limma: Smyth
    2004, Stat. Appl. Genet. Mol. Biol. 3). Unlike there, the weight of the median is fixed and small, and no variance
    becomes smaller than its own: so variants of unlike variances keep their rate of false alarms. Fewer than three
    variants with a variance are returned unchanged.
    """
    own, df = estimate.seed_variance, estimate.seed_df
    if own.shape[-1] < MIN_VARIANTS:
        return estimate
    is_tested = ~np.isnan(own)
    has_enough = is_tested.sum(axis=-1, keepdims=True) >= MIN_VARIANTS
    median = np.nanmedian(np.where(has_enough, own, 0.0), axis=-1, keepdims=True)
    typical = median / (2.0 / df * special.gammaincinv(df / 2.0, 0.5))  # the median of a variance is below its mean
    prior_df = np.minimum(MAX_PRIOR_DF, df / 2.0)
    drawn = np.maximum(own, (prior_df * typical + df * own) / (prior_df + df))
    return estimate._replace(
        seed_variance=np.where(has_enough, drawn, own), seed_df=np.where(has_enough, df + prior_df, df)
    )
