"""The arguments of named parts: checked against the signature of the part's factory, and filled in."""

import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dlx.settings import registry
from dlx.settings.own.arguments import bind_own
from dlx.settings.part import Part, Section
from dlx.settings.spec import ADDED_LATER, kind_of
from dlx.settings.text import shorten
from dlx.system.errors import SettingError, nearest

AnySection = TypeVar("AnySection", bound=Section)

# What was expected, by pydantic's name of a mistake, for the most frequent ones; for others its own message is shown.
EXPECTED = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text",
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "dict_type": "a table",
    "missing": "a value",
    **dict.fromkeys(("model_type", "model_attributes_type"), "a name or a table"),
    "literal_error": "{expected}",
}

# As pydantic names a type of a union in the location of an error: `constrained-int`, `tuple[int, ...]`.
_UNION_MEMBER = re.compile(r"[-\[]|^(int|float|str|bool)$")


@cache
def argument_schema(factory: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model of the factory's keyword-only parameters: its settings. The engine gives the other ones."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(factory, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (parameter.annotation, default)
    return create_model("Arguments", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def bind_arguments(kind: str, name: str, factory: Callable[..., Any], args: dict[str, Any]) -> dict[str, Any]:
    """The factory's settings, with defaults filled in; SettingError for an argument that is unknown or out of range."""
    schema = argument_schema(factory)
    for key in args:
        if key not in schema.model_fields:
            known = schema.model_fields
            raise SettingError(
                f"{kind} '{name}' has no argument '{key}': {nearest(key, known)}"
                if known
                else f"{kind} '{name}' takes no arguments (got '{key}')"
            )
    try:
        return schema.model_validate(args).model_dump()
    except ValidationError as error:
        raise SettingError(f"{kind} '{name}': {first_cause(error)}") from None


def bind_part(kind: str, part: Part) -> Part:
    """The part with every argument filled in; imports the code behind its name.

    SettingError for a network of the user's own that was not vouched for in this process (`own/named.py`).
    """
    if kind == "model" and part.is_own:
        return bind_own(part)
    return Part(name=part.name, args=bind_arguments(kind, part.name, registry.load(kind, part.name), part.args))


def bind_parts(section: AnySection) -> AnySection:
    """The section with all its parts bound; SettingError for the first name or argument that does not fit."""
    bound: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        value, kind = getattr(section, key), kind_of(field)
        if kind is not None:
            is_single = isinstance(value, Part)
            bound[key] = bind_part(kind, value) if is_single else tuple(bind_part(kind, part) for part in value)
        elif isinstance(value, Section):
            bound[key] = bind_parts(value)
    return section.model_copy(update=bound)


def identifying_settings(section: Section) -> dict[str, Any]:
    """The settings of a section that go into a trial's id, as JSON.

    A setting or argument that is marked ADDED_LATER is left out at its default: there it changes no number, and older
    trials keep their ids. The parts are bound.
    """
    settings: dict[str, Any] = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        value, kind = getattr(section, key), kind_of(field)
        if ADDED_LATER in field.metadata and value == field.default:
            del settings[key]
        elif kind is not None:
            is_single = isinstance(value, Part)
            settings[key] = _identify(kind, value) if is_single else [_identify(kind, part) for part in value]
        elif isinstance(value, Section):
            settings[key] = identifying_settings(value)
    return settings


def _identify(kind: str, part: Part) -> dict[str, Any]:
    return identifying_part(kind, part).model_dump(mode="json")


def identifying_part(kind: str, part: Part) -> Part:
    """A bound part without the arguments that were added later and have their default."""
    if part.is_own:
        return part
    fields = argument_schema(registry.load(kind, part.name)).model_fields

    def is_kept(key: str, value: Any) -> bool:
        return ADDED_LATER not in fields[key].metadata or value != fields[key].default

    return Part(name=part.name, args={key: value for key, value in part.args.items() if is_kept(key, value)})


def first_cause(error: ValidationError) -> str:
    """Pydantic's first complaint on one line: `key: what was expected (got value)`."""
    first = error.errors(include_url=False)[0]
    key = spelled_key(first["loc"])
    cause = first["msg"].removeprefix("Value error, ")
    if first["type"] in EXPECTED:
        limits = {name: _spell_limit(value) for name, value in first.get("ctx", {}).items()}
        cause = f"expected {EXPECTED[first['type']].format(**limits)}"
    is_plain = first["type"] in ("missing", "value_error", "extra_forbidden")
    got = "" if is_plain else f" (got {shorten(repr(first['input']))})"
    return f"{key}: {cause}{got}" if key else f"{cause}{got}"


def spelled_key(location: tuple[int | str, ...]) -> str:
    """The key of a setting from pydantic's location of an error, without its names of the types of a union."""
    return ".".join(str(step) for step in location if isinstance(step, int) or _UNION_MEMBER.search(step) is None)


def _spell_limit(limit: Any) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}" if isinstance(limit, float) else str(limit)
