"""Finds the run folders and archives of studies below a folder."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlx.system.errors import spell_os_error

MAX_DEPTH = 8  # folders below the given one: deeper than anyone keeps runs
MAX_FOLDERS = 20_000  # below a home folder or `/`, a search would take minutes
OF_RUNS = {"trials", "declared", "tensorboard", "mlruns"}  # folders in a run folder, which hold no others
ARCHIVE_START = re.compile(rb'\{\s*"study"\s*:\s*\{')  # a line of looks.jsonl starts with the study's name


@dataclass(frozen=True)
class StudyPlace:
    """A run folder or an archive; with a `cause`, a folder or file that cannot be read."""

    path: Path
    cause: str | None = None


def find_studies(folder: Path, max_folders: int = MAX_FOLDERS) -> Iterator[StudyPlace]:
    """The run folders (with study.json) and archives (.jsonl) in a folder and below it; the folder may be one itself.

    Does not descend into the folders of trials, which would take most of the time, nor into hidden folders. Follows
    links, but enters each folder once, so loops end. Stops, with a last place that has a cause, after `max_folders`
    folders.
    """
    waiting, entered = [(folder, 0)], set()
    while waiting:
        path, depth = waiting.pop()
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            if len(entered) > max_folders:
                yield StudyPlace(folder, f"searched {max_folders:,} folders and stopped: name a folder further down")
                return
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield StudyPlace(path, spell_os_error(OSError(error.errno, error.strerror)))
            continue
        is_run = any(entry.name == "study.json" for entry in entries)
        if is_run:
            yield StudyPlace(path)
        yield from filter(None, (_archive(Path(entry.path)) for entry in entries))
        if depth < MAX_DEPTH:
            skipped = OF_RUNS if is_run else set()
            below = (entry for entry in entries if not entry.name.startswith(".") and entry.name not in skipped)
            waiting += [(Path(entry.path), depth + 1) for entry in below if os.path.isdir(entry.path)]


def _archive(path: Path) -> StudyPlace | None:
    """The place of a file of JSON lines that starts with a study's header; None for any other file or folder."""
    if path.suffix != ".jsonl" or not os.path.isfile(path):
        return None
    try:
        with path.open("rb") as file:
            return StudyPlace(path) if ARCHIVE_START.match(file.read(64)) else None
    except OSError as error:
        return StudyPlace(path, spell_os_error(OSError(error.errno, error.strerror)))
