"""Arguments of the Python interface, checked where nothing below checks their types: a wrong one is a SettingError.

The public functions declare the types; here they are Any, as a caller may give anything.
"""

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

from pydantic import ValidationError

from dlx.settings.binding import first_cause
from dlx.settings.layers import Settings
from dlx.settings.short_names import settings_in_layers
from dlx.settings.text import parse_grid
from dlx.study.axes import Axis
from dlx.study.study import MAX_SEEDS
from dlx.system.errors import SettingError
from dlx.system.files import expand_home

Location = str | PathLike[str]
Seeds = int | Sequence[int]  # a number of seeds (5: 0 to 4), or the seeds


def as_path(name: str, value: Any) -> Path:
    """A path, with `~` expanded."""
    if not isinstance(value, str | PathLike) or not isinstance(os.fspath(value), str):
        raise SettingError(f"{name}: expected a path (got {value!r})")
    return Path(expand_home(os.fspath(value)))


def as_seeds(seeds: Any) -> tuple[int, ...]:
    """The seeds: 5 means 0 to 4."""
    how = f"expected a number of seeds, 1 to {MAX_SEEDS:,}, or a list of seeds"
    if isinstance(seeds, bool | str) or not isinstance(seeds, SupportsIndex | Iterable):
        raise SettingError(f"seeds: {how} (got {seeds!r})")
    if isinstance(seeds, SupportsIndex):
        number = operator.index(seeds)
        if not 1 <= number <= MAX_SEEDS:
            raise SettingError(f"seeds: {number} is out of range; {how}")
        return tuple(range(number))
    found = tuple(islice(seeds, MAX_SEEDS + 1))
    if not 1 <= len(found) <= MAX_SEEDS:
        raise SettingError(f"seeds: {'no seed' if not found else 'too many seeds'}; {how}")
    return tuple(operator.index(seed) if isinstance(seed, SupportsIndex) else seed for seed in found)


def as_axes(axes: Any) -> list[Axis]:
    """The axes of a study: setting -> values, or a grid such as "0.1..0.8"."""
    if not isinstance(axes, Mapping):
        raise SettingError(f'axes: expected settings and their values, {{"dropout.p": [0, 0.1]}} (got {axes!r})')
    found = []
    for key, values in axes.items():
        if not isinstance(values, Iterable) or isinstance(values, bytes | Mapping):
            raise SettingError(f"axes: {key}: expected a list of values, or a grid such as '0.1..0.8' (got {values!r})")
        try:
            found.append(Axis(key=key, values=tuple(parse_grid(values) if isinstance(values, str) else values)))
        except ValidationError as error:
            raise SettingError(f"axes: {key}: {first_cause(error)}") from None
    return found


def as_name(name: Any) -> str:
    """The name of a study, which names its folder."""
    is_text = isinstance(name, str) and name.isprintable() and bool(name.strip())
    if not is_text or set(name) & set("/\\") or name.startswith("."):
        raise SettingError(f"name: {name!r} cannot name a folder (expected a word such as 'rates')")
    return str(name)


def as_layers(recipe: Any, named: Mapping[str, Any], settings: Any, base: Settings | None = None) -> Settings:
    """The merged settings of recipe, `base`, settings by short name, and `settings` by full name."""
    if not isinstance(recipe, str):
        raise SettingError(f"recipe: expected the name of a recipe (got {recipe!r})")
    if not isinstance(settings, Mapping | None) or not all(isinstance(key, str) for key in settings or {}):
        raise SettingError(f'settings: expected values by full name, {{"model.width": 8}} (got {settings!r})')
    return settings_in_layers(recipe, named, base=base, assigned=settings or {})


def check_number(name: str, value: Any) -> None:
    """Refuses what is no whole number; None is not given."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, SupportsIndex)):
        raise SettingError(f"{name}: expected a whole number (got {value!r})")
