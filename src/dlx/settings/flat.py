"""Nested settings as one table of dotted keys, and their values as text."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from dlx.settings.part import Part, spell_value


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings by dotted key; a part with its arguments is one value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and not is_dumped_part(value):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def is_dumped_part(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value of recorded settings is a part with its arguments."""
    return isinstance(value, Mapping) and set(value) == {"name", "args"} and isinstance(value["args"], Mapping)


def spell_setting(value: Any) -> str:
    """A value as it is typed after `--set key=`: a part with its arguments, several joined by `+`, `none`, JSON."""
    if value is None:
        return "none"
    if is_dumped_part(value):
        return str(Part(name=str(value["name"]), args=dict(value["args"])))
    if isinstance(value, list) and value and all(map(is_dumped_part, value)):
        return "+".join(map(spell_setting, value))
    return spell_value(value)
