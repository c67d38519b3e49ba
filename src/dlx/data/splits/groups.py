"""Which person a case belongs to: groups.json, `{"scan-1": "anna", "scan-2": "anna"}`."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from dlx.data.cache_file import read_groups
from dlx.data.layouts.dataset_json import kind_of
from dlx.data.layouts.listing import name_some, natural_key
from dlx.settings.spec import SplitSpec
from dlx.system.errors import DataError
from dlx.system.files import read_json

GROUPS = "groups.json"


def load_groups(spec: SplitSpec, source: Path | None) -> dict[str, str]:
    """Case -> person, from `spec.groups`, else from groups.json in the data folder, else from the prepared file.

    `source` is the data folder, a file of prepared data (which contains the groups.json of its folder), or None.
    Without groups the result is empty, and every case is its own person.
    """
    if spec.groups is not None:
        return read_groups_json(Path(spec.groups))
    if source is None:
        return {}
    return read_groups(source) if source.is_file() else folder_groups(source)


def folder_groups(folder: Path) -> dict[str, str]:
    """Case -> person from the groups.json of a data folder; empty without this file."""
    return read_groups_json(folder / GROUPS) if (folder / GROUPS).exists() else {}


def read_groups_json(path: Path) -> dict[str, str]:
    """Case -> person from a file; DataError if it has another form."""
    table = read_json(path)
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected a table of case and person, not {kind_of(table)}")
    for case, person in table.items():
        if not isinstance(person, str):
            raise DataError(f"{path}: the person of {case!r} must be a text, not {kind_of(person)}")
        if not person.isprintable() or not case.isprintable():
            raise DataError(f"{path}: {case!r}: {person!r} holds unprintable characters")
    return table


def check_groups(groups: Mapping[str, str], ids: list[str], spec: SplitSpec) -> None:
    """Refuses names that match no case: a misspelt name would leave a scan outside its person's group."""
    unknown = sorted(set(groups) - set(ids), key=natural_key)
    if not unknown:
        return
    hints = []
    for name in unknown[:3]:
        close = difflib.get_close_matches(name, ids, n=1)
        hints.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    more = f" and {len(unknown) - len(hints)} more" if len(unknown) > len(hints) else ""
    what = "a name matches" if len(unknown) == 1 else f"{len(unknown)} names match"
    raise DataError(
        f"{spec.groups or GROUPS}: {what} no case: {', '.join(hints)}{more}; correct or remove them "
        f"(cases: {name_some(ids)})"
    )
