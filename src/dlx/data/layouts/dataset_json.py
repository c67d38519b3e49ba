"""The `dataset.json` of nnU-Net and the Decathlon: reads it and checks the tables that both formats have.

The keys that only one layout needs are checked in the module of that layout.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.data.layouts.listing import name_some
from dlx.system.errors import DataError
from dlx.system.files import read_json

NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetJson:
    """The content of a `dataset.json`, and its path for messages."""

    path: Path
    values: dict[str, Any]

    def table(self, key: str) -> dict[str, Any]:
        """The table at a key. Raises DataError if it is missing, empty or not a table."""
        value = self.values.get(key)
        if not isinstance(value, dict) or not value:
            what = "missing" if key not in self.values else "empty" if value == {} else kind_of(value)
            raise DataError(f"{self.path}: '{key}' must be a table with entries, and is {what}")
        return value

    def channel_names(self, key: str) -> tuple[str, ...]:
        """The channels of `{"0": "T1", "1": "T2"}` in order; the keys must count from 0. Names may repeat."""
        entries = self.table(key)
        numbers = [str(number) for number in range(len(entries))]
        if set(entries) != set(numbers):
            raise DataError(f"{self.path}: the keys of '{key}' must count from 0, and are {name_some(sorted(entries))}")
        for name in entries.values():
            if not isinstance(name, str):
                raise DataError(f"{self.path}: '{key}': a channel's name must be a text, not {kind_of(name)}")
        return tuple(entries[number] for number in numbers)

    def count_remark(self, num_cases: int) -> tuple[str, ...]:
        """A remark if `numTraining` differs from the number of cases found."""
        declared = self.values.get("numTraining", num_cases)
        if type(declared) is not int:
            raise DataError(f"{self.path}: 'numTraining' must be a whole number, not {kind_of(declared)}")
        if declared == num_cases:
            return ()
        return (f"{self.path} declares {declared} training cases (numTraining), but the folder has {num_cases}",)


def read_dataset_json(folder: Path) -> DatasetJson:
    """The `dataset.json` of a folder. Raises DataError if it is missing, not JSON or not a table."""
    path = folder / NAME
    values = read_json(path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected a table {{...}}, not {kind_of(values)}")
    return DatasetJson(path, values)


def has_keys(folder: Path, *keys: str) -> bool:
    """Whether a folder's `dataset.json` has these keys (False without one); DataError if it is broken."""
    if not os.path.lexists(folder / NAME):
        return False
    return read_dataset_json(folder).values.keys() >= set(keys)


def kind_of(value: Any) -> str:
    """The type of a JSON value, in words for a message."""
    kinds = {dict: "a table", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def ordered_labels(labels: list[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and values, sorted by value."""
    ordered = sorted(labels, key=lambda label: label[1])
    return tuple(name for name, _ in ordered), tuple(value for _, value in ordered)
