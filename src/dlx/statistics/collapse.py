"""Which runs of a variant collapsed, or never learned a class that others learned; decided before any test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from dlx.study.metrics import split_metric

Values = Mapping[int, float | None]  # by seed: a missing one has not run yet, None diverged or failed


@dataclass(frozen=True)
class Collapse:
    """The runs of a variant that collapsed, among `num_runs` runs that ended.

    The runs of `seeds` collapsed or diverged as a whole. `lost` holds classes, each with the seeds that never learned
    it, although they may have learned others. False if both are empty.
    """

    seeds: tuple[int, ...]
    num_runs: int
    lost: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.seeds or self.lost)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds whose run collapsed or lost a class."""
        return tuple(sorted({*self.seeds, *(seed for _, seeds in self.lost for seed in seeds)}))

    def of_metric(self, metric: str) -> "Collapse":
        """The part that concerns a metric: a metric of one class is not concerned by other classes that were lost."""
        _, class_name = split_metric(metric)
        lost = tuple(found for found in self.lost if class_name is None or found[0] == class_name)
        return replace(self, lost=lost)

    def of_other_seeds(self) -> "Collapse":
        """The lost classes of the runs that did not collapse as a whole."""
        others = [(name, tuple(seed for seed in seeds if seed not in self.seeds)) for name, seeds in self.lost]
        return Collapse((), self.num_runs, tuple((name, seeds) for name, seeds in others if seeds))


def find_collapse(
    dice: Values,
    control_dice: Values,
    declared_seeds: Sequence[int],
    *,
    classes: Mapping[str, Values] | None = None,
    control_classes: Mapping[str, Values] | None = None,
) -> Collapse:
    """The runs of one variant that collapsed at the declared seeds, judged by its validation Dice and the control's.

    `classes` and `control_classes` hold the validation Dice of each class, which shows the seeds that lost one.
    """
    mine, reference = (_at(declared_seeds, values) for values in (dice, control_dice))
    best = _best(reference)
    seeds = collapsed_seeds(mine, best)
    if not _has_learned(mine, best):
        return Collapse(seeds, len(mine))
    lost = []
    for name, values in (classes or {}).items():
        of_control = _best(_at(declared_seeds, (control_classes or {}).get(name, {})))
        missing = seeds_without(_at(declared_seeds, values), of_control)
        if some := tuple(seed for seed in missing if _has_a_class(seed, classes or {})):
            lost.append((name, some))
    return Collapse(seeds, len(mine), tuple(lost))


def _has_a_class(seed: int, classes: Mapping[str, Values]) -> bool:
    """Whether a run learned any class. One that learned none is reported as collapsed, without a list of classes."""
    return any((finite(values.get(seed)) or 0.0) >= MIN_CLEARLY_LEARNED for values in classes.values())


def _at(seeds: Sequence[int], values: Values) -> dict[int, float | None]:
    return {seed: finite(values[seed]) for seed in seeds if seed in values}


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


def collapsed_seeds(values: Values, reference: float = 0.0) -> tuple[int, ...]:
    """The seeds whose run collapsed while others did not: a Dice below half of the best run's, or None (diverged).

    Half of the best is far below the variation between seeds of runs that learn (some hundredths of Dice). `reference`
    is the best Dice of the control: if no run reaches half of it, the variant learns badly on every seed, which is a
    difference and not a collapse. If all runs diverged, all seeds are returned; otherwise never the best one.
    """
    best, learned = _best(values), _has_learned(values, reference)
    return tuple(sorted(s for s, value in values.items() if value is None or (learned and value < best / 2.0)))


def _has_learned(values: Values, reference: float) -> bool:
    return _best(values) >= max(reference / 2.0, MIN_LEARNED)


def seeds_without(values: Values, reference: float = 0.0) -> tuple[int, ...]:
    """The seeds that never learned a class that the other seeds learned: its Dice is below 0.1.

    The others learned it if their median is at least 0.4 and at least half of `reference`, the control's best.
    Otherwise the variant learns the class badly on every seed, which is a difference. Values that are None (a class in
    neither mask) are ignored.
    """
    known = {seed: value for seed, value in values.items() if value is not None}
    elsewhere = [value for value in known.values() if value >= MIN_LEARNED]
    if not elsewhere or median(elsewhere) < max(MIN_CLEARLY_LEARNED, reference / 2.0):
        return ()
    return tuple(sorted(seed for seed, value in known.items() if value < MIN_LEARNED))
