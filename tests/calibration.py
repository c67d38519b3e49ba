"""How often the verdicts are wrong, and how often they find what is there: simulated studies through `decide` itself.

    python tests/calibration.py --studies 20000

prints the rates for 3 to 10 seeds and 1 to 8 variants, with normal, heavy-tailed and skewed noise; takes half a minute.
`tests/test_statistics.py` holds the normal ones at 5 variants and 5 seeds to their limits.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dlx.statistics.decision import decide
from dlx.statistics.looks import false_alarm_rate
from dlx.statistics.paired import interval

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


def one_of(num_variants: int, effect: float) -> list[float]:
    """The effects where one variant, the first, has one."""
    return [effect] + [0.0] * (num_variants - 1)


def false_alarms(differences: Floats) -> float:
    """Share of the studies that declare some variant better or worse."""
    return float(decide(differences, NO_MARGIN).is_different.any(axis=-1).mean())


def finds(differences: Floats) -> float:
    """Share of the studies that declare the first variant different, with its true sign, +."""
    decision = decide(differences, NO_MARGIN)
    return float((decision.is_different & (decision.difference > 0.0))[..., 0].mean())


def equivalences(differences: Floats, margin: float) -> float:
    """Share of the studies that declare some variant no more different than `margin`."""
    return float(decide(differences, margin).is_equivalent.any(axis=-1).mean())


def coverage(differences: Floats, truth: float) -> float:
    """Share of the 95 % intervals, of all variants, that hold the true difference."""
    low, high = interval(differences)
    return float(((low <= truth) & (truth <= high)).mean())


def print_table(studies: int) -> None:
    print(f"{studies} studies a line; margin and effect in standard deviations of the paired difference; percent")
    print(f"{'noise':<22}{'seeds':>6}{'variants':>9}{'alarms':>8}{'unequal':>9}{'finds 3 sd':>12}", end="")
    print(f"{'covers':>8}{'equivalent at margin 1':>24}{'equivalent, no effect':>23}")
    margin = np.sqrt(2.0)  # the standard deviation of the difference of two runs of standard deviation 1
    for noise in NOISES:
        for n in (3, 5, 8, 10):
            for m in (1, 5, 8):
                none = simulate(m, n, studies=studies, noise=noise)
                unequal = simulate(m, n, studies=studies, noise=noise, spreads=UNEQUAL)
                large = simulate(m, n, studies=studies, noise=noise, effects=one_of(m, 3.0))
                at_margin = simulate(m, n, studies=studies, noise=noise, effects=[1.0])
                rates = [
                    (8, false_alarms(none)),
                    (9, false_alarms(unequal)),
                    (12, finds(large)),
                    (8, coverage(none, 0.0)),
                    (24, equivalences(at_margin, margin)),
                    (23, equivalences(none, margin)),
                ]
                cells = "".join(f"{100 * rate:{width}.1f}" for width, rate in rates)
                print(f"{noise:<22}{n:>6}{m:>9}{cells}", flush=True)
    print("\nfalse alarms when the verdicts are read at several numbers of seeds; percent")
    for looks in ((3, 5), (5, 10), (5, 6, 7, 8, 9, 10)):
        cells = "".join(f"{100 * false_alarm_rate(looks, m, studies=studies):8.1f} ({m})" for m in (1, 5, 8))
        print(f"looks at {', '.join(map(str, looks)):<24}{cells}  (variants)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures how often the verdicts of dlx.statistics are wrong.")
    parser.add_argument("--studies", type=int, default=20_000, help="simulated studies a line")
    print_table(parser.parse_args().studies)
