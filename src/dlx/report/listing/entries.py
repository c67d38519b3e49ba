"""The studies below a folder, newest first: their trials, verdicts and age. Reads headers and results, no epochs."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlx.records.archive import StudyRecords, TrialHistory, read_study
from dlx.records.finding import StudyPlace, find_studies
from dlx.records.folder import TrialFolder
from dlx.report.listing.verdicts import verdicts_in_short
from dlx.system.errors import DataError, DlxError, spell_error


@dataclass(frozen=True)
class ListedStudy:
    """A run folder or archive. With a `cause` it cannot be read, and only its name and age are known."""

    path: Path
    name: str  # its path below the folder that was listed
    changed_s: float  # when records were last written, in seconds since 1970
    question: str = ""
    num_trials: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_diverged: int = 0
    num_running: int = 0  # whose lock a process holds now
    verdict: str = "-"
    cause: str | None = None


def list_studies(folder: Path) -> list[ListedStudy]:
    """All studies of a folder, the newest first; DataError if it does not exist."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; dlx train and the commands that compare write to runs/")
    if folder.is_file():
        return [_list_study(StudyPlace(folder), folder.parent)]
    found = [_list_study(place, folder) for place in find_studies(folder)]
    return sorted(found, key=lambda study: (-study.changed_s, study.name))


def _list_study(place: StudyPlace, root: Path) -> ListedStudy:
    path = place.path
    name = str(path.relative_to(root)) if path != root else path.absolute().name or str(path)
    try:
        if place.cause is not None:
            raise DataError(place.cause)
        records = read_study(path, with_epochs=False)
        counts = _counts(records)
        verdict = verdicts_in_short(records, lambda: read_study(path))
        changed_s = _changed_s(path, records.trials)
    except (DlxError, OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:  # hostile records
        cause = spell_error(error).removeprefix(f"{path}: ").replace(f"{path}/", "")
        return ListedStudy(path, name, _modified_s([path / "study.json", path]), cause=cause)
    header = records.header
    return ListedStudy(path, name, changed_s, header.question or header.name, **counts, verdict=verdict)


def _counts(records: StudyRecords) -> dict[str, Any]:
    statuses = [trial.record.status for trial in records.trials if trial.record is not None]
    open_folders = [trial.folder for trial in records.trials if trial.record is None and trial.folder is not None]
    return {
        "num_trials": len(records.trials),
        "num_done": statuses.count("done"),
        "num_failed": statuses.count("failed"),
        "num_diverged": statuses.count("diverged"),
        "num_running": sum(TrialFolder.at(folder).is_running() for folder in open_folders),
    }


def _changed_s(path: Path, trials: Iterable[TrialHistory]) -> float:
    """When records were last written: of a folder by its files, of an archive, which may be a copy, by its trials."""
    if path.is_dir():
        folders = [trial.folder for trial in trials if trial.folder is not None]
        files = [folder / name for folder in folders for name in ("epochs.jsonl", "result.json")]
        return _modified_s([path / "study.json", *files])
    ended = [_ended_s(trial.record.run.started_utc, trial.record.run.seconds) for trial in trials if trial.record]
    return max(ended, default=_modified_s([path]))


def _ended_s(started_utc: str, seconds: float) -> float:
    """When a trial ended, in seconds since 1970; not before that and not after now, whatever its record says."""
    try:
        started = datetime.fromisoformat(started_utc)
    except ValueError:
        return 0.0
    ended = started.replace(tzinfo=started.tzinfo or UTC).timestamp() + seconds
    return max(0.0, min(ended, time.time()))  # 0 if it is no number


def _modified_s(paths: Iterable[Path]) -> float:
    """The latest time at which one of these files was changed; 0 if there is none."""
    times = []
    for path in paths:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def entry_of(study: ListedStudy) -> dict[str, Any]:
    """A study of the list for a JSON document; what is not known is null."""
    is_known = study.cause is None
    return {
        "name": study.name,
        "path": str(study.path),
        "question": study.question if is_known else None,
        "trials": study.num_trials if is_known else None,
        "done": study.num_done if is_known else None,
        "failed": study.num_failed if is_known else None,
        "diverged": study.num_diverged if is_known else None,
        "running": study.num_running if is_known else None,
        "verdict": None if study.verdict == "-" else study.verdict,
        "changed_utc": datetime.fromtimestamp(study.changed_s, UTC).isoformat(timespec="seconds"),
        "cause": study.cause,
    }


def age_s(study: ListedStudy) -> float:
    """Seconds since its records were last written."""
    return time.time() - study.changed_s
