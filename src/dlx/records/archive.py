"""All records of a study: reads them from its folder or from an archive (one file of JSON lines), writes the archive.

An archive contains the header, the looks, and a line per trial with all its epochs, and of a few trials the pictures of
cases: everything that a report needs, but no checkpoints. `dlx run NAME.toml` keeps one beside the study's file,
`NAME.jsonl`, with the report at `NAME.md`, `NAME.html` and `NAME.svg`.
"""

import json
import math
import re
import shlex
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import ValidationError

from dlx.records.finite import load_finite
from dlx.records.folder import StudyFolder, TrialFolder, read_pictures
from dlx.records.pictures import CasePicture, CasePictures
from dlx.records.schema import EpochRecord, Look, StudyHeader, TrialEntry, TrialRecord
from dlx.settings.binding import first_cause
from dlx.study.claims import Claim
from dlx.study.metrics import direction_of, known_study_metric
from dlx.study.run_id import spell_run
from dlx.study.study import check_claims
from dlx.system.errors import DataError, SettingError, nearest
from dlx.system.files import write_atomically
from dlx.system.shell import shell_command


@dataclass(frozen=True)
class TrialHistory:
    """The records of one trial: its entry in the study, its epochs so far, and its record (None until it has ended).

    `pictures` are those of an archive; those in a folder are read when they are asked for (`read_pictures`).
    """

    entry: TrialEntry
    epochs: tuple[EpochRecord, ...]
    record: TrialRecord | None
    folder: Path | None = None
    pictures: tuple[CasePicture, ...] = ()

    def read_pictures(self) -> tuple[CasePicture, ...]:
        """The pictures of validation cases, from the archive or the trial's folder; DataError if they are damaged."""
        return self.pictures if self.folder is None else read_pictures(self.folder)

    def settings(self) -> dict[str, Any] | None:
        """The resolved settings; None if they are not known, as of a trial that has not begun."""
        if self.record is not None:
            return self.record.settings
        return None if self.folder is None else TrialFolder.at(self.folder).settings()


@dataclass(frozen=True)
class StudyRecords:
    """A study's header, all its trials in the header's order, and the looks at its verdicts."""

    header: StudyHeader
    trials: tuple[TrialHistory, ...]
    looks: tuple[Look, ...]


def read_study(path: Path, *, with_epochs: bool = True) -> StudyRecords:
    """The records in a study's folder or archive; DataError if it is missing, damaged or not a study.

    Without the epochs, which take most of the time, each trial has none.
    """
    if path.is_dir():
        records = _read_folder(path, with_epochs=with_epochs)
    elif path.is_file():
        records = _read_archive(path, with_epochs=with_epochs)
    else:
        raise DataError(f"{path}: no such file or folder")
    try:
        _check_header(records.header)
    except SettingError as error:
        raise DataError(f"{path}: invalid study header: {error}") from None
    return records


def _check_header(header: StudyHeader) -> None:
    """Refuses a header with unknown names or invalid values, as all parts of a report rely on it."""
    variants = {variant.label: variant.values for variant in header.variants}
    try:
        known_study_metric(header.metric)
    except ValueError as error:
        raise SettingError(str(error)) from None
    direction_of(header.metric, header.direction)
    if header.control is not None and header.control not in variants:
        raise SettingError(f"control '{header.control}' is not a variant: {nearest(header.control, variants)}")
    if not 0.0 < header.smallest_effect < math.inf:
        raise SettingError(f"smallest_effect: {header.smallest_effect} is out of range (expected more than 0)")
    for entry in header.trials:
        if entry.label not in variants:
            raise SettingError(
                f"trial {entry.trial}: '{entry.label}' is not a variant: {nearest(entry.label, variants)}"
            )
        if entry.fold not in (header.folds or (None,)):
            raise SettingError(f"trial {entry.trial}: {spell_run(entry.run)} is not of this study")
    try:
        claims = [Claim.model_validate(claim) for claim in header.claims]
    except ValidationError as error:
        raise SettingError(f"claims: {first_cause(error)}") from None
    check_claims(claims, variants, header.axes, header.epochs)


def _read_folder(path: Path, *, with_epochs: bool) -> StudyRecords:
    folder = StudyFolder(path)
    header = folder.header()
    if header is None:
        raise DataError(
            f"{path}: contains no study (no study.json); name the folder that a run printed as its `records`, or list "
            f"what is below: {shell_command(['dlx', 'ls', str(path)])}"
        )
    trials = []
    for entry in header.trials:
        found = folder.trial(entry)
        epochs = tuple(found.epochs()) if with_epochs else ()
        trials.append(TrialHistory(entry, epochs, found.result(), found.path))
    return StudyRecords(header, tuple(trials), tuple(folder.looks()))


