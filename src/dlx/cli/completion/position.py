"""Finds what an unfinished word of a command line is: a command, an option, or the value of an option or argument."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from dlx.cli.completion.candidate import Candidate, Candidates, Listed, fitting, prefixed
from dlx.cli.completion.parameters import completer_of

# options whose value may be left out -> the parameter that takes it
OPTIONAL_VALUES = {"--resume": "resume_run"}


@dataclass(frozen=True)
class TypedCommand:
    """A command of the application: its name, its parameters as typer gives them, and its function."""

    name: str
    parameters: Sequence[Any]
    callback: Callable[..., Any]

    @property
    def options(self) -> list[Any]:
        return [one for one in self.parameters if one.param_type_name == "option" and not one.hidden]

    @property
    def arguments(self) -> list[Any]:
        return [one for one in self.parameters if one.param_type_name == "argument"]

    def taking_value(self, word: str) -> str | None:
        """The name of the parameter that takes the word after this option; None if the option takes none."""
        if word in OPTIONAL_VALUES and any(one.name == OPTIONAL_VALUES[word] for one in self.parameters):
            return OPTIONAL_VALUES[word]
        found = next((one for one in self.options if word in one.opts), None)
        return None if found is None or found.is_flag else str(found.name)


def complete(app: typer.Typer, words: Sequence[str], text: str) -> Candidates:
    """Completes a command line of the application: `words` are finished (without the program), `text` is not."""
    group: Any = typer.main.get_command(app)
    commands = {name: command for name, command in group.commands.items() if not command.hidden}
    position = next((at for at, word in enumerate(words) if not word.startswith("-")), None)
    if position is None:
        if text.startswith("-"):
            return _options([one for one in group.params if not one.hidden], words, text)
        return fitting(text, [Candidate(name, command.get_short_help_str(200)) for name, command in commands.items()])
    command = group.commands.get(words[position])
    if command is None:
        return []
    callback = next(one.callback for one in app.registered_commands if one.name == words[position] and one.callback)
    return _complete_after(TypedCommand(words[position], command.params, callback), words[position + 1 :], text)


def _complete_after(command: TypedCommand, words: Sequence[str], text: str) -> Candidates:
    """Completes a word after the command's name."""
    given, is_after_dashes, waiting = 0, False, None
    for word in words:
        if waiting is not None and not (waiting in OPTIONAL_VALUES.values() and word.startswith("-")):
            waiting = None  # this word is its value
        elif is_after_dashes or not word.startswith("-") or word == "-":
            given += 1
            waiting = None
        elif word == "--":
            is_after_dashes = True
        else:
            waiting = command.taking_value(word)
    is_option = text.startswith("-") and not is_after_dashes
    if waiting is not None and not (is_option and waiting in OPTIONAL_VALUES.values()):
        return _value(command, waiting, words, text)
    if is_option:
        name, equals, value = text.partition("=")
        if not equals:
            return _options(command.options, words, text)
        taker = command.taking_value(name)
        found = [] if taker is None else _value(command, taker, words, value)
        return found if isinstance(found, Listed) else prefixed(f"{name}=", found)
    argument = _argument(command, given)
    if argument is not None:
        return _value(command, argument, words, text)
    return _options(command.options, words, text) if not text else []


def _argument(command: TypedCommand, given: int) -> str | None:
    """The argument that takes the next word after so many were given; the last may take any number."""
    arguments = command.arguments
    if given < len(arguments):
        return str(arguments[given].name)
    return str(arguments[-1].name) if arguments and arguments[-1].nargs == -1 else None


def _value(command: TypedCommand, name: str, words: Sequence[str], text: str) -> Candidates:
    completer = completer_of(command.name, name, command.callback)
    return [] if completer is None else completer(text, words)


def _options(options: Sequence[Any], words: Sequence[str], text: str) -> list[Candidate]:
    """The options that were not given yet, or that may be repeated; only long ones unless a short one was typed."""
    found = []
    for option in options:
        names = [*option.opts, *option.secondary_opts]
        if not option.multiple and any(word.partition("=")[0] in names for word in words):
            continue
        long = [name for name in names if name.startswith("--")]
        help_text = " ".join((option.help or "").split())
        found += [Candidate(name, help_text) for name in (long if len(text) < 2 or text[1] == "-" else names)]
    return fitting(text, [*found, Candidate("--help", "Show this message and exit.")])
