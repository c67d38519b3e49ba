"""Reads a single trial from its folder, with the header of the study that it belongs to."""

import re
from dataclasses import dataclass
from pathlib import Path

from dlx.records.archive import TrialHistory
from dlx.records.folder import StudyFolder, TrialFolder
from dlx.records.schema import StudyHeader, TrialEntry, TrialRecord

NAME = re.compile(r"(?P<label>.+?)(?:-fold(?P<fold>\d+))?-seed(?P<seed>\d+)-(?P<trial>.+)")
OF_TRIALS = ("settings.json", "epochs.jsonl", "result.json")  # a folder of a trial has one of these


@dataclass(frozen=True)
class OneTrial:
    """A trial; its study's header, and the control's trial of the same run, are None where they are not known."""

    history: TrialHistory
    header: StudyHeader | None
    control: TrialHistory | None


def is_trial_folder(path: Path) -> bool:
    """Whether this is the folder of a trial, and not that of a study."""
    return path.is_dir() and not (path / "study.json").exists() and any((path / name).exists() for name in OF_TRIALS)


def read_trial(path: Path) -> OneTrial:
    """The trial in a folder; DataError if a file of it is damaged.

    The study is that of the folder two levels above, if its header lists the trial: the trials of studies that a folder
    held before have no header.
    """
    folder = TrialFolder.at(path)
    record = folder.result()
    header = StudyFolder(path.absolute().parent.parent).header()
    entry = _entry(path.absolute().name, record)
    listed = next((e for e in header.trials if _is_same(e, entry)), None) if header is not None else None
    history = TrialHistory(listed or entry, tuple(folder.epochs()), record, path)
    if listed is None or header is None:
        return OneTrial(history, None, None)
    control = None
    if header.control not in (None, listed.label):
        of_control = (e for e in header.trials if (e.label, e.run) == (header.control, listed.run))
        control = next((_begun(path, e) for e in of_control), None)
    return OneTrial(history, header, control)


def _begun(path: Path, entry: TrialEntry) -> TrialHistory:
    """Another trial of the same study, without its epochs."""
    folder = StudyFolder(path.absolute().parent.parent).trial(entry)
    return TrialHistory(entry, (), folder.result(), folder.path)


def _entry(name: str, record: TrialRecord | None) -> TrialEntry:
    """The trial as its folder's name and its record tell it; a folder that was renamed keeps its name as its label."""
    found = NAME.fullmatch(name)
    fold = int(found["fold"]) if found is not None and found["fold"] is not None else None
    if record is not None:
        return TrialEntry(trial=record.trial, label=record.label, seed=record.seed, fold=fold)
    if found is None:
        return TrialEntry(trial=name, label=name, seed=0)
    return TrialEntry(trial=found["trial"], label=found["label"], seed=int(found["seed"]), fold=fold)


def _is_same(listed: TrialEntry, entry: TrialEntry) -> bool:
    return listed.seed == entry.seed and listed.trial[:8] == entry.trial[:8]
