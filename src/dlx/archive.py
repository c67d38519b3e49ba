"""A study's records together: read from its folder or from one file of JSON lines, merged, and written as such a file.

The file, `experiments/NAME.jsonl`, holds the header, the looks and a line a trial with all its epochs: everything a
report is made from, without the checkpoints.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dlx.errors import DataError
from dlx.files import write_atomically
from dlx.records import EpochRecord, Look, StudyHeader, TrialEntry, TrialRecord
from dlx.store import StudyFolder


@dataclass(frozen=True)
class TrialRecords:
    """What is known of one trial: its place in the study, its epochs so far, and its result once it has one."""

    entry: TrialEntry
    epochs: tuple[EpochRecord, ...]
    record: TrialRecord | None
    folder: Path | None = None


@dataclass(frozen=True)
class StudyRecords:
    """A study's header, all its trials in the header's order, and the looks at its verdicts."""

    header: StudyHeader
    trials: tuple[TrialRecords, ...]
    looks: tuple[Look, ...]


def read_study(path: Path) -> StudyRecords:
    """The records in a study's folder or file of JSON lines; DataError where there is no study or it is damaged."""
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_archive(path)
    raise DataError(f"{path}: is not there")


def _read_folder(path: Path) -> StudyRecords:
    folder = StudyFolder(path)
    header = folder.header()
    if header is None:
        raise DataError(f"{path}: holds no study (no study.json)")
    trials = []
    for entry in header.trials:
        found = folder.trial(entry.label, entry.seed, entry.trial)
        trials.append(TrialRecords(entry, tuple(found.epochs()), found.result(), found.path))
    return StudyRecords(header, tuple(trials), tuple(folder.looks()))


def _read_archive(path: Path) -> StudyRecords:
    header: StudyHeader | None = None
    looks: list[Look] = []
    known: dict[str, tuple[tuple[EpochRecord, ...], TrialRecord | None]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            if "study" in document:
                header = StudyHeader.model_validate(document["study"])
            elif "look" in document:
                looks.append(Look.model_validate(document["look"]))
            else:
                epochs = tuple(EpochRecord.model_validate(epoch) for epoch in document["epochs"])
                record = document["record"]
                known[document["trial"]] = (epochs, TrialRecord.model_validate(record) if record else None)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:  # ValidationError is a ValueError
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(f"{path}: not a study's records ({cause})") from None
    if header is None:
        raise DataError(f"{path}: holds no study")
    trials = [TrialRecords(entry, *known.get(entry.trial, ((), None))) for entry in header.trials]
    return StudyRecords(header, tuple(trials), tuple(looks))


def portable(records: StudyRecords) -> StudyRecords:
    """The same records without what belongs to one machine: its name, and the place of the data and of the folders."""
    settings = json.loads(json.dumps(records.header.settings))
    source = settings.get("data", {}).get("source", {}).get("args", {})
    if "path" in source:
        source["path"] = Path(source["path"]).name
    trials = []
    for trial in records.trials:
        record = trial.record
        if record is not None:
            record = record.model_copy(update={"run": record.run.model_copy(update={"host": ""})})
        trials.append(TrialRecords(trial.entry, trial.epochs, record))
    return StudyRecords(records.header.model_copy(update={"settings": settings}), tuple(trials), records.looks)


def write_archive(path: Path, records: StudyRecords) -> None:
    """All records in one file of JSON lines, written atomically."""
    lines = [json.dumps({"study": records.header.model_dump(mode="json")})]
    lines += [json.dumps({"look": look.model_dump(mode="json")}) for look in records.looks]
    for trial in records.trials:
        document = {
            "trial": trial.entry.trial,
            "epochs": [epoch.model_dump(mode="json") for epoch in trial.epochs],
            "record": trial.record.model_dump(mode="json") if trial.record else None,
        }
        lines.append(json.dumps(document, allow_nan=False))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def merge_studies(studies: Sequence[tuple[Path, StudyRecords]]) -> StudyRecords:
    """Several folders of one study as one: the union of their variants, seeds and trials.

    DataError where they do not measure the same, or where one variant and seed stands for unlike settings.
    """
    (_, first), *others = studies
    header, trials, looks = first.header, {(t.entry.label, t.entry.seed): t for t in first.trials}, list(first.looks)
    for path, study in others:
        theirs = study.header
        for key in ("metric", "control", "smallest_effect", "epochs", "claims"):
            if getattr(theirs, key) != getattr(header, key):
                asked = f"{getattr(theirs, key)!r} and not {getattr(header, key)!r}"
                raise DataError(f"{path}: is not of the same study: its {key} is {asked}")
        for trial in study.trials:
            place = (trial.entry.label, trial.entry.seed)
            known = trials.get(place)
            if known is not None and known.entry.trial != trial.entry.trial:
                raise DataError(f"{path}: '{place[0]}', seed {place[1]}, has other settings (or another device) there")
            if known is None or (known.record is None and trial.record is not None):
                trials[place] = trial
        labels = [variant.label for variant in header.variants]
        header = header.model_copy(
            update={
                "variants": (*header.variants, *(v for v in theirs.variants if v.label not in labels)),
                "seeds": tuple(dict.fromkeys((*header.seeds, *theirs.seeds))),
                "trials": tuple(trial.entry for trial in trials.values()),
            }
        )
        looks += [look for look in study.looks if look not in looks]
    return StudyRecords(header, tuple(trials.values()), tuple(sorted(looks, key=lambda look: look.shown_utc)))


def finished(trials: Iterable[TrialRecords]) -> list[TrialRecord]:
    """The records of the trials that have one."""
    return [trial.record for trial in trials if trial.record is not None]
