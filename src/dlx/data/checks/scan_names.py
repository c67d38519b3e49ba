"""Guesses persons from case names: `pat00_s003` and `sub-01_ses-02` name a person and one of the person's scans.

Only names are used. The guess only leads to a warning; it does not group cases.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

# Words whose number does not identify a person: places, data series, sides of a split, versions.
WHERE = {"center", "centre", "hospital", "scanner", "site", "station", "vendor"}
WHICH = {"batch", "dataset", "ds", "group", "part", "phase", "release", "round", "set", "task", "v", "version", "year"}
NO_PERSONS = WHERE | WHICH | {"fold", "subset", "test", "train", "training", "val"}
SEPARATORS = re.compile(r"[-_. ]+")
COMPACT = re.compile(r"([A-Za-z]*[0-9]+)([A-Za-z]+[0-9]*)")  # p01s2, 001a: a change from digits to letters
IDENTIFIER = re.compile(r"[0-9]+(\.[0-9]+){4,}")  # a DICOM UID, whose parts do not name a person


def guess_persons(names: Sequence[str]) -> dict[str, str]:
    """Name -> person if the names look like person and scan, and some persons have several scans; otherwise empty.

    The person is the shortest prefix that contains a number, ends at a separator and differs between names. Plain
    numbering with any prefix (`case_001`, `BRATS_001`) therefore gives no persons.
    """
    if any(IDENTIFIER.fullmatch(name) for name in names):
        return {}
    for prefixes in (_at_separators(names), _compact(names)):
        depth = max(map(len, prefixes.values()), default=0)
        for level in range(depth):
            persons = {name: parts[level] if level < len(parts) else name for name, parts in prefixes.items()}
            scans = Counter(persons.values())
            if len(scans) > 1 and max(scans.values()) > 1:
                return persons
    return {}


def _at_separators(names: Sequence[str]) -> dict[str, list[str]]:
    """The prefixes of each name that may name a person, the shortest first."""
    return {
        name: [
            name[: separator.start()]
            for separator in SEPARATORS.finditer(name)
            if separator.start() > 0 and separator.end() < len(name) and _may_be_person(name[: separator.start()])
        ]
        for name in names
    }


def _compact(names: Sequence[str]) -> dict[str, list[str]]:
    """As `_at_separators`, for names like p01s2 without separators; empty unless all names match COMPACT."""
    matches = {name: COMPACT.fullmatch(name) for name in names}
    if not all(matches.values()):
        return {}
    return {name: [match[1]] if _may_be_person(match[1]) else [] for name, match in matches.items() if match}


def _may_be_person(prefix: str) -> bool:
    """Whether a prefix ends with a number, or a code that contains one, that may identify a person."""
    last = SEPARATORS.split(prefix)[-1]
    if not any(character.isdigit() for character in last):
        return False
    word = re.sub(r"[0-9]+$", "", last) or (["", *SEPARATORS.split(prefix)])[-2]
    is_year = re.fullmatch(r"(19|20)[0-9]{2}", last) is not None
    return word.lower() not in NO_PERSONS and not is_year


def scans_of(persons: Mapping[str, str]) -> dict[str, list[str]]:
    """Person -> names of the scans, in the order of the names."""
    scans: dict[str, list[str]] = {}
    for name, person in persons.items():
        scans.setdefault(person, []).append(name)
    return scans
