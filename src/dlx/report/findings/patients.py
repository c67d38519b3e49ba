"""A metric's values on each validation patient, from the records of several variants."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import numpy as np

from dlx.report.findings.variants import VariantSummary
from dlx.statistics.estimate import Floats
from dlx.study.metrics import find_metric
from dlx.study.results import CaseScores, TrialResult
from dlx.study.run_id import RunId, seed_of


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
    """The `values_of` the validation cases of a trial."""
    return values_of(result.val.cases, metric)


def values_of(cases: Mapping[str, CaseScores], metric: str) -> Cases:
    """Case -> class -> value, without classes that have no value; cases must have values of this metric."""
    entry, class_name = find_metric(metric)
    assert entry.of_case is not None
    return {
        case: {
            name: value
            for name, value in (entry.of_case(scores) or {}).items()
            if value is not None and class_name in (None, name)
        }
        for case, scores in cases.items()
    }


def common_classes(runs: Iterable[Cases]) -> dict[str, list[str]]:
    """Case -> the classes that have a value in every run that validates it."""
    common: dict[str, list[str]] = {}
    for cases in runs:
        for case, scores in cases.items():
            common[case] = [name for name in common.get(case, scores) if name in scores]
    return common
