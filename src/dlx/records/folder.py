"""Records on disk: a folder per trial with append-only JSON lines for its epochs and an atomic file for its result.

FOLDER/study.json                        the header of the study (schema.StudyHeader)
FOLDER/declared/ID.json                  the header of an earlier study of this folder
FOLDER/looks.jsonl                       a line each time verdicts are shown for another number of seeds
FOLDER/splits_final.json                 the folds of cross-validation, in the form of nnU-Net
FOLDER/trials/LABEL-seedN-ID/settings.json   the resolved settings; ID is a hash of them (LABEL-foldF-seedN-ID)
                             epochs.jsonl    a line per epoch
                             last.safetensors, best.safetensors
                             pictures.json   some validation cases, as scored (pictures.CasePictures)
                             result.json     written once, at the end
                             error.txt       the traceback of a failed trial
                             .lock           locked by the process that runs the trial
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from dlx.records.finite import load_finite
from dlx.records.pictures import REMEDY, CasePicture, CasePictures
from dlx.records.schema import EpochRecord, Look, StudyHeader, TrialEntry, TrialRecord
from dlx.study.results import Record
from dlx.system.errors import DataError, LockedError
from dlx.system.file_locks import is_locked
from dlx.system.files import naming, read_json, remove_leftovers, write_atomically, write_json

# The workers of a killed study end shortly after it; waiting for their locks allows to run the study again at once.
LOCK_WAIT_S = 3.0

NOT_FINITE = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}")  # what a number that is not finite looks like in JSON
PICTURES = "pictures.json"
SPLITS = "splits_final.json"

AnyRecord = TypeVar("AnyRecord", bound=Record)


def append_line(path: Path, text: str) -> None:
    """Appends a line to a file of JSON lines; returns once it is on disk."""
    with naming(path), path.open("ab") as file:
        file.write(text.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def write_record(path: Path, record: Record) -> None:
    """Writes a record to a file of its own, atomically."""
    write_atomically(path, (record.model_dump_json(indent=1) + "\n").encode())


def parse_record(model: type[AnyRecord], content: bytes, place: str, what: str) -> AnyRecord:
    """The record in a file or line; DataError, which names the place, if it is not `what` it should be."""
    try:
        found = model.model_validate_json(content)
        if NOT_FINITE.search(content):
            load_finite(content)
    except ValueError as error:  # ValidationError is one
        raise DataError(f"{place}: not {what} ({_cause(error)})") from None
    return found


def _cause(error: ValueError) -> str:
    """Pydantic's first complaint after the field that it is about, as `seeds: Field required`."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def read_record(model: type[AnyRecord], path: Path, what: str) -> AnyRecord | None:
    """The record in a file; None if there is no file; DataError for one that is damaged or no file but a pipe."""
    content = _content(path)
    return None if content is None else parse_record(model, content, f"{path}", what)


def read_lines(model: type[AnyRecord], path: Path, what: str) -> list[AnyRecord]:
    """The records in a file of JSON lines, without a last line that a kill cut short; none if there is no file."""
    lines = (_content(path) or b"").split(b"\n")[:-1]
    return [parse_record(model, line, f"{path}: line {number}", what) for number, line in enumerate(lines, 1)]


def _content(path: Path) -> bytes | None:
    """The bytes of a file; None if there is none; DataError for a pipe or a device, which might never end."""
    if not path.exists():
        return None
    if not (path.is_file() or path.is_dir()):  # of a folder, reading raises OSError
        raise DataError(f"{path}: not a file")
    return path.read_bytes()


def trial_folder_name(entry: TrialEntry) -> str:
    """`LABEL-seedN-ID`, in cross-validation `LABEL-foldF-seedN-ID`, in characters that every file system has."""
    name = re.sub(r"[^\w.=+-]+", "-", entry.label).strip("-") or "trial"
    run = f"seed{entry.seed}" if entry.fold is None else f"fold{entry.fold}-seed{entry.seed}"
    return f"{name[:60]}-{run}-{entry.trial[:8]}"


def read_pictures(folder: Path) -> tuple[CasePicture, ...]:
    """The pictures in a trial's folder; none before it was scored, or if it was scored by an older dlx.

    DataError, which says what to do, if the file is damaged.
    """
    try:
        found = read_record(CasePictures, folder / PICTURES, "the pictures of a trial")
    except DataError as error:
        raise DataError(f"{error}; {REMEDY}") from None
    return () if found is None else found.pictures


