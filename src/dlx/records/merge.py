"""Folders of one study merged into one."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dlx.records.archive import StudyRecords, TrialRecords
from dlx.records.schema import Look
from dlx.settings.layers import settings_differences
from dlx.system.errors import DataError


def looks_in_order(looks: Iterable[Look]) -> tuple[Look, ...]:
    """Looks by their time, each once."""
    once: list[Look] = []
    for look in looks:
        once += [look] if look not in once else []
    return tuple(sorted(once, key=lambda look: look.shown_utc))


def merge_studies(studies: Sequence[tuple[Path, StudyRecords]]) -> StudyRecords:
    """Several folders of one study as one: the union of their variants, seeds and trials.

    Of a trial that several have, a finished one is taken, else one that ended, else the one with more epochs. DataError
    where they do not measure the same, or where a variant stands for unlike settings.
    """
    (_, first), *others = studies
    header, trials, looks = first.header, {(t.entry.label, t.entry.seed): t for t in first.trials}, list(first.looks)
    for path, study in others:
        theirs = study.header
        for key in ("metric", "control", "smallest_effect", "epochs", "claims"):
            if getattr(theirs, key) != getattr(header, key):
                asked = f"{getattr(theirs, key)!r} and not {getattr(header, key)!r}"
                raise DataError(f"{path}: is not of the same study: its {key} is {asked}")
        _check_settings(path, StudyRecords(header, tuple(trials.values()), ()), study)
        for trial in study.trials:
            place = (trial.entry.label, trial.entry.seed)
            known = trials.get(place)
            if known is not None and known.entry.trial != trial.entry.trial:
                raise DataError(f"{path}: '{place[0]}', seed {place[1]}, has other settings (or another device) there")
            if known is None or _progress(trial) > _progress(known):
                trials[place] = trial
        labels = [variant.label for variant in header.variants]
        header = header.model_copy(
            update={
                "variants": (*header.variants, *(v for v in theirs.variants if v.label not in labels)),
                "seeds": tuple(dict.fromkeys((*header.seeds, *theirs.seeds))),
                "trials": tuple(trial.entry for trial in trials.values()),
                "declared_late": tuple(dict.fromkeys((*header.declared_late, *theirs.declared_late))),
            }
        )
        looks += study.looks
    return StudyRecords(header, tuple(trials.values()), looks_in_order(looks))


def _progress(trial: TrialRecords) -> tuple[bool, bool, int]:
    """How far a trial came, to be compared."""
    record = trial.record
    return record is not None and record.status == "done", record is not None, len(trial.epochs)


def _check_settings(path: Path, ours: StudyRecords, theirs: StudyRecords) -> None:
    """Refuses a study one of whose variants has other settings than ours of that name, on whatever seeds."""
    labels = {variant.label for variant in theirs.header.variants}
    for label in sorted(labels & {variant.label for variant in ours.header.variants}):
        mine, other = _settings_of(ours, label), _settings_of(theirs, label)
        differences = [] if mine is None or other is None else settings_differences(mine, other)
        if differences:
            raise DataError(f"{path}: '{label}' has other settings there: {'; '.join(differences[:3])}")


def _settings_of(records: StudyRecords, label: str) -> dict[str, Any] | None:
    """The settings a variant's trials share; None before one of them has ended."""
    found = next((t.record for t in records.trials if t.entry.label == label and t.record is not None), None)
    if found is None:
        return None
    compute = {key: value for key, value in found.settings.get("compute", {}).items() if key == "precision"}
    shared = {key: value for key, value in found.settings.items() if key != "seed"}
    return shared | {"compute": compute}  # seeds of another device are paired among themselves
