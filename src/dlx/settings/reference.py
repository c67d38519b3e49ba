"""Every setting with its type, range, default and meaning, read from the spec and from the signatures of parts.

The texts are not here: the meaning of a setting is below its field in `spec.py`, that of an argument in its `Field`.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from dlx.settings import registry
from dlx.settings.binding import argument_schema
from dlx.settings.part import spell_value
from dlx.settings.spec import PART_KINDS, setting_fields


@dataclass(frozen=True)
class Setting:
    """One setting, by the key that `--set` and TOML files use. `parts`: of an argument, the parts that take it."""

    key: str
    type: str  # with the range: `whole number from 1 to 4096`
    default: str
    meaning: str
    parts: tuple[str, ...] = ()


def all_settings() -> list[Setting]:
    """The fields of the spec in their order; after a part, the arguments of all parts that it can name."""
    found: list[Setting] = []
    for key, field, kind in setting_fields():
        meaning = field.description or ""
        if kind is None:
            found.append(Setting(key, _spell_type(field), _spell_default(field), meaning))
            continue
        default = field.get_default()
        shown = "+".join(map(str, default)) if isinstance(default, tuple) else str(default)
        names = " | ".join(registry.PARTS[kind]) if kind != "data" else "phantom | a path"
        found += [Setting(key, names, shown, meaning), *_arguments(key, kind)]
    return found


def choices(key: str) -> dict[str, str]:
    """The parts that a setting can name, each with its meaning; none for other settings."""
    kind = PART_KINDS.get(key)
    if kind is None:
        return {}
    return {name: _first_paragraph(registry.load(kind, name)) for name in registry.PARTS[kind]}


def _arguments(key: str, kind: str) -> Iterator[Setting]:
    """The arguments of all parts of a kind; an argument that several parts declare alike is one setting."""
    takers: dict[Setting, list[str]] = {}
    for name in registry.PARTS[kind]:
        for argument, field in argument_schema(registry.load(kind, name)).model_fields.items():
            found = Setting(f"{key}.{argument}", _spell_type(field), _spell_default(field), field.description or "")
            takers.setdefault(found, []).append(name)
    for found, names in takers.items():
        yield replace(found, parts=tuple(names))


def _first_paragraph(factory: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(factory) or "").split("\n\n")[0].split())


def _spell_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, float):
        return f"{default:.6g}"
    return "none" if default is None else spell_value(default)


def _spell_type(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    for mark in field.metadata:
        annotation = Annotated[annotation, mark]
    return spell_schema(TypeAdapter(annotation).json_schema())


def spell_schema(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: `whole number from 1 to 4096`, `batch | none`, `number above 0, or none`."""
    if "anyOf" in schema:
        options = [spell_schema(option) for option in schema["anyOf"] if option.get("type") != "null"]
        suffix = ", or none" if any(option.get("type") == "null" for option in schema["anyOf"]) else ""
        joint = " | " if any(" | " in option for option in options) else " or "
        return joint.join(dict.fromkeys(options)) + suffix
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "integer" | "number":
            what = "whole number" if schema["type"] == "integer" else "number"
            return f"{what} {_spell_range(schema)}".strip()
        case "boolean":
            return "true | false"
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(spell_schema(item) for item in schema['prefixItems'])}]"
        case "array":
            return f"list of {_plural(spell_schema(schema.get('items', {})))}"
        case "object":
            return f"table of {_plural(spell_schema(schema.get('additionalProperties', {})))}"
        case _:
            return "text"


def _plural(words: str) -> str:
    """`numbers from 0 to 1`, `whole numbers above 0`; other words as they are."""
    return re.sub(r"^((?:whole )?number)\b", r"\1s", words)


def _spell_range(schema: Mapping[str, Any]) -> str:
    starts = {"minimum": "from", "exclusiveMinimum": "above"}
    ends = {"maximum": "to", "exclusiveMaximum": "below"}
    start, end = (
        next((f"{word} {_spell_number(schema[key])}" for key, word in words.items() if key in schema), "")
        for words in (starts, ends)
    )
    if start.startswith("from") and not end:
        return f"{start} on"
    return " and ".join(filter(None, (start, end))) if end.startswith("below") else f"{start} {end}".strip()


def _spell_number(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:g}"
