"""For whom a study's verdicts hold: the scope of its headline, why, and what makes such verdicts wrong more often."""

from collections.abc import Iterable
from statistics import mean

from dlx.records.schema import StudyHeader
from dlx.report.findings.patients import case_values
from dlx.report.findings.variants import VariantSummary
from dlx.settings.text import counted
from dlx.statistics.comparison import MIN_PATIENTS
from dlx.study.metrics import find_metric
from dlx.study.scope import Scope

# `tests/calibration.py`: with 5 patients and 8 variants up to 7.4 % false alarms, with 10 patients no more than 4
FEW_PATIENTS = 10
MANY_VARIANTS = 5
FEW_SEEDS = 4  # a t interval of 3 seeds is 2.2 times as wide as that of many; of 2 seeds 6.5 times


def headline_scope(header: StudyHeader, variants: Iterable[VariantSummary]) -> tuple[Scope, str]:
    """The scope of the headline verdicts: the declared one, else the widest that the design carries; and why."""
    if header.scope is not None:
        return header.scope, "as declared"
    if header.folds:
        return Scope.PROCEDURE, f"the widest scope that {len(header.folds)} folds carry"
    if find_metric(header.metric)[0].of_case is None:
        return Scope.SEEDS, f"{header.metric} has no value for each patient"
    num_patients = header.num_val_persons or _num_scored_persons(header, variants)
    if 0 < num_patients < MIN_PATIENTS:
        return Scope.SEEDS, f"{counted(num_patients, 'validation patient')}: nothing follows about new patients"
    if len(header.seeds) < 2:
        return Scope.SEEDS, "one seed: the variation between seeds is not known"
    if not num_patients:
        return Scope.SEEDS, "no run has ended yet"
    return Scope.PATIENTS, f"{num_patients} validation patients"


def _num_scored_persons(header: StudyHeader, variants: Iterable[VariantSummary]) -> int:
    """The persons with a value of the metric in some run, for records whose header does not count them."""
    return len(
        {
            header.persons.get(case, case)
            for variant in variants
            for record in variant.records.values()
            if record.result is not None
            for case, scores in case_values(record.result, header.metric).items()
            if scores
        }
    )


def scope_remarks(header: StudyHeader, scope: Scope, num_patients: int) -> list[str]:
    """What makes verdicts of this scope wrong more often than 5 %, and what makes intervals wide, where it applies."""
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
    num_folds, num_seeds = len(header.folds), len(header.seeds)
    if scope is Scope.PATIENTS and num_patients > 0 and num_seeds == 2:
        return [
            "2 seeds: of simulated intervals for new patients up to 8 % missed the truth, not 5 %; with three seeds it "
            "is 5 % (docs/studies.md)"
        ]
    remarks = []
    if scope is Scope.PROCEDURE and 1 < num_seeds < FEW_SEEDS:
        remarks.append(
            f"the intervals for new seeds and new patients rest on {num_seeds} seeds and are wide; those for new "
            f"training sets rest on all {num_folds * num_seeds} runs"
        )
    shares_training = num_folds > 2 and header.settings.get("split", {}).get("train_subjects") is None
    if scope is Scope.PROCEDURE and shares_training:  # two folds share nobody
        remarks.append(
            "the folds share most of their training subjects: an effect that all their training sets have in common "
            "cannot be seen, and makes false alarms more frequent (docs/studies.md)"
        )
    return remarks


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
