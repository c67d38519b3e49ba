"""What is said of the runs of one variant before any test: how much the last epochs swing, and which runs collapsed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlx.study_metrics import FEWEST_FOR_JITTER, jitter_window

Values = Mapping[int, float | None]  # by seed: a missing one has not run yet, None diverged or failed


def jitter(epochs: Sequence[int], values: Sequence[float | None], num_epochs: int) -> float | None:
    """Standard deviation of the values of the last quarter of the epochs around their straight line.

    `epochs` count from 1 and hold those that were measured; None among the values was not. A quarter is rounded up and
    is at least three epochs. The line (least squares, two degrees of freedom) is taken out so that a network that is
    still learning does not seem unsteady. None where fewer than three values are left.
    """
    first = num_epochs - jitter_window(num_epochs) + 1
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if e >= first and v is not None and math.isfinite(v)]
    if len(points) < FEWEST_FOR_JITTER:
        return None
    x, y = (column - column.mean() for column in np.array(points, dtype=np.float64).T)
    residuals = y - x * (x @ y) / (x @ x)
    return float(np.sqrt(residuals @ residuals / (len(points) - 2)))


@dataclass(frozen=True)
class Collapse:
    """The seeds of one variant whose runs collapsed or diverged, among so many runs that ended; none is no collapse."""

    seeds: tuple[int, ...]
    num_runs: int

    def __bool__(self) -> bool:
        return bool(self.seeds)

    def describe(self, whose: str = "") -> str:
        """`1 of 5 runs collapsed (seed 3)`; empty where none did. `whose` stands after `runs`."""
        if not self.seeds:
            return ""
        if len(self.seeds) == self.num_runs:
            return f"{'the only run' if self.num_runs == 1 else f'all {self.num_runs} runs'}{whose} diverged or failed"
        names = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        return f"{len(self.seeds)} of {self.num_runs} runs{whose} collapsed ({names})"


def find_collapse(dice: Values, control_dice: Values, declared_seeds: Sequence[int]) -> Collapse:
    """What of one variant collapsed at the declared seeds, told by its validation Dice beside the control's."""
    mine, reference = ({s: _finite(v[s]) for s in declared_seeds if s in v} for v in (dice, control_dice))
    best = max((value for value in reference.values() if value is not None), default=0.0)
    return Collapse(collapsed_seeds(mine, best), len(mine))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


LEARNT = 0.1  # Dice: below it no run has learnt anything that another could have lost


def collapsed_seeds(values: Mapping[int, float | None], reference: float = 0.0) -> tuple[int, ...]:
    """The seeds whose run collapsed where others did not: a Dice below half of the best run's, or None (diverged).

    Half is far outside what a seed does to a run that learns (some hundredths of Dice). `reference` is the best Dice of
    the control: where no run reaches half of it the variant learns badly on every seed, which is a difference and no
    collapse. If all diverged, all are named; else never the best.
    """
    best = max((value for value in values.values() if value is not None), default=0.0)
    learnt = best >= max(reference / 2.0, LEARNT)
    return tuple(sorted(s for s, value in values.items() if value is None or (learnt and value < best / 2.0)))
