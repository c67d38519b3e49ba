"""Answers a shell that asks how a word can be completed: `dlx __complete SHELL ...`, as in the scripts of this folder.

The first line says what follows: `words`, or `files` or `folders`, which the shell lists itself. For bash each further
line is what it inserts; for zsh and fish it is the word, `ends` or `goes on`, and help, with tabs between them.
"""

import sys
from collections.abc import Sequence

import typer

from dlx.cli.completion.candidate import Candidate, Listed
from dlx.cli.completion.line import read_line
from dlx.cli.completion.position import complete


def answer(app: typer.Typer, args: Sequence[str]) -> list[str]:
    """The lines that answer the arguments after `__complete`; none if they are not understood."""
    if args[:1] == ["bash"] and len(args) == 3:
        line = read_line(args[1], args[2])
        found = complete(app, line.words, line.text)
        if isinstance(found, Listed):
            return [found.value]
        return ["words", *(line.replacement(one.value, ends=one.ends) for one in found if _is_one_line(one))]
    if args[:1] in (["zsh"], ["fish"]) and len(args) > 1:
        found = complete(app, args[1:-1], args[-1])
        if isinstance(found, Listed):
            return [found.value]
        lines = (f"{one.value}\t{'ends' if one.ends else 'goes on'}\t{one.help}" for one in found if _is_one_line(one))
        return ["words", *lines]
    return []


def print_answer(app: typer.Typer, args: Sequence[str]) -> None:
    """Prints the answer. An error ends the process without a word: the shell would show it amid the command line."""
    try:
        lines = answer(app, args)
        print("\n".join(lines))
    except Exception:  # noqa: BLE001 - see above
        sys.exit(1)


def _is_one_line(candidate: Candidate) -> bool:
    """False for the name of a file that would break the lines of the answer."""
    return candidate.value.isprintable()
