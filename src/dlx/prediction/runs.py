"""Finds the checkpoints that `-m` names: of a trial, of all seeds and folds of a run, or of one variant of a study."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dlx.data.layouts.listing import name_some
from dlx.records.archive import StudyRecords, read_study
from dlx.records.folder import read_record
from dlx.records.schema import TrialRecord
from dlx.settings.text import counted
from dlx.study.run_id import spell_run
from dlx.system.errors import DataError, nearest
from dlx.system.files import expand_home

Which = Literal["last", "best"]
ENDING = ".safetensors"
CONTROL = " (control)"  # as tables mark a label


@dataclass(frozen=True)
class TrialCheckpoint:
    """A checkpoint and the name of its trial, for messages."""

    path: Path
    name: str


@dataclass(frozen=True)
class FoundRuns:
    """The checkpoints to predict with, and lines for the user on trials that were left out or are not finished."""

    checkpoints: tuple[TrialCheckpoint, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamedTrial:
    """A trial's folder and name. `unfit` says why its last checkpoint is not that of a finished trial; else None."""

    folder: Path
    name: str
    unfit: str | None


def find_runs(named: Sequence[str | Path], which: Which | None = None) -> FoundRuns:
    """The checkpoints of these runs, each once, in the order in which they are named.

    Each is a folder of a trial, of a run or study (its trials of all seeds and folds), `FOLDER:LABEL` (the trials of
    one variant), or a checkpoint's file. `which` is the checkpoint, by default `last`, which the tables of the run
    report on. Without it, trials that have not finished are refused, or left out of a run that has finished ones; with
    it, they are used too. Raises DataError if a run cannot be used.
    """
    if not named:
        raise DataError("no run is named: expected the folder of a run, as in -m runs/phantom-unet2")
    checkpoints: dict[Path, TrialCheckpoint] = {}
    remarks: list[str] = []
    for one in named:
        found = _find(str(one), which)
        remarks += found.remarks
        for checkpoint in found.checkpoints:
            checkpoints.setdefault(checkpoint.path.resolve(), checkpoint)
    return FoundRuns(tuple(checkpoints.values()), tuple(dict.fromkeys(remarks)))


def _find(text: str, which: Which | None) -> FoundRuns:
    path, label = _split_label(text)
    if path.is_file():
        return _of_file(path, which)
    if (path / "study.json").is_file():
        return _choose(text, _trials_of(path, label), which)
    if label is None and ((path / "settings.json").is_file() or any(path.glob(f"*{ENDING}"))):
        return _choose(text, [_named_trial(path, str(path))], which)
    raise DataError(
        f"{path}: holds no run (no study.json) and no trial (no settings.json); name the folder that a run printed as "
        "its `records`"
    )


def _split_label(text: str) -> tuple[Path, str | None]:
    """The path and the label of `FOLDER:LABEL`. Both may contain colons: the longest path that exists is the folder."""
    whole = Path(expand_home(text))
    if whole.exists():
        return whole, None
    for at in reversed([position for position, letter in enumerate(text) if letter == ":"]):
        folder = Path(expand_home(text[:at])) if at else None
        if folder is not None and folder.is_dir():
            return folder, text[at + 1 :].removesuffix(CONTROL)
    raise DataError(f"{text}: no such folder of a run")


def _of_file(path: Path, which: Which | None) -> FoundRuns:
    """A checkpoint that is named itself."""
    if path.suffix != ENDING:
        hint = ": an archive of records holds no checkpoints" if path.suffix == ".jsonl" else ""
        raise DataError(f"{path}: not a checkpoint ({ENDING}) or a folder of a run{hint}")
    if which is not None and path.stem != which:
        raise DataError(f"{path}: is named itself, but --checkpoint asks for {which}: leave out one of the two")
    return FoundRuns((TrialCheckpoint(path, str(path)),))


def _trials_of(path: Path, label: str | None) -> list[NamedTrial]:
    """The trials of a run, or of one variant of a study."""
    records = read_study(path)
    labels = [variant.label for variant in records.header.variants]
    if label is None and len(labels) > 1:
        example = shlex.quote(f"{path}:{records.header.control or labels[0]}")
        raise DataError(
            f"{path}: is a study of {len(labels)} variants ({name_some(labels, 10)}): name one, as in -m {example}"
        )
    if label is not None and label not in labels:
        raise DataError(f"{path}: no variant '{label}': {nearest(label, labels)}")
    return [
        _named_trial(trial.folder, f"{path}: {_trial_name(records, trial.entry.label, trial.entry.run)}")
        for trial in records.trials
        if trial.folder is not None and label in (None, trial.entry.label)
    ]


def _trial_name(records: StudyRecords, label: str, run: int | tuple[int, int]) -> str:
    is_alone = len(records.header.variants) == 1
    return spell_run(run) if is_alone else f"{label}, {spell_run(run)}"


def _named_trial(folder: Path, name: str) -> NamedTrial:
    record = read_record(TrialRecord, folder / "result.json", "a trial's record")
    if record is None:
        return NamedTrial(folder, name, "has not finished")
    return NamedTrial(folder, name, None if record.status == "done" else f"{record.status}: {record.cause}")


def _choose(text: str, trials: list[NamedTrial], which: Which | None) -> FoundRuns:
    """The checkpoints of the trials that can be used, and a remark on the others."""
    usable: list[TrialCheckpoint] = []
    unfit: list[str] = []
    left_out: list[str] = []
    for trial in trials:
        path = trial.folder / f"{which or 'last'}{ENDING}"
        if not path.is_file():
            ended = f"{trial.unfit}, and " if trial.unfit is not None and which is None else ""
            left_out.append(f"{trial.name} {ended}has no {path.name}")
        elif trial.unfit is not None and which is None:
            left_out.append(f"{trial.name} {trial.unfit}")
        else:
            usable.append(TrialCheckpoint(path, trial.name))
            unfit += [f"{trial.name} {trial.unfit}"] if trial.unfit is not None else []
    if not usable:
        there = [name for name in get_args(Which) if any((one.folder / f"{name}{ENDING}").is_file() for one in trials)]
        hint = "" if which or not there else f"; --checkpoint {' or '.join(there)} predicts with what is there"
        raise DataError(f"{text}: no trial to predict with: {_list_first(left_out)}{hint}")
    remarks = []
    if left_out:
        remarks.append(f"{counted(len(left_out), 'trial')} left out: {_list_first(left_out)}")
    if unfit:
        remarks.append(f"used as --checkpoint {which} asks, though not finished: {_list_first(unfit)}")
    return FoundRuns(tuple(usable), tuple(remarks))


def _list_first(lines: Sequence[str], most: int = 3) -> str:
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more
