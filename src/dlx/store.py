"""Records on disk: one folder a trial, append-only JSON lines for its epochs, one atomic file for its result.

FOLDER/study.json                        the study as it was asked
FOLDER/trials/LABEL-seedN-ID/settings.json   the resolved settings the trial is named by
                             epochs.jsonl    a line an epoch
                             last.safetensors, best.safetensors
                             result.json     written once, at the end
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlx.errors import DataError
from dlx.records import EpochRecord, TrialRecord


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: a temporary file beside it, synced, then renamed over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, document: Any) -> None:
    """An indented JSON document, written atomically; NaN and infinity are refused."""
    write_atomically(path, (json.dumps(document, indent=1, allow_nan=False, sort_keys=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON document; DataError where the file cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None


class TrialFolder:
    """The records of one trial in its folder."""

    def __init__(self, study_folder: Path, label: str, seed: int, trial: str) -> None:
        name = re.sub(r"[^\w.=+-]+", "-", label).strip("-") or "trial"
        self.path = study_folder / "trials" / f"{name[:60]}-seed{seed}-{trial[:8]}"
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self._epochs = self.path / "epochs.jsonl"
        self._result = self.path / "result.json"

    def begin(self, settings: dict[str, Any]) -> None:
        """Makes the folder and writes what the trial was asked to do."""
        write_json(self.path / "settings.json", settings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process runs this trial; DataError where one does. A kill frees it too."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"{self.path}: another process is running this trial") from None
            yield

    def append(self, record: EpochRecord) -> None:
        """Adds one epoch's line, on disk before this returns."""
        with self._epochs.open("ab") as file:
            file.write(record.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def epochs(self) -> list[EpochRecord]:
        """The epochs recorded so far; a last line that was cut short (the process was killed) is left out."""
        if not self._epochs.exists():
            return []
        lines = self._epochs.read_bytes().split(b"\n")
        return [self._parse(line, number) for number, line in enumerate(lines[:-1], 1)]

    def _parse(self, line: bytes, number: int) -> EpochRecord:
        try:
            return EpochRecord.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{self._epochs}: line {number} is not an epoch's record ({error.errors()[0]['msg']})"
            ) from None

    def trim(self, last_epoch: int) -> list[EpochRecord]:
        """Keeps the records up to `last_epoch` (the checkpoint's) and returns them.

        Raises DataError where records are missing, since going on would leave a hole.
        """
        kept = [record for record in self.epochs() if record.result.epoch <= last_epoch]
        if [record.result.epoch for record in kept] != list(range(1, last_epoch + 1)):
            raise DataError(f"{self._epochs}: the records do not cover epochs 1 to {last_epoch} of the checkpoint")
        write_atomically(self._epochs, b"".join(record.model_dump_json().encode() + b"\n" for record in kept))
        return kept

    def clear(self) -> None:
        """Removes what an earlier attempt left, so that the trial starts from its first epoch."""
        for path in (self._epochs, self._result, self.last, self.best):
            path.unlink(missing_ok=True)

    def finish(self, record: TrialRecord) -> None:
        """Writes the trial's result, once and whole."""
        write_atomically(self._result, (record.model_dump_json(indent=1) + "\n").encode())

    def result(self) -> TrialRecord | None:
        """The trial's result; None while it has none."""
        if not self._result.exists():
            return None
        try:
            return TrialRecord.model_validate_json(self._result.read_bytes())
        except ValidationError as error:
            raise DataError(f"{self._result}: not a trial's record ({error.errors()[0]['msg']})") from None
