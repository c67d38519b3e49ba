"""Completes paths of which only some fit: folders of runs, and files of one kind."""

import json
import os
from collections.abc import Iterator
from itertools import islice

from dlx.cli.completion.candidate import Candidate, Candidates, Listed

HEADER = "study.json"  # every folder of a run or study holds it
MAX_ENTRIES = 2000  # of a folder that are looked at: more could not be shown, and a network folder is slow


def complete_run(text: str, *, suffix: str | None = None) -> Candidates:
    """Completes the folder of a run or study, and files with the suffix. Runs below a folder are offered with it, so
    that `runs/` need not be typed; other folders are offered to go on in.
    """
    if text.startswith("~") and "/" not in text:
        return Listed.FOLDERS
    found = []
    for value, path, is_folder in _entries(text):
        if not is_folder:
            found += [Candidate(value)] if suffix is not None and value.endswith(suffix) else []
        elif _is_run(path):
            found.append(Candidate(value))
        else:
            inner = [one for one, place, is_inner_folder in _entries(f"{value}/") if is_inner_folder and _is_run(place)]
            found += [Candidate(one) for one in inner] or [Candidate(f"{value}/", ends=False)]
    return found


def complete_run_or_label(text: str) -> Candidates:
    """Completes the folder of a run, or after a colon the label of one of its variants."""
    folder, colon, label = text.partition(":")
    if not colon:
        return complete_run(text)
    try:
        with open(os.path.join(os.path.expanduser(folder), HEADER), encoding="utf-8") as file:
            labels = [str(variant["label"]) for variant in json.load(file)["variants"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [Candidate(f"{folder}:{one}") for one in labels if one.startswith(label)]


def complete_file(text: str, *suffixes: str) -> Candidates:
    """Completes files with one of the suffixes, and folders to go on in."""
    if text.startswith("~") and "/" not in text:
        return Listed.FILES
    found = []
    for value, _, is_folder in _entries(text):
        if is_folder:
            found.append(Candidate(f"{value}/", ends=False))
        elif value.endswith(suffixes):
            found.append(Candidate(value))
    return found


def _entries(text: str) -> Iterator[tuple[str, str, bool]]:
    """Each entry that a path may become: the path as typed, its place, and whether it is a folder; sorted by name."""
    folder, slash, start = text.rpartition("/")
    place = os.path.expanduser(folder + slash) or "."
    try:
        with os.scandir(place) as found:
            entries = sorted(islice(found, MAX_ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and entry.name.startswith(".") == start.startswith("."):
            yield folder + slash + entry.name, entry.path, entry.is_dir()


def _is_run(path: str) -> bool:
    return os.path.isfile(os.path.join(path, HEADER))
