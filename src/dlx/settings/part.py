"""A group of settings, and a named part with its arguments. Nothing here needs torch."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dlx.settings.own.names import own_name
from dlx.settings.text import parse_part


class Section(BaseModel):
    """A group of settings: frozen, and an unknown key is refused.

    The text below a setting is its meaning, as `dlx settings` shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class CodeSpec(Section):
    """What identifies the code of a network of the user's own, and its geometry, which is found where it is not given.

    Nothing is loaded by it: `own/code.py` looks up what was vouched for.
    """

    digest: Annotated[
        str, Field(pattern=r"^[0-9a-f]{32}$")
    ]  # of its files, or of the file of a package that defines it
    version: Annotated[str, Field(max_length=200)] | None = None  # of an installed package, with its name
    dims: Literal[2, 3] | None = None
    stride: Annotated[int, Field(ge=1, le=1024)] | None = None  # image sizes have to be multiples of it
    is_channels_last: bool = True  # False: it fails on images in this memory format


class Part(Section):
    """A named part and the arguments given to it: `step:step_size=30,gamma=0.1` is `Part("step", {...})`.

    In a table the arguments stand beside the name: `{name = "unet2", width = 16}`. `code` is there for a network of the
    user's own (`my_net.py:Net`) alone, once its code is known; other parts are written without it.
    """

    name: str
    args: dict[str, Any] = {}
    code: CodeSpec | None = None

    @property
    def is_own(self) -> bool:
        """Whether the name is of a network of the user's own, which is in no registry."""
        return own_name(self.name) is not None

    @model_serializer(mode="wrap")
    def _without_absent_code(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if self.code is None:
            del written["code"]
        return written

    @model_validator(mode="before")
    @classmethod
    def _from_text_or_table(cls, value: Any) -> Any:
        if value is None:  # `normalize=none` on a command line
            return {"name": "none"}
        if isinstance(value, str):
            return parse_part(value)
        if isinstance(value, dict) and not is_dumped(value):
            return {"name": value.get("name"), "args": {key: v for key, v in value.items() if key != "name"}}
        return value

    def __str__(self) -> str:
        args = ",".join(f"{key}={spell_value(value)}" for key, value in self.args.items())
        return f"{self.name}:{args}" if args else self.name


def is_dumped(table: Any) -> bool:
    """Whether a table is a part as records have it: with a table of arguments, not the arguments beside the name."""
    if not isinstance(table, dict) or not set(table) <= {"name", "args", "code"}:
        return False
    return isinstance(table.get("args", {}), dict) and isinstance(table.get("code"), dict | CodeSpec | None)


def spell_value(value: Any) -> str:
    """A value as it is typed after `key=`: a text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
