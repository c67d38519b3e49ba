"""Writes docs/cli.md from the commands' own help texts, the list in docs/settings.md from `dlx settings`, and the table
of settings that shells complete.

With --check it writes nothing and says whether the pages are up to date.
"""

import json
import os
import re
import sys
from pathlib import Path

os.environ |= {"TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_STANDARD_TRACEBACK": "1"}

from typer.testing import CliRunner

from dlx.cli.completion.setting_values import TABLE
from dlx.cli.main import app
from dlx.settings.reference import all_settings, choices
from dlx.settings.registry import PARTS
from dlx.settings.spec import PART_KINDS

PAGE = Path(__file__).parent / "cli.md"
SETTINGS_PAGE = Path(__file__).parent / "settings.md"
LIST_HEAD = "## Every setting\n"


def help_text(*args: str) -> str:
    """What `dlx ARGS --help` prints, without trailing blanks."""
    result = CliRunner().invoke(app, [*args, "--help"], prog_name="dlx")
    lines = [line.rstrip() for line in result.output.strip().splitlines()]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines))


def page() -> str:
    """The whole page."""
    commands = [command.name for command in app.registered_commands]
    parts = ["# The commands", "", "Made by `make docs UPDATE=1` from the help texts; do not edit.", ""]
    for args in ((), *((name,) for name in commands if name)):
        parts += [f"## `{' '.join(['dlx', *args])}`", "", "```text", help_text(*args), "```", ""]
    return "\n".join(parts)


def settings_page() -> str:
    """The page of settings as it is, with the list at its end made anew."""
    written = SETTINGS_PAGE.read_text(encoding="utf-8").partition(LIST_HEAD)[0]
    listed = CliRunner().invoke(app, ["settings"], prog_name="dlx", env={"COLUMNS": "100"}).output
    intro = "What `dlx settings` prints: `key = default (of a recipe)`, then type, range and meaning."
    return f"{written}{LIST_HEAD}\n{intro} Made by `make docs UPDATE=1`.\n\n```text\n{listed.strip()}\n```\n"


def completion_table() -> str:
    """The settings with what completing them takes, as JSON with a line for each."""
    settings = [
        {"key": one.key, "help": first_sentence(one.meaning), "words": words_of(one.type), "parts": one.parts}
        for one in all_settings()
    ]
    parts = {kind: {} for kind in PARTS}
    for key, kind in PART_KINDS.items():
        parts[kind] = {name: first_sentence(meaning) for name, meaning in choices(key).items()}
    lines = [f"  {json.dumps(one)}" for one in settings]
    rest = [f'"{name}": {json.dumps(value)}' for name, value in (("kinds", PART_KINDS), ("parts", parts))]
    return '{\n"settings": [\n' + ",\n".join(lines) + "\n],\n" + ",\n".join(rest) + "\n}\n"


def words_of(spelled_type: str) -> list[str]:
    """The words among the values of a type as `dlx settings` spells it: `auto`, `true`, `none`; none of a list."""
    if spelled_type.startswith(("list of", "table of")):
        return ["none"] if spelled_type.endswith(", or none") else []
    before_list = spelled_type.partition(" | list of")[0]
    pieces = re.split(r" \| |, or | or ", before_list)
    return [piece for piece in pieces if re.fullmatch(r"[\w-]+", piece) and piece not in ("text", "number")]


def first_sentence(text: str) -> str:
    """The beginning of a help text: a shell shows one line beside each candidate."""
    plain = re.sub(r" \([^()]*\)", "", text)
    return re.split(r"(?<=[^.]{3})\. |; |: ", plain)[0].rstrip(".")


def main() -> None:
    for path, made in ((PAGE, page()), (SETTINGS_PAGE, settings_page()), (TABLE, completion_table())):
        if "--check" not in sys.argv:
            path.write_text(made, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != made:
            sys.exit(f"{path.name} is out of date: run `make docs UPDATE=1` and commit it")


if __name__ == "__main__":
    main()
