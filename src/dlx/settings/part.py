"""A group of settings, and a named part with its arguments. Nothing here needs torch."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from dlx.settings.text import parse_part


class Section(BaseModel):
    """A group of settings: frozen, and an unknown key is refused.

    The text below a setting is its meaning, as `dlx settings` shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Part(Section):
    """A named part and the arguments given to it: `step:step_size=30,gamma=0.1` is `Part("step", {...})`.

    In a table the arguments stand beside the name: `{name = "unet2", width = 16}`.
    """

    name: str
    args: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_text_or_table(cls, value: Any) -> Any:
        if value is None:  # `normalize=none` on a command line
            return {"name": "none"}
        if isinstance(value, str):
            return parse_part(value)
        if isinstance(value, dict) and not (set(value) <= {"name", "args"} and isinstance(value.get("args", {}), dict)):
            return {"name": value.get("name"), "args": {key: v for key, v in value.items() if key != "name"}}
        return value

    def __str__(self) -> str:
        args = ",".join(f"{key}={spell_value(value)}" for key, value in self.args.items())
        return f"{self.name}:{args}" if args else self.name


def spell_value(value: Any) -> str:
    """A value as it is typed after `key=`: a text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
