"""Whom the cases are of: from a file of groups, or one beside the true masks."""

from collections.abc import Sequence
from pathlib import Path

from dlx.data.checks.scan_names import guess_persons, scans_of
from dlx.data.layouts.listing import name_some
from dlx.data.splits.groups import GROUPS, read_groups_json
from dlx.evaluation.pairs import Truths
from dlx.settings.text import counted
from dlx.system.errors import DataError


def persons_of(truths: Truths, groups: Path | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Case -> person, and remarks; without groups it is empty: each case is of its own person.

    `groups` is a file, by default the groups.json beside the true masks or in the folder above, as in a data set.
    Raises DataError if it names none of the cases.
    """
    beside = [folder / GROUPS for folder in (truths.folder, truths.folder.parent)]
    path = groups or next((file for file in beside if file.is_file()), None)
    if path is None:
        return {}, ()
    persons = read_groups_json(path)
    unknown = [case for case in persons if case not in truths.files]
    if len(unknown) == len(persons):
        cases = name_some([*truths.files], 3)
        raise DataError(f"{path}: names none of the cases in {truths.path} (cases: {cases})")
    remark = f"{path}: no true mask has the name {name_some(unknown, 3)}"
    return {case: person for case, person in persons.items() if case in truths.files}, (remark,) if unknown else ()


def remark_on_scans(cases: Sequence[str]) -> tuple[str, ...]:
    """A warning if the names of cases that no groups are given for look like several scans of a person."""
    scans = {person: names for person, names in scans_of(guess_persons(cases)).items() if len(names) > 1}
    if not scans:
        return ()
    first = next(iter(scans))
    return (
        f"case names look like several scans of {counted(len(scans), 'person')} ({first}: "
        f"{name_some(scans[first], 2)}), and verdicts count each scan as a patient: name the persons in a JSON file "
        '{"case": "person"} with --groups FILE',
    )
