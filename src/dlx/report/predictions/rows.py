"""The rows of tables of evaluated predictions: each class over the cases, and the cases from the hardest on."""

from collections.abc import Iterable
from dataclasses import dataclass

from dlx.scoring.means import mean_of_classes
from dlx.statistics.claims import Estimate
from dlx.study.results import CaseScores, SetScores


@dataclass(frozen=True)
class Spread:
    """A mean and a standard deviation over n cases."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class ClassRow:
    """A class over the cases that have a value, or with `name` None all classes.

    Of all classes, `dice`, `hd95` and `surface_dice` are the means of the classes' means (as in training's tables), and
    their spread is over cases, of which each counts with the mean over its classes.
    """

    name: str | None
    num_cases: int  # with a Dice
    dice: Spread
    hd95: Spread
    surface_dice: Spread
    worst: tuple[str, float] | None  # the case with the lowest Dice


@dataclass(frozen=True)
class CaseRow:
    """A case: the means over its classes, and the class with the lowest Dice.

    HD95 is None if one of the masks lacks a class that the other has.
    """

    case: str
    dice: float | None
    hd95: float | None
    surface_dice: float | None
    lowest: tuple[str, float] | None


def class_rows(scores: SetScores) -> list[ClassRow]:
    """A row for each class, and one of all."""
    cases, dice = case_rows(scores), scores.dice_per_class
    columns = (dice, scores.hd95_mm_per_class or {}, scores.surface_dice_per_class or {})
    over_cases = [[getattr(row, name) for row in cases] for name in ("dice", "hd95", "surface_dice")]
    of_all = [_spread(mean_of_classes(means, dice), row) for means, row in zip(columns, over_cases, strict=True)]
    mean = ClassRow(
        name=None,
        num_cases=sum(row.dice is not None for row in cases),
        dice=of_all[0],
        hd95=of_all[1],
        surface_dice=of_all[2],
        worst=_lowest((row.case, row.dice) for row in cases),
    )
    return [*(_of_class(scores, name) for name in dice), mean]


def _of_class(scores: SetScores, name: str) -> ClassRow:
    cases = scores.cases.values()
    dice = _spread(scores.dice_per_class[name], [case.dice[name] for case in cases])
    return ClassRow(
        name=name,
        num_cases=dice.n,
        dice=dice,
        hd95=_spread((scores.hd95_mm_per_class or {}).get(name), [(case.hd95_mm or {}).get(name) for case in cases]),
        surface_dice=_spread(
            (scores.surface_dice_per_class or {}).get(name), [(case.surface_dice or {}).get(name) for case in cases]
        ),
        worst=_lowest((case, of.dice[name]) for case, of in scores.cases.items()),
    )


def _spread(mean: float | None, values: Iterable[float | None]) -> Spread:
    over_cases = Estimate.of(values)
    return Spread(mean, over_cases.sd, over_cases.n)


def case_rows(scores: SetScores) -> list[CaseRow]:
    """A row for each case, in their order."""
    return [_of_case(case, of) for case, of in scores.cases.items()]


def hardest(rows: Iterable[CaseRow], most: int) -> list[CaseRow]:
    """The cases with the lowest Dice, the lowest first; those without a Dice are left out."""
    known = [(row.dice, row) for row in rows if row.dice is not None]
    return [row for _, row in sorted(known, key=lambda pair: pair[0])][:most]


def _of_case(case: str, scores: CaseScores) -> CaseRow:
    return CaseRow(
        case=case,
        dice=mean_of_classes(scores.dice, scores.dice),
        hd95=mean_of_classes(scores.hd95_mm or {}, scores.dice),
        surface_dice=mean_of_classes(scores.surface_dice or {}, scores.dice),
        lowest=_lowest(scores.dice.items()),
    )


def _lowest(values: Iterable[tuple[str, float | None]]) -> tuple[str, float] | None:
    """The name with the lowest value."""
    known = [(name, value) for name, value in values if value is not None]
    return min(known, key=lambda pair: pair[1], default=None)