class TrialFolder:
    """The records of one trial in its folder."""

    def __init__(self, study_folder: Path, label: str, seed: int, trial: str, fold: int | None = None) -> None:
        # found by its id, as another study of this folder may have started the trial under another label
        known = sorted((study_folder / "trials").glob(f"*-seed{seed}-{trial[:8]}"))
        name = trial_folder_name(TrialEntry(trial=trial, label=label, seed=seed, fold=fold))
        self._name(known[0] if known else study_folder / "trials" / name)

    @classmethod
    def at(cls, path: Path) -> "TrialFolder":
        """The folder of a trial whose path is known."""
        found = cls.__new__(cls)
        found._name(path)
        return found

    def _name(self, path: Path) -> None:
        """Sets the paths of the folder and its files."""
        self.path = path
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self.error = self.path / "error.txt"
        self._epochs = self.path / "epochs.jsonl"
        self._result = self.path / "result.json"

    def begin(self, settings: dict[str, Any]) -> None:
        """Creates the folder and writes the settings of the trial."""
        write_json(self.path / "settings.json", settings)

    def settings(self) -> dict[str, Any] | None:
        """The resolved settings of the trial; None before it began; DataError if they are damaged."""
        path = self.path / "settings.json"
        if not path.exists():
            return None
        found = read_json(path)
        if not isinstance(found, dict):
            raise DataError(f"{path}: not the settings of a trial (expected a table)")
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the trial for this process; the system releases the lock if the process is killed.

        DataError if another process holds the lock; OSError, with the lock's path, if the file cannot be locked at all.
        Removes the temporary files of killed processes first.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / ".lock"
        try:
            with naming(path):
                lock = FileLock(path).acquire(LOCK_WAIT_S, poll_interval=0.05)
        except Timeout:
            raise LockedError(f"{self.path}: another process is running this trial") from None
        with lock:
            remove_leftovers(self.path)
            yield

    def is_running(self) -> bool:
        """Whether a process holds the trial's lock now; False if the lock file cannot be opened. Writes nothing."""
        return is_locked(self.path / ".lock")

    def append(self, record: EpochRecord) -> None:
        """Appends the line of one epoch; returns once it is on disk."""
        append_line(self._epochs, record.model_dump_json())

    def has_epochs(self) -> bool:
        """True if at least one epoch was recorded."""
        return self._epochs.exists() and self._epochs.stat().st_size > 0

    def epochs(self) -> list[EpochRecord]:
        """The epochs recorded so far, without a last line that a kill cut short."""
        return read_lines(EpochRecord, self._epochs, "an epoch's record")

    def restore(self, records: Sequence[EpochRecord]) -> None:
        """Replaces the epochs on disk by those of a checkpoint: later and damaged lines are dropped."""
        write_atomically(self._epochs, b"".join(record.model_dump_json().encode() + b"\n" for record in records))

    def clear(self) -> None:
        """Removes the files of an earlier attempt, so that the trial starts from its first epoch."""
        for path in (self._epochs, self._result, self.last, self.best, self.error, self.path / PICTURES):
            path.unlink(missing_ok=True)

    def forget_result(self) -> None:
        """Removes the result, so that the trial goes on from its checkpoint, or starts if it has none."""
        self._result.unlink(missing_ok=True)

    def write_pictures(self, pictures: Sequence[CasePicture]) -> None:
        """Writes the pictures of validation cases atomically."""
        write_record(self.path / PICTURES, CasePictures(pictures=tuple(pictures)))

    def pictures(self) -> tuple[CasePicture, ...]:
        """As `read_pictures`."""
        return read_pictures(self.path)

    def finish(self, record: TrialRecord) -> None:
        """Writes the trial's record atomically."""
        write_record(self._result, record)

    def result(self) -> TrialRecord | None:
        """The result of the trial; None until it has ended."""
        return read_record(TrialRecord, self._result, "a trial's record")


def was_shown(look: Look, looks: Iterable[Look]) -> bool:
    """Whether one of these looks was at the same verdicts, whenever that was."""
    return any(known.model_copy(update={"shown_utc": look.shown_utc}) == look for known in looks)


class StudyFolder:
    """A study's header and looks in its folder; the folders of its trials are found by their ids."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = path / "study.json"
        self._looks = path / "looks.jsonl"

    def write_header(self, header: StudyHeader) -> None:
        """Writes the header. It replaces an earlier one of the same study; one of another study moves to declared/."""
        before = self.header()
        if before is not None and not before.is_study_of(header):
            write_record(self._aside(before), before)
        write_record(self._header, header)

    def declared_before(self, header: StudyHeader) -> list[StudyHeader]:
        """The headers that earlier runs of this study wrote here, the current one first."""
        aside = [self._read_header(path) for path in sorted((self.path / "declared").glob("*.json"))]
        known = [found for found in (self.header(), *aside) if found is not None]
        return [before for before in known if before.is_study_of(header)]

    def _aside(self, header: StudyHeader) -> Path:
        text = json.dumps([header.control, *sorted(header.control_trials)])
        return self.path / "declared" / f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.json"

    def header(self) -> StudyHeader | None:
        """The header; None if no study was run here; DataError if this version of dlx cannot read it."""
        return self._read_header(self._header)

    def _read_header(self, path: Path) -> StudyHeader | None:
        return read_record(StudyHeader, path, "a study header of this version of dlx")

    def looks(self) -> list[Look]:
        """All recorded looks at studies of this folder, in order."""
        return read_lines(Look, self._looks, "a look")

    def note_look(self, look: Look | None) -> list[Look]:
        """Records that verdicts are shown now, so that later reports know which seeds were added after a look.

        Returns the look with its time; an empty list if no verdict is shown, or if the same ones were shown before.
        """
        if look is None:
            return []
        if was_shown(look, self.looks()):
            return []
        shown = look.model_copy(update={"shown_utc": datetime.now(UTC).isoformat(timespec="seconds")})
        append_line(self._looks, shown.model_dump_json())
        return [shown]

    def trial(self, entry: TrialEntry) -> TrialFolder:
        """The folder of one trial."""
        return TrialFolder(self.path, entry.label, entry.seed, entry.trial, entry.fold)

    def write_splits(self, splits: list[dict[str, list[str]]]) -> None:
        """Writes the folds of cross-validation in the form of an nnU-Net splits_final.json, for other tools too."""
        write_json(self.path / SPLITS, splits)

    def remove_splits(self) -> None:
        """Removes the folds of an earlier study."""
        (self.path / SPLITS).unlink(missing_ok=True)
