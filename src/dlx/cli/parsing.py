"""Additions to typer's parsing of the command line: hints for misplaced arguments, `~` in paths, and exit codes."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dlx.system.shell import shell_command


class Command(TyperCommand):
    """A command whose error for an unexpected argument says what to type instead, and whose `--resume` may have a
    value.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if any(parameter.name == "resume_run" for parameter in self.params):
            args = with_resumed_run(args)
        ctx.allow_extra_args = True  # so that typer returns unexpected words, which are refused below
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            takes_data = any(parameter.name == "data" for parameter in self.params)
            ctx.fail(_unexpected(rest[0], takes_data=takes_data))
        return rest


def with_resumed_run(args: list[str]) -> list[str]:
    """The arguments with `--resume RUN` and `--resume=RUN` as `--resume --resume-run RUN`, as an option of typer either
    takes a value or does not. An option after `--resume` is no value.
    """
    end = args.index("--") if "--" in args else len(args)
    changed: list[str] = []
    for position, word in enumerate(args[:end]):
        if word.startswith("--resume="):
            changed += ["--resume", "--resume-run", word.removeprefix("--resume=")]
        elif word == "--resume" and position + 1 < end and not args[position + 1].startswith("-"):
            changed += ["--resume", "--resume-run"]
        else:
            changed.append(word)
    return changed + args[end:]


CLOSED_PIPE = 141  # 128 + SIGPIPE: the exit code if the reader of the output has gone


class Group(TyperGroup):
    """The group of all commands. Given a file or folder instead of a command, its error names a command for that."""

    def make_context(self, *args: Any, **given: Any) -> typer.Context:
        with exit_codes():  # `--help` and `--version` print here
            return super().make_context(*args, **given)  # type: ignore[return-value]

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        with exit_codes():
            return super().invoke(ctx)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        if args and self.get_command(ctx, args[0]) is None and (meant := _command_for(args[0])) is not None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean: dlx {meant} {shell_command(args[:1])}")
        return super().resolve_command(ctx, args)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends the command with 130 after Ctrl-C, 143 after SIGTERM and 141 if the output is closed.

    typer would end it with 130 after either signal and with 1 for a closed output.
    """
    from dlx.system.interrupts import exit_code

    try:
        yield
    except KeyboardInterrupt as stop:
        if sys.stderr is not None:
            print(f"\ndlx: {spell_stop(stop)}", file=sys.stderr)
        raise typer.Exit(exit_code(stop)) from stop
    except (BrokenPipeError, SystemExit) as error:
        # rich, which prints the help, turns a closed pipe into SystemExit(1)
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        from dlx.cli.output.console import discard_output

        discard_output()
        raise typer.Exit(CLOSED_PIPE) from error


def spell_stop(stop: KeyboardInterrupt) -> str:
    """`interrupted` after Ctrl-C, `stopped by SIGTERM` after that."""
    return "interrupted" if str(stop) in ("", "SIGINT") else f"stopped by {stop}"


def _unexpected(word: str, *, takes_data: bool) -> str:
    if word.startswith("-"):  # after `--`
        return f"Got the unexpected argument {word!r}."
    if takes_data and (os.path.exists(os.path.expanduser(word)) or os.sep in word):
        return f"Got the unexpected argument {word!r}. Pass data with an option: --data {shell_command([word])}"
    hint = f" Data are passed as --data {shell_command([word])}; a value follows its option." if takes_data else ""
    return f"Got the unexpected argument {word!r}.{hint}"


def _command_for(word: str) -> str | None:
    """The command that takes this file or folder; None if it does not exist or no command takes it."""
    path = Path(os.path.expanduser(word))
    if not path.exists():
        return None
    if path.is_dir():
        return "report" if (path / "study.json").is_file() else "train --data"
    return {".toml": "run", ".jsonl": "report"}.get(path.suffix)


def expanding_home(command: Callable[..., None]) -> Callable[..., None]:
    """Expands `~` in every path given to the command; a shell expands `~/x`, but not `--out=~/x`."""

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
