"""How often the verdicts are wrong, and how often they find what is there: simulated studies through `decide` itself.

    python tests/calibration.py --studies 20000

prints, for each scope, the rates for several numbers of seeds, patients and variants, beside those of simpler tests;
takes about ten minutes on two busy cores. `tests/test_statistics.py` holds a share of them to their limits.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlx.statistics.correction import holm
from dlx.statistics.decision import ALPHA, decide
from dlx.statistics.estimate import (
    Components,
    MeanEstimate,
    over_patients,
    over_patients_alone,
    over_runs,
    over_seeds,
    two_sided_p,
)
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
TWO_SEEDS = ((2, 52), (2, 20), (2, 10))  # reports warn of these: their rate of false alarms is above 5 %
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
    return float((two_sided_p(estimate._replace(mean=estimate.mean - truth)) >= ALPHA).mean())


def plain_alarms(estimate: MeanEstimate) -> float:
    """Share of the studies in which Holm-corrected t tests without moderated variances declare a variant different."""
    return float((holm(two_sided_p(estimate)) < ALPHA).any(axis=-1).mean())


def plain_finds(estimate: MeanEstimate) -> float:
    """Share of the studies in which such a test finds the first variant, with its true sign, +."""
    return float(((holm(two_sided_p(estimate)) < ALPHA) & (estimate.mean > 0.0))[..., 0].mean())


def over_cases(differences: Floats) -> MeanEstimate:
    """A t test over patients of their means over seeds (..., J, K), as if the seeds were all there are."""
    return over_seeds(differences.mean(axis=-2))


def in_chunks(rates: Callable[[int, int], Sequence[float]], studies: int, values_a_study: int) -> Floats:
    """The means of rates over chunks of studies that fit the memory; `rates` takes a number of studies and a seed."""
    size = max(1, min(studies, 2**23 // values_a_study))
    sizes = [min(size, studies - first) for first in range(0, studies, size)]
    return np.average([rates(n, seed) for seed, n in enumerate(sizes)], axis=0, weights=sizes)


def print_seeds(studies: int) -> None:
    """New seeds: several numbers of seeds and variants, and kinds of noise."""
    print("\nNEW SEEDS. Margin and effect in standard deviations of the paired difference; percent")
    print(
        f"{'noise':<22}{'seeds':>6}{'variants':>9}{'alarms':>8}{'unequal':>9}{'finds 3 sd':>12}{'plain t':>9}", end=""
    )
    print(f"{'covers':>8}{'equivalent at margin 1':>24}{'equivalent, no effect':>23}")
    margin = np.sqrt(2.0)  # the standard deviation of the difference of two runs of standard deviation 1
    for noise in NOISES:
        for n in (3, 5, 8, 10):
            for m in (1, 2, 3, 5, 8):
                none = over_seeds(simulate(m, n, studies=studies, noise=noise))
                unequal = over_seeds(simulate(m, n, studies=studies, noise=noise, spreads=UNEQUAL))
                large = over_seeds(simulate(m, n, studies=studies, noise=noise, effects=one_of(m, 3.0)))
                at_margin = over_seeds(simulate(m, n, studies=studies, noise=noise, effects=[1.0]))
                rates = [
                    (8, false_alarms(none)),
                    (9, false_alarms(unequal)),
                    (12, finds(large)),
                    (9, plain_finds(large)),
                    (8, coverage(none, 0.0)),
                    (24, equivalences(at_margin, margin)),
                    (23, equivalences(none, margin)),
                ]
                print(f"{noise:<22}{n:>6}{m:>9}{_cells(rates)}", flush=True)


def print_patients(studies: int) -> None:
    """New patients: several designs, with the measured variances and without one of them."""
    print("\nNEW PATIENTS. Alarms of this test, of a t test over seeds alone and over patients alone; percent")
    print(f"{'seeds x patients':<18}{'variants':>9}  {'variances':<38}{'alarms':>8}{'seeds':>8}{'patients':>9}", end="")
    print(f"{'covers':>8}{'finds 0.02':>12}{'plain':>8}")
    for num_seeds, num_patients in (*DESIGNS, *TWO_SEEDS):
        for m in (1, 8):
            for name in MEASURED:
                for lack in ("", *Components._fields):
                    parts = parts_of(name, without=lack)

                    def rates(n: int, seed: int, m: int = m, parts: Components = parts) -> list[float]:
                        none = simulate_patients(m, num_seeds, num_patients, parts, studies=n, seed=seed)  # noqa: B023
                        crossed = over_patients(none)
                        alarms = [false_alarms(crossed)]
                        alarms += [plain_alarms(over_seeds(none.mean(axis=-1))), plain_alarms(over_cases(none))]
                        none[:, 0] += 0.02
                        large = over_patients(none)
                        return [*alarms, coverage(crossed, 0.0), finds(large), plain_finds(large)]

                    found = in_chunks(rates, studies, (m + 1) * num_seeds * num_patients)
                    title = f"{name}, no {lack} variance" if lack else name
                    cells = _cells(list(zip((8, 8, 9, 8, 12, 8), found, strict=True)))
                    print(f"{f'{num_seeds} x {num_patients}':<18}{m:>9}  {title:<38}{cells}", flush=True)


# variances of training sets beside the measured ones of seeds and patients: none, and standard deviations of 0.005 that
# are independent, or correlated by the 75 % of subjects that two folds share; the last is what the test cannot hold
TRAINING = {"none": (0.0, 0.0), "0.005": (0.005, 0.0), "0.005, shared": (0.005, 0.75), "0.02, shared": (0.02, 0.75)}


def print_folds(studies: int) -> None:
    """The procedure: five folds, with several seeds, and effects of the training sets."""
    print("\nTHE PROCEDURE. Alarms of this test, and of plain t tests over runs and over folds; percent")
    print(f"{'folds x seeds':<15}{'patients':>9}  {'variances':<38}{'training sets':<15}{'alarms':>8}", end="")
    print(f"{'runs':>8}{'folds':>8}{'covers':>8}{'finds 0.02':>12}")
    for num_folds, num_seeds in FOLDS:
        for num_patients in (50, 260):
            for name in MEASURED:
                for lack in ("", *Components._fields):
                    for training, (sd, correlation) in TRAINING.items():
                        of = FoldParts(parts_of(name, without=lack), sd**2, correlation)
                        runs = simulate_folds(num_folds, num_seeds, num_patients, of, studies=studies)
                        estimate = over_runs(runs, 1 / (num_folds - 1))
                        means = runs.reshape(studies, 1, num_folds, num_seeds).mean(axis=-1)
                        rates = [
                            (8, false_alarms(estimate)),
                            (8, plain_alarms(over_seeds(runs))),
                            (8, plain_alarms(over_seeds(means))),
                            (8, coverage(estimate, 0.0)),
                            (12, finds(over_runs(runs + 0.02, 1 / (num_folds - 1)))),
                        ]
                        title = f"{name}, no {lack} variance" if lack else name
                        print(
                            f"{f'{num_folds} x {num_seeds}':<15}{num_patients:>9}  {title:<38}{training:<15}"
                            f"{_cells(rates)}",
                            flush=True,
                        )


# of predictions: one of ten patients fails, by ten standard deviations, in one of the two sets
FAILURES: dict[str, Noise] = {
    "failures of either set": lambda rng, shape: (
        rng.standard_normal(shape) + (rng.random(shape) < 0.1) * rng.choice((-10.0, 10.0), shape)
    ),
    "failures of one set": lambda rng, shape: rng.standard_normal(shape) + (rng.random(shape) < 0.1) * 10.0 - 1.0,
}


def print_predictions(studies: int) -> None:
    """Sets of predictions compared on several numbers of patients, whose differences are independent."""
    print("\nPREDICTIONS. New patients, of fixed networks; percent")
    print(f"{'differences':<26}{'patients':>9}{'sets':>6}{'alarms':>8}{'covers':>8}")
    for name, noise in (NOISES | FAILURES).items():
        for num_patients in (5, 10, 20, 52):
            for m in (1, 4):
                differences = noise(np.random.default_rng(0), (studies, m, num_patients))
                estimate = over_patients_alone(differences)
                rates = [(8, false_alarms(estimate)), (8, coverage(estimate, 0.0))]
                print(f"{name:<26}{num_patients:>9}{m:>6}{_cells(rates)}", flush=True)


LOOKS = ((3, 5), (5, 10), (5, 6, 7, 8, 9, 10))  # numbers of seeds at which the verdicts are read


def alarms_after_looks(estimates: Sequence[MeanEstimate]) -> float:
    """Share of the studies that declare some variant different at one look or another."""
    alarms = [decide(estimate, NO_MARGIN).is_different.any(axis=-1) for estimate in estimates]
    return float(np.mean(np.any(alarms, axis=0)))


def patient_looks(
    looks: Sequence[int], num_variants: int, num_patients: int, parts: Components, *, studies: int
) -> float:
    """The rate for new patients: the seeds become more, the patients stay the same."""
    runs = simulate_patients(num_variants, max(looks), num_patients, parts, studies=studies)
    return alarms_after_looks([over_patients(runs[..., :n, :]) for n in looks])


def fold_looks(looks: Sequence[int], of: FoldParts, *, studies: int) -> float:
    """The rate for new training sets: the seeds in each of five folds become more."""
    runs = simulate_folds(5, max(looks), 260, of, studies=studies).reshape(studies, 1, 5, max(looks))
    return alarms_after_looks([over_runs(runs[..., :n].reshape(studies, 1, 5 * n), 0.25) for n in looks])


def print_looks(studies: int) -> None:
    """Verdicts that are read at several numbers of seeds: for new seeds, and the highest for new patients and folds."""
    print("\nfalse alarms when the verdicts are read at several numbers of seeds; percent")
    print(f"{'looks at seeds':<24}{'variants':>9}{'seeds':>8}{'20, 52 patients':>17}{'5 folds':>9}")
    every = [parts_of(name, without=lack) for name in MEASURED for lack in ("", *Components._fields)]
    for looks in LOOKS:
        for m in (1, 8):
            few = max(100, min(studies, 2**23 // ((m + 1) * max(looks) * 52)))
            patients = max(patient_looks(looks, m, k, parts, studies=few) for k in (20, 52) for parts in every)
            folds = max(fold_looks(looks, FoldParts(parts, 0.0, 0.0), studies=studies) for parts in every)
            rates = [(8, false_alarm_rate(looks, m, studies=studies)), (17, patients), (9, folds if m == 1 else np.nan)]
            print(f"{', '.join(map(str, looks)):<24}{m:>9}{_cells(rates)}", flush=True)


def _cells(rates: Sequence[tuple[int, float]]) -> str:
    return "".join(f"{100 * rate:{width}.1f}" for width, rate in rates)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures how often the verdicts of dlx.statistics are wrong.")
    parser.add_argument("--studies", type=int, default=20_000, help="simulated studies a line")
    num = parser.parse_args().studies
    print(f"{num} studies a line")
    for table in (print_seeds, print_patients, print_predictions, print_folds, print_looks):
        table(num)
