"""How often the verdicts are wrong, and how often they find what is there: simulated studies through `decide` itself.

    python tests/calibration.py --studies 20000

prints, for each scope, the rates for several numbers of seeds, patients and variants, beside those of simpler tests;
takes about ten minutes. `tests/test_statistics.py` holds a share of them to their limits.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlx.statistics.decision import decide
from dlx.statistics.estimate import Components, MeanEstimate, interval, over_patients, over_runs, over_seeds
from dlx.statistics.looks import false_alarm_rate

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]

# each of mean 0 and standard deviation 1
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t with 3 df": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
    "skewed (exponential)": lambda rng, shape: rng.standard_exponential(shape) - 1.0,
}
UNEQUAL = (0.25, 0.5, 1.0, 2.0, 4.0)
NO_MARGIN = 0.0

# Standard deviations of the differences in experiments/*.jsonl, of seeds, of patients, and residual: the median of 36
# comparisons without a collapse, and the two with the largest part of patients and of seeds (samples: 64 against 8
# subjects; weight-sharing-hippocampus).
MEASURED = {
    "median": (0.0108, 0.0109, 0.0268),
    "training subjects": (0.0064, 0.0597, 0.0223),
    "weight sharing": (0.0747, 0.0548, 0.0565),
}
DESIGNS = ((5, 52), (5, 20), (5, 10), (3, 20), (10, 5))  # seeds, patients
FOLDS = ((5, 1), (5, 2), (5, 3))  # folds, seeds


def parts_of(name: str, *, without: str = "") -> Components:
    """The variances of a measured set, one of them set to 0."""
    found = Components(*(np.float64(sd) ** 2 for sd in MEASURED[name]))
    return found._replace(**{without: np.float64(0.0)}) if without else found


def simulate(
    num_variants: int,
    num_seeds: int,
    *,
    studies: int,
    effects: Sequence[float] = (0.0,),
    spreads: Sequence[float] = (1.0,),
    noise: str = "normal",
    seed: int = 0,
) -> Floats:
    """Paired differences (studies, variants, seeds) of variants that share one control.

    `spreads` are the variants' own standard deviations beside the control's 1, `effects` the true differences in
    standard deviations of the paired difference; both are repeated over the variants.
    """
    rng = np.random.default_rng(seed)
    own, true = np.resize(spreads, num_variants), np.resize(effects, num_variants)
    runs = NOISES[noise](rng, (studies, num_variants + 1, num_seeds))
    return own[:, None] * runs[:, 1:] - runs[:, :1] + (true * np.hypot(own, 1.0))[:, None]


def simulate_patients(
    num_variants: int,
    num_seeds: int,
    num_patients: int,
    parts: Components,
    *,
    studies: int,
    effect: float = 0.0,
    seed: int = 0,
) -> Floats:
    """Paired differences (studies, variants, seeds, patients) of variants that share one control.

    `parts` are the variances of a difference, half of each the control's. The first variant has the true `effect`.
    """
    rng = np.random.default_rng(seed)
    shape = (studies, num_variants + 1)
    runs = np.sqrt(parts.residual / 2) * rng.standard_normal((*shape, num_seeds, num_patients))
    runs += np.sqrt(parts.seed / 2) * rng.standard_normal((*shape, num_seeds, 1))
    runs += np.sqrt(parts.patient / 2) * rng.standard_normal((*shape, 1, num_patients))
    runs[:, 1] += effect
    return runs[:, 1:] - runs[:, :1]


class FoldParts(NamedTuple):
    """Variances of a difference in cross-validation: those of `Components`, and of the training set of a fold."""

    parts: Components
    training: float
    correlation: float  # of the training sets' effects between two folds, which share most of their subjects


def simulate_folds(
    num_folds: int, num_seeds: int, num_patients: int, of: FoldParts, *, studies: int, effect: float = 0.0
) -> Floats:
    """Paired differences (studies, 1, folds x seeds) of cross-validation, each the mean over the patients of its fold.

    The effects of training sets are drawn for the study: a new study has other training sets.
    """
    rng = np.random.default_rng(0)
    each = num_patients / num_folds
    common = rng.standard_normal((studies, 1, 1)) * np.sqrt(of.training * of.correlation)
    own = rng.standard_normal((studies, num_folds, 1)) * np.sqrt(
        of.training * (1.0 - of.correlation) + of.parts.patient / each
    )
    noise = rng.standard_normal((studies, num_folds, num_seeds)) * np.sqrt(of.parts.seed + of.parts.residual / each)
    return (effect + common + own + noise).reshape(studies, 1, num_folds * num_seeds)


def one_of(num_variants: int, effect: float) -> list[float]:
    """The effects where one variant, the first, has one."""
    return [effect] + [0.0] * (num_variants - 1)


def false_alarms(estimate: MeanEstimate) -> float:
    """Share of the studies that declare some variant better or worse."""
    return float(decide(estimate, NO_MARGIN).is_different.any(axis=-1).mean())


def finds(estimate: MeanEstimate) -> float:
    """Share of the studies that declare the first variant different, with its true sign, +."""
    decision = decide(estimate, NO_MARGIN)
    return float((decision.is_different & (decision.difference > 0.0))[..., 0].mean())


def equivalences(estimate: MeanEstimate, margin: float) -> float:
    """Share of the studies that declare some variant no more different than `margin`."""
    return float(decide(estimate, margin).is_equivalent.any(axis=-1).mean())


def coverage(estimate: MeanEstimate, truth: float) -> float:
    """Share of the 95 % intervals, of all variants, that hold the true difference."""
    low, high = interval(estimate)
    return float(((low <= truth) & (truth <= high)).mean())


def plain_alarms(estimate: MeanEstimate) -> float:
    """Share of the studies that Holm-corrected t tests without moderated variances declare different."""
    return float((holm(two_sided_p(estimate)) < ALPHA).any(axis=-1).mean())


def chunks(studies: int, size: int) -> Iterator[tuple[int, int]]:
    """The number of studies of each chunk of at most 2^24 values, and a seed for it."""
    step = max(1, 2**24 // size)
    for number, first in enumerate(range(0, studies, step)):
        yield min(step, studies - first), number
