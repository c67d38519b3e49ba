"""The pieces of which Methods sentences are made: text, text of users, citations; and values of recorded settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlx.report.wording.content import Given


@dataclass(frozen=True)
class Citation:
    """The publications cited at a place, by their keys in REFERENCES."""

    keys: tuple[str, ...]


Sentence = tuple[str | Given | Citation, ...]


def cite(*keys: str) -> Sentence:
    """A citation as a piece of a sentence."""
    return (Citation(keys),) if keys else ()


def listed(texts: Sequence[object], max_named: int) -> Sentence:
    """`a, b, c`; of more than `max_named` the first ones and how many more."""
    shown = [*texts[:max_named]]
    found: list[str | Given] = []
    for text in shown:
        found += [", ", Given(text)] if found else [Given(text)]
    return (*found, f" and {len(texts) - len(shown)} more") if len(texts) > len(shown) else tuple(found)


# Recorded settings are read as what they should be, so that records of any version or content can be described.


def setting(settings: Any, *keys: str) -> Any:
    """The value below nested keys; None where there is none."""
    value = settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def table_in(settings: Any, *keys: str) -> Mapping[str, Any]:
    """The table below nested keys; empty where there is none."""
    value = setting(settings, *keys)
    return value if isinstance(value, Mapping) else {}


def list_in(settings: Any, *keys: str) -> list[Any]:
    """The list below nested keys; empty where there is none."""
    value = setting(settings, *keys)
    return list(value) if isinstance(value, list | tuple) else []


def text_in(settings: Any, *keys: str) -> str:
    """The text below nested keys; empty where there is none."""
    value = setting(settings, *keys)
    return value if isinstance(value, str) else ""


def number_in(settings: Any, *keys: str) -> float:
    """The number below nested keys; 0 where there is none."""
    value = setting(settings, *keys)
    return value if isinstance(value, int | float) else 0.0


def number_of(value: Any) -> str:
    """A recorded number as text."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
