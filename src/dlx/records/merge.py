"""Merges the records of one study from several folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlx.records.archive import StudyRecords, TrialHistory, looks_in_order
from dlx.settings.layers import settings_differences
from dlx.study.run_id import spell_run
from dlx.system.errors import DataError


def merge_studies(studies: Sequence[tuple[Path, StudyRecords]]) -> StudyRecords:
    """The union of the variants, seeds and trials of several records of one study.

    If several contain a trial, a finished one is used, else one that ended, else the one with most epochs. DataError if
    the studies differ in what they measure or in the person of a case, or if a variant has different settings in two of
    them.
    """
    (_, first), *others = studies
    header, trials, looks = first.header, {(t.entry.label, t.entry.run): t for t in first.trials}, list(first.looks)
    for path, study in others:
        theirs = study.header
        for key in ("metric", "control", "smallest_effect", "epochs", "folds", "scope", "claims"):
            asked, ours = (study.model_dump(mode="json")[key] for study in (theirs, header))
            if asked != ours:
                raise DataError(f"{path}: not the same study: its {key} is {asked!r}, not {ours!r}")
        _check_persons(path, header.persons, theirs.persons)
        _check_settings(path, StudyRecords(header, tuple(trials.values()), ()), study)
        for trial in study.trials:
            place = (trial.entry.label, trial.entry.run)
            known = trials.get(place)
            if known is not None and known.entry.trial != trial.entry.trial:
                raise DataError(
                    f"{path}: '{place[0]}', {spell_run(place[1])}, has other settings there, or another device"
                )
            if known is None or _progress(trial) > _progress(known):
                trials[place] = trial
        labels = [variant.label for variant in header.variants]
        header = header.model_copy(
            update={
                "variants": (*header.variants, *(v for v in theirs.variants if v.label not in labels)),
                "seeds": tuple(dict.fromkeys((*header.seeds, *theirs.seeds))),
                "persons": header.persons | theirs.persons,
                "trials": tuple(trial.entry for trial in trials.values()),
                "declared_late": tuple(dict.fromkeys((*header.declared_late, *theirs.declared_late))),
            }
        )
        looks += study.looks
    return StudyRecords(header, tuple(trials.values()), looks_in_order(looks))


def _progress(trial: TrialHistory) -> tuple[bool, bool, int]:
    """How far a trial came, as a sort key."""
    record = trial.record
    return record is not None and record.status == "done", record is not None, len(trial.epochs)


def _check_persons(path: Path, ours: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    """Refuses records that name persons and disagree about one; a case that is not listed is its own person."""
    if not ours or not theirs:
        return  # older records name no persons
    for case in sorted({*ours, *theirs}):
        mine, other = ours.get(case, case), theirs.get(case, case)
        if mine != other:
            raise DataError(f"{path}: case {case!r} belongs to the person {other!r} there, not to {mine!r}")


def _check_settings(path: Path, ours: StudyRecords, theirs: StudyRecords) -> None:
    """Refuses a study with a variant whose settings differ from ours of the same name and fold, for any seed."""
    labels = {variant.label for variant in theirs.header.variants}
    for label in sorted(labels & {variant.label for variant in ours.header.variants}):
        for fold in ours.header.folds or (None,):
            mine, other = _settings_of(ours, label, fold), _settings_of(theirs, label, fold)
            differences = [] if mine is None or other is None else settings_differences(mine, other)
            if differences:
                raise DataError(f"{path}: '{label}' has other settings there: {'; '.join(differences[:3])}")


def _settings_of(records: StudyRecords, label: str, fold: int | None) -> dict[str, Any] | None:
    """The settings that all trials of a variant share in a fold; None before one of them has ended."""
    ended = (t for t in records.trials if t.record is not None)
    found = next((t.record for t in ended if (t.entry.label, t.entry.fold) == (label, fold)), None)
    if found is None:
        return None
    compute = {key: value for key, value in found.settings.get("compute", {}).items() if key == "precision"}
    shared = {key: value for key, value in found.settings.items() if key != "seed"}
    return shared | {"compute": compute}  # trials of another device may be merged: seeds are paired by device
