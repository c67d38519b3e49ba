"""Refuses, before any training, a declared scope that a study's design cannot carry."""

from collections.abc import Iterable

from dlx.data.layouts.listing import name_some
from dlx.data.splits.split import Split, validated_twice
from dlx.study.metrics import METRICS, find_metric
from dlx.study.scope import Scope
from dlx.study.study import Study
from dlx.system.errors import SettingError
from dlx.trial.resolve import Resolved


def check_scope(study: Study, resolved: Iterable[Resolved]) -> None:
    """Raises SettingError, which says what to change, if verdicts of the declared scope could never be given."""
    if study.scope is Scope.PROCEDURE and not study.folds:
        raise SettingError(
            "scope 'procedure': verdicts for new training sets take cross-validation: add --fold all "
            "(split.fold = \"all\"), or choose the scope 'patients'"
        )
    if study.scope is Scope.SEEDS and len(study.seeds) < 2:
        raise SettingError("scope 'seeds': one seed carries no verdict for new seeds: train several (--seeds 5)")
    if study.scope is not Scope.PATIENTS:
        return
    if find_metric(study.metric)[0].of_case is None:
        having = ", ".join(name for name, metric in METRICS.items() if metric.of_case is not None)
        raise SettingError(
            f"scope 'patients': {study.metric} has no value for each patient: choose another metric ({having}), or the "
            "scope 'seeds'"
        )
    if len(study.seeds) < 2:
        raise SettingError(
            "scope 'patients': with one seed the variation between seeds is not known: train several (--seeds 5)"
        )
    by_fold: dict[int | str | None, Split] = {}
    for one in resolved:
        by_fold.setdefault(one.spec.split.fold, one.split)  # all variants of a fold validate the same
    several = validated_twice([*by_fold.values()])
    if several:
        raise SettingError(
            f"scope 'patients': more than one fold validates {name_some(several)}: use folds that validate each case "
            "once, or choose the scope 'procedure' or 'seeds'"
        )
    if num_val_persons(by_fold.values()) < 2:
        raise SettingError(
            "scope 'patients': nothing about new patients follows from 1 validation patient: validate on more, as with "
            "--fold 0 --folds 5 or --val-fraction 0.2, or choose the scope 'seeds'"
        )


def num_val_persons(splits: Iterable[Split]) -> int:
    """The number of persons who validate in any of these splits of one data set."""
    known = [*splits]
    persons = dict(pair for split in known for pair in split.persons)
    return len({persons.get(case, case) for split in known for case in split.val})
