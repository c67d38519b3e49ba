"""The arguments of named parts: a factory's signature is the schema that what the user gives is checked against."""

import inspect
import typing
from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dlx.settings import registry
from dlx.settings.spec import ADDED_LATER, Part, Section
from dlx.system.errors import SettingError, nearest

MAX_LETTERS = 80  # of a wrong value in its error message: one line of a terminal


@cache
def argument_schema(factory: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model of the factory's keyword-only parameters: its settings; the others are the engine's."""
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
    return create_model("Arguments", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def bind_arguments(kind: str, name: str, factory: Callable[..., Any], args: dict[str, Any]) -> dict[str, Any]:
    """The factory's settings, defaults filled in; SettingError names an argument that is unknown or out of range."""
    schema = argument_schema(factory)
    for key in args:
        if key not in schema.model_fields:
            known = schema.model_fields
            raise SettingError(
                f"{kind} '{name}' has no argument '{key}': {nearest(key, known)}"
                if known
                else f"{kind} '{name}' takes no arguments, '{key}' was given"
            )
    try:
        return schema.model_validate(args).model_dump()
    except ValidationError as error:
        raise SettingError(f"{kind} '{name}': {first_cause(error)}") from None


def bind_part(kind: str, part: Part) -> Part:
    """The same part with every argument filled in; imports the code behind its name."""
    return Part(name=part.name, args=bind_arguments(kind, part.name, registry.load(kind, part.name), part.args))


def named_settings(section: Section) -> dict[str, Any]:
    """The settings of a section as JSON, for a trial's name: without those ADDED_LATER that stand at their default.

    Such a setting at its default changes no number, and left out it leaves the names of older trials as they are.
    """
    settings: dict[str, Any] = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if ADDED_LATER in field.metadata and value == field.default:
            del settings[key]
        elif isinstance(value, Section) and not isinstance(value, Part):
            settings[key] = named_settings(value)
    return settings


def named_part(kind: str, part: Part) -> dict[str, Any]:
    """A part whose arguments are all filled in, as JSON, for a trial's name: as `named_settings` does it."""
    fields = argument_schema(registry.load(kind, part.name)).model_fields
    settings: dict[str, Any] = part.model_dump(mode="json")
    for key, value in part.args.items():
        if ADDED_LATER in fields[key].metadata and value == fields[key].default:
            del settings["args"][key]
    return settings


def first_cause(error: ValidationError) -> str:
    """`key: what is wrong (got value)`: pydantic's first complaint on one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    cause = _in_words(first["type"], first.get("ctx", {})) or first["msg"].removeprefix("Value error, ")
    is_plain = first["type"] in ("missing", "value_error", "extra_forbidden")
    got = "" if is_plain else f" (got {shortened(first['input'])})"
    return f"{where}: {cause}{got}" if where else f"{cause}{got}"


def _in_words(kind: str, context: dict[str, Any]) -> str | None:
    """What was expected, for the mistakes that are made most; None where pydantic's own sentence has to do."""
    match kind:
        case "greater_than_equal":
            return f"expected {_spelled(context['ge'])} or more"
        case "greater_than":
            return f"expected more than {_spelled(context['gt'])}"
        case "less_than_equal":
            return f"expected {_spelled(context['le'])} or less"
        case "less_than":
            return f"expected less than {_spelled(context['lt'])}"
        case "int_type" | "int_parsing" | "int_from_float":
            return "expected a whole number"
        case "float_type" | "float_parsing":
            return "expected a number"
        case "bool_type" | "bool_parsing":
            return "expected true or false"
        case "literal_error":
            return f"expected {context['expected']}"
        case _:
            return None


def _spelled(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


def shortened(value: Any) -> str:
    """A value as Python writes it, cut to what a line can hold."""
    text = repr(value)
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 3]}..."
