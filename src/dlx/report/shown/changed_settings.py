"""The settings of a trial that differ from the defaults, and from those of its control."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlx.records.one_trial import OneTrial
from dlx.settings.part import Part, spell_value
from dlx.settings.spec import Spec, setting_fields

UNKNOWN = "-"


@dataclass(frozen=True)
class ChangedSetting:
    """A setting as text: its value in the trial, its default, and the control's value (of the control itself, `-`)."""

    key: str
    value: str
    default: str
    control: str = UNKNOWN


def changed_settings(trial: OneTrial) -> list[ChangedSetting]:
    """The settings that were given for the study and differ from the defaults, in the order of `dlx settings`, and
    those in which the trial differs from its control.

    Values that are chosen by the data where none is given, such as the size of patches, are not listed.
    """
    defaults = Spec().model_dump(mode="json")
    found: dict[str, ChangedSetting] = {}
    given = trial.header.settings if trial.header is not None else {}
    for setting in setting_fields():
        asked, default = (_get(table, setting.key) for table in (given, defaults))
        if asked is not None and asked != default:
            found[setting.key] = ChangedSetting(setting.key, _spell(asked), _spell(default))
    ours = trial.history.settings()
    theirs = trial.control.settings() if trial.control is not None else None
    for key, value, control in _differences(theirs, ours) if ours and theirs else ():
        found[key] = ChangedSetting(key, _spell(value), _spell(_get(defaults, key)), _spell(control))
    return list(found.values())


def _get(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None if there is none."""
    value: Any = settings
    for step in key.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _differences(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields key, our value and theirs where they differ; a part with its arguments is one value.

    Where the control drops nothing, it has no kind and place of dropout, in which no variant differs from it then.
    """
    for key in ours:
        a, b = theirs.get(key), ours[key]
        if a == b or (prefix == "dropout." and key not in theirs):
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping) and not _is_part(b):
            yield from _differences(a, b, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", b, a


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"name", "args"}


def _spell(value: Any) -> str:
    """A value as it is typed after `--set key=`; parts with their arguments, several joined by `+`."""
    if value is None:
        return "none"
    if _is_part(value) and isinstance(value["name"], str) and isinstance(value["args"], dict):
        return str(Part(name=value["name"], args=value["args"]))
    if isinstance(value, list) and value and all(map(_is_part, value)):
        return "+".join(map(_spell, value))
    return spell_value(value)
