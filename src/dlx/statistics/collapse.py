"""Which runs of a variant collapsed, or never learned a class that others learned; decided before any test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from dlx.study.metrics import split_metric
from dlx.study.run_id import RunId, in_order

Values = Mapping[RunId, float | None]  # a missing run has not ended yet, None diverged or failed


@dataclass(frozen=True)
class Collapse:
    """The runs of a variant that collapsed, among `num_runs` runs that ended.

    Those in `runs` collapsed or diverged as a whole. `lost` holds classes, each with the runs that never learned it,
    although they may have learned others. False if both are empty.
    """

    runs: tuple[RunId, ...]
    num_runs: int
    lost: tuple[tuple[str, tuple[RunId, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.runs or self.lost)

    @property
    def all_runs(self) -> tuple[RunId, ...]:
        """The runs that collapsed or lost a class."""
        return in_order({*self.runs, *(run for _, runs in self.lost for run in runs)})

    def of_metric(self, metric: str) -> "Collapse":
        """The part that concerns a metric: a metric of one class is not concerned by other classes that were lost."""
        _, class_name = split_metric(metric)
        lost = tuple(found for found in self.lost if class_name is None or found[0] == class_name)
        return replace(self, lost=lost)

    def of_other_runs(self) -> "Collapse":
        """The lost classes of the runs that did not collapse as a whole."""
        others = [(name, tuple(run for run in runs if run not in self.runs)) for name, runs in self.lost]
        return Collapse((), self.num_runs, tuple((name, runs) for name, runs in others if runs))


def find_collapse(
    dice: Values,
    control_dice: Values,
    declared: Sequence[RunId],
    *,
    classes: Mapping[str, Values] | None = None,
    control_classes: Mapping[str, Values] | None = None,
) -> Collapse:
    """The runs of one variant that collapsed among those declared, judged by its validation Dice and the control's.

    `classes` and `control_classes` hold the validation Dice of each class, which shows the runs that lost one.
    """
    mine, reference = (_at(declared, values) for values in (dice, control_dice))
    best = _best(reference)
    runs = collapsed_runs(mine, best)
    if not _has_learned(mine, best):
        return Collapse(runs, len(mine))
    lost = []
    for name, values in (classes or {}).items():
        of_control = _best(_at(declared, (control_classes or {}).get(name, {})))
        missing = runs_without(_at(declared, values), of_control)
        if some := tuple(run for run in missing if _has_a_class(run, classes or {})):
            lost.append((name, some))
    return Collapse(runs, len(mine), tuple(lost))


def _has_a_class(run: RunId, classes: Mapping[str, Values]) -> bool:
    """Whether a run learned any class. One that learned none is reported as collapsed, without a list of classes."""
    return any((finite(values.get(run)) or 0.0) >= MIN_CLEARLY_LEARNED for values in classes.values())


def _at(runs: Sequence[RunId], values: Values) -> dict[RunId, float | None]:
    return {run: finite(values[run]) for run in runs if run in values}


def _best(values: Values) -> float:
    return max((value for value in values.values() if value is not None), default=0.0)


def finite(value: float | None) -> float | None:
    """The value, or None if it is NaN or infinite."""
    return value if value is not None and math.isfinite(value) else None


MIN_LEARNED = 0.1  # Dice: a run below it has learned nothing that another run could have lost

# Dice of a class that is clearly learned. A class whose Dice is lower than this everywhere, such as small lesions,
# varies so much from seed to seed that one seed below 0.1 says nothing. In experiments/*.jsonl (19 studies, 2 and 3
# classes) the classes that runs learn reach 0.55 to 0.9.
MIN_CLEARLY_LEARNED = 0.4


def collapsed_runs(values: Values, reference: float = 0.0) -> tuple[RunId, ...]:
    """The runs that collapsed while others did not: a Dice below half of the best run's, or None (diverged).

    Half of the best is far below the variation between seeds of runs that learn (some hundredths of Dice). `reference`
    is the best Dice of the control: if no run reaches half of it, the variant learns badly in every run, which is a
    difference and not a collapse. If all runs diverged, all are returned; otherwise never the best one.
    """
    best, learned = _best(values), _has_learned(values, reference)
    return in_order(run for run, value in values.items() if value is None or (learned and value < best / 2.0))


def _has_learned(values: Values, reference: float) -> bool:
    return _best(values) >= max(reference / 2.0, MIN_LEARNED)


def runs_without(values: Values, reference: float = 0.0) -> tuple[RunId, ...]:
    """The runs that never learned a class that the others learned: its Dice is below 0.1.

    The others learned it if their median is at least 0.4 and at least half of `reference`, the control's best.
    Otherwise the variant learns the class badly in every run, which is a difference. Values that are None (a class in
    neither mask) are ignored.
    """
    known = {run: value for run, value in values.items() if value is not None}
    elsewhere = [value for value in known.values() if value >= MIN_LEARNED]
    if not elsewhere or median(elsewhere) < max(MIN_CLEARLY_LEARNED, reference / 2.0):
        return ()
    return in_order(run for run, value in known.items() if value < MIN_LEARNED)
