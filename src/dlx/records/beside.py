"""The records that are kept beside a study's file: STEM.jsonl, with the report at STEM.md and STEM.svg."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dlx.records.archive import StudyRecords, read_study
from dlx.records.merge import looks_in_order
from dlx.records.schema import Look
from dlx.system.errors import DataError, SettingError


def archive_of(stem: Path) -> Path:
    """The file of records at a stem."""
    return stem.with_name(f"{stem.name}.jsonl")


def records_beside(stem: Path | None) -> StudyRecords | None:
    """The records that are kept at a stem, if any; SettingError if the file holds something else."""
    if stem is None or not archive_of(stem).exists():
        return None
    try:
        return read_study(archive_of(stem))
    except DataError as error:
        raise SettingError(f"{error}; this study's records would replace it: move it away") from None


def with_looks(records: StudyRecords, looks: Iterable[Look]) -> StudyRecords:
    """The records with more looks: verdicts that were shown stay recorded as such wherever the records go."""
    return replace(records, looks=looks_in_order([*records.looks, *looks]))


def check_can_write(stem: Path) -> None:
    """Refuses, before anything trains, a stem at which records and report could not be written in the end."""
    try:
        with tempfile.TemporaryFile(dir=stem.parent):
            pass
    except OSError as error:
        cause = error.strerror or str(error)
        raise SettingError(f"{stem.parent}: records are kept beside the study's file, and cannot be: {cause}") from None
    for ending in ("jsonl", "md", "svg"):
        path = stem.with_name(f"{stem.name}.{ending}")
        if path.is_dir():
            raise SettingError(f"{path}: is a folder, where this study's records and report are to be written")
