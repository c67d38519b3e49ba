"""Means of the scores of cases: over the cases of a class first, then over classes, so that each class counts alike."""

from collections.abc import Mapping, Sequence

import numpy as np

from dlx.study.results import CaseScores, SetScores


def class_means(rows: Sequence[Mapping[str, float | None] | None], names: Sequence[str]) -> dict[str, float | None]:
    """Per class the mean over the cases (rows) that have a value."""
    means: dict[str, float | None] = {}
    for name in names:
        known = [value for row in rows if (value := (row or {}).get(name)) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def mean_of_classes(values: Mapping[str, float | None], dice: Mapping[str, float | None]) -> float | None:
    """The mean over the classes that are in any mask, which have a Dice; None if one of these has no value.

    So a class that was never predicted has no HD95, and the mean of the others does not hide that.
    """
    found = [values.get(name) for name, value in dice.items() if value is not None]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def set_scores(cases: Mapping[str, CaseScores], names: Sequence[str]) -> SetScores:
    """The scores of a set of cases with these classes, whose surfaces were measured too.

    The means are those of `engine.score`, but Dice is added up in another order: the last of 16 digits may differ.
    """
    rows = list(cases.values())
    dice = class_means([row.dice for row in rows], names)
    return SetScores(
        dice=mean_of_classes(dice, dice),
        dice_per_class=dice,
        hd95_mm_per_class=class_means([row.hd95_mm for row in rows], names),
        surface_dice_per_class=class_means([row.surface_dice for row in rows], names),
        cases=dict(cases),
    )
