"""The `dataset.json` of nnU-Net and the Decathlon: reads it and checks the tables that both formats have.

The keys that only one layout needs are checked in the module of that layout.
"""

import os
from pathlib import Path
from typing import Any

from dlx.data.layouts.listing import name_some
from dlx.system.errors import DataError
from dlx.system.files import read_json

NAME = "dataset.json"


def read_description(folder: Path) -> dict[str, Any]:
    """The `dataset.json` of a folder as a dict. Raises DataError if it is missing, not JSON or not a table."""
    value = read_json(folder / NAME)
    if not isinstance(value, dict):
        raise DataError(f"{folder / NAME}: expected a table {{...}}, not {kind_of(value)}")
    return value


def has_keys(folder: Path, *keys: str) -> bool:
    """Whether a folder's `dataset.json` has these keys (False without one); DataError if it is broken."""
    if not os.path.lexists(folder / NAME):
        return False
    description = read_description(folder)
    return all(key in description for key in keys)


def kind_of(value: Any) -> str:
    """The type of a JSON value, in words for a message."""
    kinds = {dict: "a table", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def table(folder: Path, description: dict[str, Any], key: str) -> dict[str, Any]:
    """The table at a key. Raises DataError if it is missing, empty or not a table."""
    value = description.get(key)
    if not isinstance(value, dict) or not value:
        what = "missing" if key not in description else "empty" if value == {} else kind_of(value)
        raise DataError(f"{folder / NAME}: '{key}' must be a table with entries, and is {what}")
    return value


def channel_names(folder: Path, description: dict[str, Any], key: str) -> tuple[str, ...]:
    """The channels of `{"0": "T1", "1": "T2"}` in order; the keys must count from 0. Names may repeat."""
    entries = table(folder, description, key)
    numbers = [str(number) for number in range(len(entries))]
    if set(entries) != set(numbers):
        raise DataError(f"{folder / NAME}: the keys of '{key}' must count from 0, and are {name_some(sorted(entries))}")
    for name in entries.values():
        if not isinstance(name, str):
            raise DataError(f"{folder / NAME}: '{key}': a channel's name must be a text, not {kind_of(name)}")
    return tuple(entries[number] for number in numbers)


def ordered_labels(labels: list[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and values, sorted by value."""
    ordered = sorted(labels, key=lambda label: label[1])
    return tuple(name for name, _ in ordered), tuple(value for _, value in ordered)


def count_remark(folder: Path, description: dict[str, Any], num_cases: int) -> tuple[str, ...]:
    """A remark if `numTraining` differs from the number of cases found."""
    declared = description.get("numTraining", num_cases)
    if type(declared) is not int:
        raise DataError(f"{folder / NAME}: 'numTraining' must be a whole number, not {kind_of(declared)}")
    if declared == num_cases:
        return ()
    return (f"{folder / NAME} declares {declared} training cases (numTraining), but the folder has {num_cases}",)
