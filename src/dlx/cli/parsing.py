"""How the command line is parsed beyond what typer does: hints for what was meant, and `~` in paths."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dlx.system.shell import shell_command


class Command(TyperCommand):
    """A command that says what to type instead of an argument it does not take."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        ctx.allow_extra_args = True  # so that the words that are left over come back, and are refused below
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            takes_data = any(parameter.name == "data" for parameter in self.params)
            ctx.fail(_unexpected(rest[0], takes_data=takes_data))
        return rest


class Group(TyperGroup):
    """The commands, with a hint where a file or folder stands in place of one."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        if args and self.get_command(ctx, args[0]) is None and (meant := _command_for(args[0])) is not None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean: dlx {meant} {shell_command(args[:1])}")
        return super().resolve_command(ctx, args)


def _unexpected(word: str, *, takes_data: bool) -> str:
    if word.startswith("-"):  # after `--`
        return f"Got the unexpected argument {word!r}."
    if takes_data and (os.path.exists(os.path.expanduser(word)) or os.sep in word):
        return f"Got the unexpected argument {word!r}. Data are given with an option: --data {shell_command([word])}"
    hint = f" Data are given as --data {shell_command([word])}; a value follows its option." if takes_data else ""
    return f"Got the unexpected argument {word!r}.{hint}"


def _command_for(word: str) -> str | None:
    """The command that takes such a file or folder; None where there is none of this name."""
    path = Path(os.path.expanduser(word))
    if not path.exists():
        return None
    if path.is_dir():
        return "report" if (path / "study.json").is_file() else "train --data"
    return {".toml": "run", ".jsonl": "report"}.get(path.suffix)


def expanding_home(command: Callable[..., None]) -> Callable[..., None]:
    """The command, given every path with its `~` expanded: a shell expands `~/x` but not `--out=~/x`."""

    @functools.wraps(command)
    def expanded_command(**given: Any) -> None:
        command(**{name: _expanded(value) for name, value in given.items()})

    return expanded_command


def _expanded(value: Any) -> Any:
    from dlx.system.files import expand_home

    if isinstance(value, Path):
        return Path(expand_home(str(value)))
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return value
