"""Sets of predictions compared with the first one, patient by patient, in each metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from dlx.evaluation.evaluate import EvaluatedSet, Evaluation
from dlx.report.findings.patients import Cases, common_classes, values_of
from dlx.statistics.claims import interval_of
from dlx.statistics.comparison import MIN_PATIENTS, Comparison
from dlx.statistics.estimate import Floats, over_patients_alone
from dlx.statistics.predictions import compare_predictions
from dlx.study.metrics import direction_of
from dlx.study.results import CaseScores

METRICS_OF_CASES = ("val_dice", "hd95_mm", "surface_dice")  # keys of `METRICS` in `study.metrics`


@dataclass(frozen=True)
class PairedMeans:
    """The means of two sets over the n patients that have a value in both, and the difference, second minus first.

    The interval (95 %) is None for fewer than five patients.
    """

    n: int
    first: float | None
    second: float | None
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class MetricComparison:
    """Two sets in one metric: of each class, and of all with the verdict.

    `num_structures` counts the structures (a class in a case) that have a Dice in either set. Of the first and of the
    second set, `num_missed` counts those with a Dice and without a value of this metric: HD95, where one mask lacks the
    class. `num_alone` counts those that have a Dice in this set alone: predicted, though no other mask has the class.
    """

    metric: str
    classes: Mapping[str, PairedMeans]
    overall: PairedMeans
    judged: Comparison
    num_structures: int
    num_missed: tuple[int, int]
    num_alone: tuple[int, int]


@dataclass(frozen=True)
class CaseDifference:
    """The Dice of a case in two sets, each the mean over the classes that both have."""

    case: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        return self.second - self.first


@dataclass(frozen=True)
class SetComparison:
    """A set against the first one. `cases` are in the order of the evaluation; `is_equal` if all scores are equal."""

    label: str
    metrics: Mapping[str, MetricComparison]
    cases: tuple[CaseDifference, ...]
    is_equal: bool

    @property
    def by_size(self) -> list[CaseDifference]:
        """The cases, those with the largest difference first."""
        return sorted(self.cases, key=lambda found: -abs(found.difference))


def compare_sets(
    evaluation: Evaluation, persons: Mapping[str, str], smallest_effect: float
) -> tuple[SetComparison, ...]:
    """Each set but the first against it. `persons` names the person of a case; a case without one is its own.

    A patient counts with the mean over the cases of the person, and a case with the mean over the classes that have a
    value in both sets, as in studies. `smallest_effect` is of Dice and surface Dice; for HD95 it is the tolerance.
    """
    first, *others = evaluation.sets
    margins = dict.fromkeys(METRICS_OF_CASES, smallest_effect) | {"hd95_mm": evaluation.tolerance_mm}
    by_metric = {metric: _compare(metric, first, others, persons, margin) for metric, margin in margins.items()}
    return tuple(
        SetComparison(
            label=label,
            metrics={metric: found[label] for metric, found in by_metric.items()},
            cases=_case_differences(first.scores.cases, one.scores.cases),
            is_equal=one.scores == first.scores,
        )
        for one in others
        for label in [one.predictions.label]
    )


def _compare(
    metric: str, first: EvaluatedSet, others: Sequence[EvaluatedSet], persons: Mapping[str, str], margin: float
) -> dict[str, MetricComparison]:
    """Each of the others against the first set in one metric."""
    reference = values_of(first.scores.cases, metric)
    values = {one.predictions.label: values_of(one.scores.cases, metric) for one in others}
    pairs = {label: person_values(reference, of, persons) for label, of in values.items()}
    judged = compare_predictions(
        {label: second - first for label, (first, second) in pairs.items()},
        margin,
        higher_is_better=direction_of(metric) == "higher",
    )
    found = {}
    for one, row in zip(others, judged, strict=True):
        of = values[row.label]
        classes = {
            name: _paired(*person_values(_only(reference, name), _only(of, name), persons))
            for name in first.scores.dice_per_class
        }
        dice = [_structures(either, "val_dice") for either in (first, one)]
        own = [_structures(either, metric) for either in (first, one)]
        found[row.label] = MetricComparison(
            metric=metric,
            classes=classes,
            overall=_paired(*pairs[row.label]),
            judged=row,
            num_structures=len(dice[0] | dice[1]),
            num_missed=(len(dice[0] - own[0]), len(dice[1] - own[1])),
            num_alone=(len(dice[0] - dice[1]), len(dice[1] - dice[0])),
        )
    return found


def _structures(one: EvaluatedSet, metric: str) -> set[tuple[str, str]]:
    """The cases and classes that have a value."""
    return {(case, name) for case, values in values_of(one.scores.cases, metric).items() for name in values}


def _only(cases: Cases, name: str) -> Cases:
    """The values of one class."""
    return {case: {name: values[name]} if name in values else {} for case, values in cases.items()}


def person_values(first: Cases, second: Cases, persons: Mapping[str, str]) -> tuple[Floats, Floats]:
    """The values (K) of both sets on each person, by the classes that have a value in both; persons without are left
    out.
    """
    classes = common_classes([first, second])
    cases_of: dict[str, list[str]] = {}
    for case, names in classes.items():
        if names:
            cases_of.setdefault(persons.get(case, case), []).append(case)
    rows = [
        [mean(mean(of[case][name] for name in classes[case]) for case in cases) for cases in cases_of.values()]
        for of in (first, second)
    ]
    return np.array(rows[0], dtype=np.float64), np.array(rows[1], dtype=np.float64)


def _paired(first: Floats, second: Floats) -> PairedMeans:
    if len(first) == 0:
        return PairedMeans(0, None, None, None, None)
    estimate = over_patients_alone(second - first)
    ends = interval_of(estimate) if len(first) >= MIN_PATIENTS else None
    return PairedMeans(len(first), float(first.mean()), float(second.mean()), float(estimate.mean), ends)


def _case_differences(first: Mapping[str, CaseScores], second: Mapping[str, CaseScores]) -> tuple[CaseDifference, ...]:
    dice = [values_of(cases, "val_dice") for cases in (first, second)]
    classes = common_classes(dice)
    return tuple(
        CaseDifference(case, *(mean(of[case][name] for name in names) for of in dice))
        for case, names in classes.items()
        if names
    )
