"""What would settle a study's open verdicts: the median variances, and the designs that suffice, with their cost."""

from dataclasses import dataclass, replace
from statistics import mean

from dlx.report.findings.summary import Summary
from dlx.statistics.decision import ALPHA
from dlx.statistics.estimate import FoldComponents
from dlx.statistics.power import (
    MAX_NUMBER,
    FoldDesign,
    Needed,
    PatientDesign,
    PowerDesign,
    SeedDesign,
    median_design,
    needed,
    patients_needed,
    seeds_needed,
)
from dlx.study.scope import Scope

NUM_FOLDS = 5  # of cross-validation where a study has none
MAX_TIMES_PATIENTS = 20  # more subjects than that are another study, for which the parts of folds tell nothing
MIN_PER_FOLD = 5  # patients of a fold, below which such a cross-validation is not proposed


@dataclass(frozen=True)
class PlannedStudy:
    """A study that finds the smallest effect of interest with 80 % power in its scope, and what it costs.

    `num_patients` validate, with all folds together; None: as many as now. `num_new` of the trials have not ended;
    `seconds` are their time on one machine that runs one at a time, None where no trial has ended.
    """

    scope: Scope
    num_seeds: int  # in each fold
    num_folds: int  # 0 without cross-validation
    num_patients: int | None
    num_trials: int
    num_new: int
    seconds: float | None


@dataclass(frozen=True)
class StudyPlan:
    """What the open comparisons need, by the medians of their variances.

    `design` is the present one. `num_open` of the comparisons are open; `studies` are those that would suffice.
    """

    effect: float
    num_open: int
    design: PowerDesign
    needed: Needed
    studies: tuple[PlannedStudy, ...]


def plan_study(summary: Summary) -> StudyPlan | None:
    """The plan for the open comparisons; None if there is none, or if nothing is known of their variances.

    The time of a trial is the mean of those that ended; validating more patients is not counted in it.
    """
    header = summary.header
    rows = [variant.comparison for variant in summary.variants if variant.comparison is not None]
    open_rows = [row for row in rows if not row.verdict.is_settled]
    design = median_design(row.design for row in open_rows)
    if design is None:
        return None
    effect, alpha = header.smallest_effect, ALPHA / len(rows)
    found = needed(design, effect, alpha=alpha)
    seconds = [record.run.seconds for variant in summary.variants for record in variant.records.values()]

    def planned(scope: Scope, num_seeds: int, num_folds: int, num_patients: int | None = None) -> PlannedStudy:
        num_trials = len(summary.variants) * num_seeds * max(1, num_folds)
        num_new = num_trials - (summary.num_done if num_patients is None else 0)  # other patients: another split
        cost = num_new * mean(seconds) if seconds else None
        return PlannedStudy(scope, num_seeds, num_folds, num_patients, num_trials, num_new, cost)

    studies, num_folds = [], len(header.folds)
    if found.seeds is not None:
        studies.append(planned(summary.scope, max(found.seeds, len(header.seeds)), num_folds))
    present = 0 if isinstance(design, SeedDesign) else design.num_patients
    most = MAX_TIMES_PATIENTS * present if isinstance(design, FoldDesign) else MAX_NUMBER
    if found.patients is not None and present < found.patients <= most:  # with fewer, the present seeds suffice too
        studies.append(planned(summary.scope, design.num_seeds, num_folds, found.patients))
    if isinstance(design, PatientDesign):
        if not studies:
            both = seeds_and_patients(design, effect, alpha=alpha)
            studies += [planned(summary.scope, both[0], num_folds, both[1])] if both is not None else []
        num_persons = None if num_folds else _num_persons(summary)
        crossed = seeds_of_folds(design, num_persons, effect, alpha=alpha)
        if crossed is not None:
            studies.append(planned(Scope.PROCEDURE, crossed, NUM_FOLDS, num_persons))
    return StudyPlan(effect, len(open_rows), design, found, tuple(studies))


def seeds_and_patients(design: PatientDesign, effect: float, *, alpha: float) -> tuple[int, int] | None:
    """Seeds and patients that suffice together where more of one do not.

    The patients are doubled as long as this saves a quarter of the seeds: a trial costs more than a patient.
    """
    num_patients, fewest_seeds = design.num_patients, None
    while num_patients < MAX_NUMBER:
        num_patients *= 2
        found = seeds_needed(replace(design, num_patients=num_patients), effect, alpha=alpha)
        if found is not None and fewest_seeds is not None and found > 0.75 * fewest_seeds:
            break
        fewest_seeds = found
    if fewest_seeds is None:
        return None
    patients = patients_needed(replace(design, num_seeds=fewest_seeds), effect, alpha=alpha)
    return None if patients is None else (fewest_seeds, patients)


def _num_persons(summary: Summary) -> int | None:
    """The persons in the data; of older records those of the control's runs, if none was left out of training."""
    header = summary.header
    if header.num_persons is not None or header.settings.get("split", {}).get("train_subjects") is not None:
        return header.num_persons
    results = [record.result for variant in summary.variants for record in variant.records.values()]
    cases = {case for result in results if result is not None for case in (*result.train.cases, *result.val.cases)}
    return len({header.persons.get(case, case) for case in cases})


def seeds_of_folds(design: PatientDesign, num_persons: int | None, effect: float, *, alpha: float) -> int | None:
    """The seeds in each of five folds over all persons that find a true difference `effect` for new training sets.

    One training set does not show how much others differ, so their variance is taken as 0. None if no number of seeds
    suffices, and if the persons are unknown or too few.
    """
    if num_persons is None or num_persons < NUM_FOLDS * MIN_PER_FOLD:
        return None
    each, parts = num_persons / NUM_FOLDS, design.parts
    of_folds = FoldComponents(parts.patient / each, parts.seed + parts.residual / each)
    crossed = FoldDesign(of_folds, NUM_FOLDS, num_seeds=2, test_to_train=1.0 / (NUM_FOLDS - 1))
    return seeds_needed(crossed, effect, alpha=alpha)
