"""A metric's values on each validation patient, from the records of several variants, and what they can carry."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import numpy as np

from dlx.records.schema import StudyHeader
from dlx.report.variants import VariantSummary
from dlx.statistics.comparison import MIN_PATIENTS
from dlx.statistics.estimate import Floats
from dlx.study.metrics import find_metric
from dlx.study.results import TrialResult
from dlx.study.run_id import RunId, seed_of
from dlx.study.scope import Scope

# `tests/calibration.py`: with 5 patients and 8 variants up to 7.4 % false alarms, with 10 patients no more than 4
FEW_PATIENTS = 10
MANY_VARIANTS = 5


def headline_scope(header: StudyHeader, variants: Iterable[VariantSummary]) -> tuple[Scope, str]:
    """The scope of the headline verdicts: the declared one, else the widest that the design carries; and why."""
    if header.scope is not None:
        return header.scope, "as declared"
    if header.folds:
        return Scope.PROCEDURE, f"the widest of {len(header.folds)} folds"
    if find_metric(header.metric)[0].of_case is None:
        return Scope.SEEDS, f"{header.metric} has no value for each patient"
    patients = {
        header.persons.get(case, case)
        for variant in variants
        for record in variant.records.values()
        if record.result is not None
        for case, scores in case_values(record.result, header.metric).items()
        if scores
    }
    if 0 < len(patients) < MIN_PATIENTS:
        number = "1 validation patient" if len(patients) == 1 else f"{len(patients)} validation patients"
        return Scope.SEEDS, f"{number}: nothing follows about new patients"
    if len(header.seeds) < 2:
        return Scope.SEEDS, "one seed: the variation between seeds is not known"
    if not patients:
        return Scope.SEEDS, "no run has ended yet"
    return Scope.PATIENTS, f"{len(patients)} validation patients"


def scope_remarks(header: StudyHeader, scope: Scope, num_patients: int) -> list[str]:
    """What is known to make verdicts of this scope wrong more often than 5 %, where the design has it."""
    num_variants = len(header.variants) - 1
    if scope is Scope.PATIENTS and 0 < num_patients < MIN_PATIENTS:
        return [
            f"{num_patients} validation patients: with fewer than {MIN_PATIENTS} the rate of false alarms is unknown"
        ]
    if scope is Scope.PATIENTS and 0 < num_patients < FEW_PATIENTS and num_variants >= MANY_VARIANTS:
        return [
            f"{num_patients} patients and {num_variants} variants: of simulated studies without an effect up to 7 % "
            "declared one, if seeds vary little (docs/studies.md)"
        ]
    if scope is Scope.PROCEDURE and header.settings.get("split", {}).get("train_subjects") is None:
        return [
            "the folds share most of their training subjects: an effect that all their training sets have in common "
            "cannot be seen, and makes false alarms more frequent (docs/studies.md)"
        ]
    return []


def test_to_train(header: StudyHeader, variants: Iterable[VariantSummary]) -> float | None:
    """n_test / n_train of cross-validation, in persons; None without folds.

    The persons of all folds but one may train. If fewer do (`split.train_subjects`), the folds share fewer of them: the
    ratio of all is kept, as that of the few would count the smaller training set as if it made the runs more alike.
    """
    if not header.folds:
        return None
    by_fold: dict[int, set[str]] = {}
    for variant in variants:
        for run, record in variant.records.items():
            if not isinstance(run, int) and record.result is not None:
                by_fold.setdefault(run[0], set()).update(header.persons.get(c, c) for c in record.result.val.cases)
    num_all = len(set().union(*by_fold.values()))
    ratios = [len(persons) / (num_all - len(persons)) for persons in by_fold.values() if len(persons) < num_all]
    return mean(ratios) if ratios else 1.0 / (len(header.folds) - 1)


def patient_values(
    variants: Sequence[VariantSummary], metric: str, runs: Sequence[RunId], persons: Mapping[str, str]
) -> list[Floats] | None:
    """The metric of each variant as a table (J, K) of seeds and patients; None if it has no value for each patient.

    A case counts with the classes that have a value in all runs of all these variants, a patient with the mean of its
    cases; without any it is left out. In cross-validation a seed's row holds the patients of all folds. None if a run
    is missing, and if the seeds have unlike cases, as while folds of a seed are missing.
    """
    if find_metric(metric)[0].of_case is None or not runs:
        return None
    tables = [_by_run(variant, metric, runs) for variant in variants]
    if any(table is None for table in tables):
        return None
    seeds = sorted({seed_of(run) for run in runs})
    known = [table for table in tables if table is not None]
    if not all(_seeds_have_same_cases(table) for table in known):
        return None
    classes = common_classes([values for table in known for values in table.values()])
    patients: dict[str, list[str]] = {}
    for case, names in classes.items():
        if names:
            patients.setdefault(persons.get(case, case), []).append(case)
    found = []
    for table in known:
        of_seed: dict[int, dict[str, float]] = {seed: {} for seed in seeds}
        for run, values in table.items():
            for case, scores in values.items():
                if classes[case]:
                    of_seed[seed_of(run)][case] = mean(scores[name] for name in classes[case])
        rows = [[mean(of_seed[seed][case] for case in cases) for cases in patients.values()] for seed in seeds]
        found.append(np.array(rows, dtype=np.float64).reshape(len(seeds), len(patients)))
    return found


def _seeds_have_same_cases(table: Mapping[RunId, "Cases"]) -> bool:
    """Whether the runs of each seed validate the same cases, each case once; False if two folds validate one case."""
    of_seed: dict[int, list[str]] = {}
    for run, values in table.items():
        of_seed.setdefault(seed_of(run), []).extend(values)
    first, *others = (sorted(cases) for cases in of_seed.values())
    return len(set(first)) == len(first) and all(cases == first for cases in others)


Cases = dict[str, dict[str, float]]  # case -> class -> value


def _by_run(variant: VariantSummary, metric: str, runs: Iterable[RunId]) -> dict[RunId, Cases] | None:
    """The values of each run's cases; None if a run has no result."""
    found: dict[RunId, Cases] = {}
    for run in runs:
        record = variant.records.get(run)
        if record is None or record.result is None:
            return None
        found[run] = case_values(record.result, metric)
    return found


def case_values(result: TrialResult, metric: str) -> Cases:
    """Case -> class -> value, without classes that have no value; cases must have values of this metric."""
    entry, class_name = find_metric(metric)
    assert entry.of_case is not None
    return {
        case: {
            name: value
            for name, value in (entry.of_case(scores) or {}).items()
            if value is not None and class_name in (None, name)
        }
        for case, scores in result.val.cases.items()
    }


def common_classes(runs: Iterable[Cases]) -> dict[str, list[str]]:
    """Case -> the classes that have a value in every run that validates it."""
    common: dict[str, list[str]] = {}
    for cases in runs:
        for case, scores in cases.items():
            common[case] = [name for name in common.get(case, scores) if name in scores]
    return common
