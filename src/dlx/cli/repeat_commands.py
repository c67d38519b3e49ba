"""The commands that repeat or resume a run, made from the typed command line or from recorded settings."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlx.settings.short_names import DEFAULT_RECIPE, SHORT_NAMES
from dlx.settings.text import parse_value
from dlx.system.shell import shell_command, without_flags

# options by setting, without the two whose text --set reads differently
OPTIONS = {key: name for name, key in SHORT_NAMES.items() if key not in ("data.source", "split.val")}


def resume_command(command: str) -> str:
    """The command that runs what is unfinished: the given one without `--fresh`."""
    if _is_python(command):
        return f"the same call in Python ({command})"
    return without_flags(command, "--fresh")


def repeat_command(command: str) -> str:
    """The command that runs everything again from the first epoch."""
    if _is_python(command):
        return f"the same call in Python, with fresh=True ({command})"
    return f"{without_flags(command, '--resume', '--fresh')} --fresh"


def _is_python(command: str) -> bool:
    """Whether a study was run by the Python interface, which records its call in place of a command."""
    return command.startswith("dlx.")


def train_command(settings: Mapping[str, Any], seeds: Sequence[int], out: Path) -> str:
    """A `dlx train` command that gives these recorded settings: the recipe that needs the fewest options, and those.

    Paths in the settings are absolute, so the command works from any folder.
    """
    from dlx.settings.layers import make_spec, read_recipe, recipe_names

    spec = make_spec(dict(settings))
    asked = spec.model_dump(mode="json")
    candidates = {}
    for recipe in (DEFAULT_RECIPE, *recipe_names()):
        start = make_spec(read_recipe(recipe)).model_dump(mode="json")
        if spec.model.is_own:  # its dropout keeps its rates unless p is given
            start["dropout"] = make_spec(read_recipe(recipe) | {"model": asked["model"]}).dropout.model_dump(
                mode="json"
            )
        candidates[recipe] = [word for key, value in _differences(asked, start) for word in _option(key, value)]
    recipe = min(candidates, key=lambda name: len(candidates[name]))
    words = ["dlx", "train", *(["--recipe", recipe] if recipe != DEFAULT_RECIPE else []), *candidates[recipe]]
    return shell_command([*words, *_seeds(seeds), "--out", os.fspath(out)])


def _differences(asked: Mapping[str, Any], start: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields each setting that differs, with its value; a part and its arguments are one setting."""
    from dlx.settings.spec import setting_fields

    for key, *_ in setting_fields():
        value, default = asked, start
        for step in key.split("."):
            value, default = value[step], default[step]
        if value != default:
            yield key, value


def _option(key: str, value: Any) -> list[str]:
    """A setting as its own option if there is one, else as `--set`; a data folder as `--data`."""
    if key == "data.source" and value["name"] == "folder" and set(value["args"]) == {"path"}:
        return ["--data", value["args"]["path"]]
    text = _spell_parts(key, value)
    if text is None and isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value)
    if key in OPTIONS and text is not None:
        return [f"--{OPTIONS[key].replace('_', '-')}", text]
    return ["--set", f"{key}={_spell(value) if text is None or isinstance(value, str) else text}"]


def _spell_parts(key: str, value: Any) -> str | None:
    """Parts in their short form, `dice+focal:gamma=1`, if it parses to the same parts; None for other values."""
    from dlx.settings.binding import bind_part
    from dlx.settings.own.code import vouched_code
    from dlx.settings.part import Part
    from dlx.settings.spec import PART_KINDS, Spec

    if key not in PART_KINDS:
        return None
    parts = [Part(**entry) for entry in (value if isinstance(value, list) else [value])]
    if key == "model" and parts[0].is_own:
        return str(parts[0].model_copy(update={"name": vouched_code(parts[0]).typed}))
    if key in ("model", "data.source") and not parts[0].args:  # a name without arguments would keep those of the recipe
        parts = [bind_part(PART_KINDS[key], parts[0])]
    text = "+".join(map(str, parts))
    if key == "loss":
        return text if Spec.model_validate({"loss": text}).loss == tuple(parts) else None
    return text if Part.model_validate(text) == parts[0] else None


def _spell(value: Any) -> str:
    """The value as `--set` reads it: text unquoted if it parses to the same text, everything else as JSON."""
    if isinstance(value, str):
        return value if parse_value(value) == value and value else f'"{value}"'
    if value is None:
        return "none"
    if isinstance(value, Mapping) and set(value) == {"name", "args"}:
        return json.dumps({"name": value["name"], **value["args"]})
    return json.dumps(value)


def _seeds(seeds: Sequence[int]) -> list[str]:
    if list(seeds) == [0]:
        return []
    if list(seeds) == list(range(len(seeds))):
        return ["--seeds", str(len(seeds))]
    return ["--seed", str(seeds[0])] if len(seeds) == 1 else ["--seeds", ",".join(map(str, seeds))]