def _read_archive(path: Path, *, with_epochs: bool) -> StudyRecords:
    header: StudyHeader | None = None
    looks: list[Look] = []
    known: dict[str, tuple[tuple[EpochRecord, ...], TrialRecord | None, tuple[CasePicture, ...]]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            document = load_finite(line)
            if "study" in document:
                header = StudyHeader.model_validate(document["study"])
            elif "look" in document:
                looks.append(Look.model_validate(document["look"]))
            else:
                lines = document["epochs"] if with_epochs else []
                epochs = tuple(EpochRecord.model_validate(epoch) for epoch in lines)
                record = document["record"]
                pictures = CasePictures(pictures=document.get("pictures", ())).pictures
                known[document["trial"]] = (epochs, TrialRecord.model_validate(record) if record else None, pictures)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # ValidationError is a ValueError
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(
            f"{path}: not the records of a study ({cause}); expected a study's folder or .jsonl file"
        ) from None
    if header is None:
        raise DataError(f"{path}: contains no study header")
    trials = []
    for entry in header.trials:
        epochs, ended, shown = known.get(entry.trial, ((), None, ()))
        trials.append(TrialHistory(entry, epochs, ended, pictures=shown))
    return StudyRecords(header, tuple(trials), tuple(looks))


def with_pictures(records: StudyRecords, trials: Collection[TrialEntry]) -> StudyRecords:
    """The records with the pictures of these trials and of no others, as an archive keeps them."""
    return replace(
        records,
        trials=tuple(
            replace(trial, pictures=trial.read_pictures() if trial.entry in trials else ()) for trial in records.trials
        ),
    )


def portable(records: StudyRecords) -> StudyRecords:
    """The records without details of the machine: its name, and the paths of data, files and folders."""
    header = records.header
    plain = {"settings": _without_local_paths(header.settings), "command": _portable_command(header.command)}
    trials = []
    for trial in records.trials:
        record = trial.record
        if record is not None:
            run = record.run.model_copy(update={"host": ""})
            record = record.model_copy(update={"run": run, "settings": _without_local_paths(record.settings)})
        trials.append(TrialHistory(trial.entry, trial.epochs, record, pictures=trial.pictures))
    return StudyRecords(header.model_copy(update=plain), tuple(trials), records.looks)


def _without_local_paths(value: Any) -> Any:
    """Settings in which each local path (absolute, in a home folder, or with `..`) is replaced by its last name."""
    if isinstance(value, dict):
        return {key: _without_local_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_local_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    return _last_name(value) if _is_local_path(value) else value


def _is_local_path(text: str) -> bool:
    """Whether a text is a path that only one machine has, whichever system wrote it."""
    return text.startswith("~") or any(
        path.is_absolute() or ".." in path.parts for path in (PurePosixPath(text), PureWindowsPath(text))
    )


def _last_name(path: str) -> str:
    """The last part of a POSIX or Windows path, or the path if it has none. A POSIX name may contain a backslash."""
    is_posix = PurePosixPath(path).is_absolute() or path.startswith("~/")
    return (PurePosixPath(path) if is_posix else PureWindowsPath(path)).name or path


def _portable_command(command: str) -> str:
    """A command line in which local paths, also after `=` and between quotes, are replaced by their last names."""
    try:
        words = shlex.split(command)
    except ValueError:  # unclosed quotes: dlx did not write this command line
        words = command.split()
    plain = ["=".join(_without_local_paths(piece) for piece in word.split("=")) for word in words]
    return shlex.join(re.sub('"([^"]*)"', lambda found: f'"{_without_local_paths(found[1])}"', word) for word in plain)


def write_archive(path: Path, records: StudyRecords) -> None:
    """Writes all records to one file of JSON lines, atomically."""
    lines = [json.dumps({"study": records.header.model_dump(mode="json")})]
    lines += [json.dumps({"look": look.model_dump(mode="json")}) for look in records.looks]
    for trial in records.trials:
        document: dict[str, Any] = {
            "trial": trial.entry.trial,
            "epochs": [epoch.model_dump(mode="json") for epoch in trial.epochs],
            "record": trial.record.model_dump(mode="json") if trial.record else None,
        }
        if trial.pictures:  # a line without pictures is that of older versions
            document["pictures"] = [picture.model_dump(mode="json") for picture in trial.pictures]
        lines.append(json.dumps(document, allow_nan=False))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def finished(trials: Iterable[TrialHistory]) -> list[TrialRecord]:
    """The records of the trials that have one."""
    return [trial.record for trial in trials if trial.record is not None]


def looks_in_order(looks: Iterable[Look]) -> tuple[Look, ...]:
    """Looks sorted by time, without duplicates; the order of those of one second does not depend on the input."""
    return tuple(sorted(set(looks), key=lambda look: (look.shown_utc, look.model_dump_json())))


def archive_of(stem: Path) -> Path:
    """The archive `STEM.jsonl`."""
    return stem.with_name(f"{stem.name}.jsonl")


def records_beside(stem: Path | None) -> StudyRecords | None:
    """The records in the archive at `stem`, None without one; SettingError if the file is not an archive."""
    if stem is None or not archive_of(stem).exists():
        return None
    try:
        return read_study(archive_of(stem))
    except DataError as error:
        raise SettingError(f"{error}; move it away, as this study's records would replace it") from None


def with_looks(records: StudyRecords, looks: Iterable[Look]) -> StudyRecords:
    """The records with more looks, so that a copy of the records still lists all verdicts that were shown."""
    return replace(records, looks=looks_in_order([*records.looks, *looks]))


def check_can_write(stem: Path) -> None:
    """Refuses, before any training, a stem at which records and report cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=stem.parent):
            pass
    except OSError as error:
        cause = error.strerror or str(error)
        raise SettingError(
            f"{stem.parent}: records are kept beside the study's file, but this folder is not writable: {cause}"
        ) from None
    endings = (".jsonl", ".md", ".html", ".svg", "-cases.csv", "-results.csv", "-epochs.csv", "-summary.json")
    for ending in endings:
        path = stem.with_name(f"{stem.name}{ending}")
        if path.is_dir():
            raise SettingError(
                f"{path}: is a folder, but the study's records or report must be written there: move it away"
            )
