"""The pieces of which Methods sentences are made: text, text of users, citations; and values of recorded settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlx.report.page.content import Given


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


def setting(settings: Mapping[str, Any], *keys: str) -> Any:
    """The value below nested keys; None where records of another version have none."""
    value: Any = settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def number_of(value: Any) -> str:
    """A recorded number as text."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
