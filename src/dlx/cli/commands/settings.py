"""`dlx settings`: lists every setting with its type, range, default and meaning, and the parts it can name."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dlx.settings.reference import Setting

MIN_WIDTH, MAX_WIDTH = 40, 100  # columns of text: shorter or longer lines are hard to read


def settings(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Only these settings, sections or parts: model, lr, cosine."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list and nothing else.")] = False,
) -> None:
    """List the settings: type, range, default and meaning of each.

    Set them with --set KEY=VALUE or in a TOML file (--config).
    """
    from dlx.cli.output.console import print_json

    chosen = select(names or [])
    if as_json:
        print_json([as_entry(setting) for setting in chosen])
        return
    columns = shutil.get_terminal_size((80, 24)).columns
    typer.echo("\n".join(listing(chosen, max(MIN_WIDTH, min(MAX_WIDTH, columns)))))


def select(names: list[str]) -> "list[Setting]":
    """The settings with these names; SettingError, with similar names, for an unknown name."""
    from dlx.settings.reference import all_settings
    from dlx.settings.registry import PARTS
    from dlx.settings.spec import PART_KINDS
    from dlx.system.errors import SettingError, nearest

    every = all_settings()
    if not names:
        return every
    chosen: dict[Setting, None] = {}
    known = {key for s in every for key in (s.key, s.key.partition(".")[0], s.key.rpartition(".")[2])}
    part_names = {name for kind in PART_KINDS.values() for name in PARTS[kind]}
    for name in names:
        found = [s for s in every if s.key == name or s.key.startswith(f"{name}.")]
        found = found or [s for s in every if s.key.endswith(f".{name}")]
        found = found or [s for s in every if name in s.parts or name in PARTS.get(PART_KINDS.get(s.key, ""), ())]
        if not found:
            raise SettingError(f"no setting '{name}': {nearest(name, known | part_names)}")
        chosen |= dict.fromkeys(found)
    return [setting for setting in every if setting in chosen]


def listing(chosen: "list[Setting]", width: int) -> Iterator[str]:
    """Lines of text: for each setting its key and default, its type and meaning, and the parts it can name."""
    from dlx.settings.reference import choices

    section = None
    for setting in chosen:
        if setting.key.partition(".")[0] != section:
            if section is not None:
                yield ""
            section = setting.key.partition(".")[0]
        yield f"{setting.key} = {setting.default}{_recipe_values(setting.key, setting.default)}"
        found = choices(setting.key)
        what = "one of the names below" if found else setting.type
        yield _wrapped(f"{what}. {setting.meaning}{_owners(setting)}", width)
        for name, meaning in found.items():
            yield _wrapped(f"{name}: {meaning}", width, indent=6)


def _owners(setting: "Setting") -> str:
    """The parts that take this argument, as ` Of unet, unet2.`; a family of networks is shortened to one name."""
    from dlx.settings.registry import PARTS
    from dlx.settings.spec import PART_KINDS

    if not setting.parts:
        return ""
    kind = PARTS[PART_KINDS[setting.key.rpartition(".")[0]]]
    takers = [name for name in kind if name in setting.parts]
    if takers == list(kind):
        return " Of all of them."
    for family in ("unet-resnet", "unet-vgg"):
        members = [name for name in kind if name.startswith(family)]
        if members and set(members) <= set(takers):
            position = takers.index(members[0])
            takers = [name for name in takers if name not in members]
            takers.insert(position, f"{family}*")
    argument = setting.key.rpartition(".")[2]
    if setting.key.startswith("loss."):  # a sum of terms, each with its own arguments
        return f" Given as {' or '.join(f'{name}:{argument}=...' for name in takers)}."
    return f" Of {', '.join(takers)}."


def _wrapped(text: str, width: int, indent: int = 4) -> str:
    start, hanging = " " * indent, " " * (indent if indent <= 4 else indent + 2)
    return fill(text, width, initial_indent=start, subsequent_indent=hanging, break_on_hyphens=False)


def _recipe_values(key: str, default: str) -> str:
    """`   (quick: 12, notes: 50)` if recipes set a value other than the default."""
    from dlx.settings.layers import read_recipe, recipe_names

    found = []
    for recipe in recipe_names():
        value: Any = read_recipe(recipe)
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, dict):
            value = value.get("name")
        if value is not None and str(value) != default:
            found.append(f"{recipe}: {value if isinstance(value, str) else json.dumps(value)}")
    return f"   ({', '.join(found)})" if found else ""


def as_entry(setting: "Setting") -> dict[str, Any]:
    """A setting for JSON."""
    from dlx.settings.reference import choices

    entry = asdict(setting) | {"choices": choices(setting.key)}
    return {key: value for key, value in entry.items() if key not in ("parts", "choices") or value}
