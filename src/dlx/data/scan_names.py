"""Persons guessed from the names of cases: `pat00_s003` and `sub-01_ses-02` name a person and one of its scans.

Only names are looked at. A guess serves a warning: nothing is grouped by it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

# Words whose number is no person's: of places, of series of data, of sides of a split, of versions.
WHERE = {"center", "centre", "hospital", "scanner", "site", "station", "vendor"}
WHICH = {"batch", "dataset", "ds", "group", "part", "phase", "release", "round", "set", "task", "v", "version", "year"}
NO_PERSONS = WHERE | WHICH | {"fold", "subset", "test", "train", "training", "val"}
PLACES = re.compile(r"[-_. ]+")
COMPACT = re.compile(r"([A-Za-z]*[0-9]+)([A-Za-z]+[0-9]*)")  # p01s2, 001a: a change from digits to letters
IDENTIFIER = re.compile(r"[0-9]+(\.[0-9]+){4,}")  # of DICOM: its pieces name no person


def guess_persons(names: Sequence[str]) -> dict[str, str]:
    """Name -> person where names look like person and scan, with several scans of some; empty where they do not.

    The person is the shortest beginning with a number in it that ends at a separator and is not the same in all names.
    So plain numbering (`case_001`, `BRATS_001`) gives nothing, whatever stands before the number.
    """
    if any(IDENTIFIER.fullmatch(name) for name in names):
        return {}
    for beginnings in (_at_separators(names), _compact(names)):
        depth = max(map(len, beginnings.values()), default=0)
        for level in range(depth):
            persons = {name: parts[level] if level < len(parts) else name for name, parts in beginnings.items()}
            scans = Counter(persons.values())
            if len(scans) > 1 and max(scans.values()) > 1:
                return persons
    return {}


def _at_separators(names: Sequence[str]) -> dict[str, list[str]]:
    """The beginnings of each name, the shortest first, that may name a person."""
    return {
        name: [
            name[: place.start()]
            for place in PLACES.finditer(name)
            if place.start() > 0 and place.end() < len(name) and _may_be_person(name[: place.start()])
        ]
        for name in names
    }


def _compact(names: Sequence[str]) -> dict[str, list[str]]:
    """The same for names without separators, if all are of this form: letters, digits, letters and perhaps digits."""
    matches = {name: COMPACT.fullmatch(name) for name in names}
    if not all(matches.values()):
        return {}
    return {name: [match[1]] if _may_be_person(match[1]) else [] for name, match in matches.items() if match}


def _may_be_person(beginning: str) -> bool:
    """Whether a beginning ends with a number (or a code that holds one) that may be a person's."""
    last = PLACES.split(beginning)[-1]
    if not any(character.isdigit() for character in last):
        return False
    word = re.sub(r"[0-9]+$", "", last) or (["", *PLACES.split(beginning)])[-2]
    is_year = re.fullmatch(r"(19|20)[0-9]{2}", last) is not None
    return word.lower() not in NO_PERSONS and not is_year


def scans_of(persons: Mapping[str, str]) -> dict[str, list[str]]:
    """Person -> names of the scans, in the order of the names."""
    scans: dict[str, list[str]] = {}
    for name, person in persons.items():
        scans.setdefault(person, []).append(name)
    return scans
