"""A study's records together: read from its folder or from one file of JSON lines, and written as such a file.

The file, `experiments/NAME.jsonl`, holds the header, the looks and a line a trial with all its epochs: everything a
report is made from, without the checkpoints.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from dlx.records.folder import StudyFolder
from dlx.records.schema import EpochRecord, Look, StudyHeader, TrialEntry, TrialRecord
from dlx.settings.binding import first_cause
from dlx.study.claims import Claim
from dlx.study.metrics import direction_of, known_study_metric
from dlx.study.study import check_claims
from dlx.system.errors import DataError, SettingError, nearest
from dlx.system.files import write_atomically


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
        records = _read_folder(path)
    elif path.is_file():
        records = _read_archive(path)
    else:
        raise DataError(f"{path}: no such file or folder")
    try:
        _check_header(records.header)
    except SettingError as error:
        raise DataError(f"{path}: not a study's header: {error}") from None
    return records


def _check_header(header: StudyHeader) -> None:
    """Refuses a header that speaks of what there is not: everything a report makes leans on it."""
    variants = {variant.label: variant.values for variant in header.variants}
    try:
        known_study_metric(header.metric)
    except ValueError as error:
        raise SettingError(str(error)) from None
    direction_of(header.metric, header.direction)
    if header.control is not None and header.control not in variants:
        raise SettingError(f"no variant '{header.control}' to be the control: {nearest(header.control, variants)}")
    if not 0.0 < header.smallest_effect < math.inf:
        raise SettingError(f"smallest effect {header.smallest_effect}: expected more than 0")
    for entry in header.trials:
        if entry.label not in variants:
            raise SettingError(f"trial {entry.trial}: no variant '{entry.label}': {nearest(entry.label, variants)}")
    try:
        claims = [Claim.model_validate(claim) for claim in header.claims]
    except ValidationError as error:
        raise SettingError(f"claims: {first_cause(error)}") from None
    check_claims(claims, variants, header.axes, header.epochs)


def _read_folder(path: Path) -> StudyRecords:
    folder = StudyFolder(path)
    header = folder.header()
    if header is None:
        raise DataError(f"{path}: holds no study (no study.json); give a folder that a run named as its `records`")
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # ValidationError is a ValueError
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(f"{path}: not a study's records ({cause}); expected its folder or its .jsonl file") from None
    if header is None:
        raise DataError(f"{path}: holds no study")
    trials = [TrialRecords(entry, *known.get(entry.trial, ((), None))) for entry in header.trials]
    return StudyRecords(header, tuple(trials), tuple(looks))


def portable(records: StudyRecords) -> StudyRecords:
    """The same records without what belongs to one machine: its name, and the places of data, files and folders."""
    header = records.header
    plain = {"settings": _without_places(header.settings), "command": _portable_command(header.command)}
    trials = []
    for trial in records.trials:
        record = trial.record
        if record is not None:
            run = record.run.model_copy(update={"host": ""})
            record = record.model_copy(update={"run": run, "settings": _without_places(record.settings)})
        trials.append(TrialRecords(trial.entry, trial.epochs, record))
    return StudyRecords(header.model_copy(update=plain), tuple(trials), records.looks)


def _without_places(value: Any) -> Any:
    """Settings in which each path of one machine (absolute, of a home folder, through `..`) is its last name."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if not isinstance(value, str):
        return value
    path = PurePath(value)
    is_local = value.startswith(("/", "~")) or ".." in path.parts
    return (path.name or value) if is_local else value


def _portable_command(command: str) -> str:
    """A command line whose paths of one machine are their last names, also after `=` and between quotes."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation that is not closed: no command line of ours
        words = command.split()
    plain = ["=".join(_without_places(piece) for piece in word.split("=")) for word in words]
    return shlex.join(re.sub('"([^"]*)"', lambda found: f'"{_without_places(found[1])}"', word) for word in plain)


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


def finished(trials: Iterable[TrialRecords]) -> list[TrialRecord]:
    """The records of the trials that have one."""
    return [trial.record for trial in trials if trial.record is not None]
