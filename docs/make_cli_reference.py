"""Writes docs/cli.md from the commands' own help texts; with --check it only tells whether the page is up to date."""

import os
import re
import sys
from pathlib import Path

os.environ |= {"TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_STANDARD_TRACEBACK": "1"}

from typer.testing import CliRunner

from dlx.cli.main import app

PAGE = Path(__file__).parent / "cli.md"


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


def main() -> None:
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
        sys.exit(f"{PAGE.name} is out of date: run `make docs UPDATE=1` and commit it")


if __name__ == "__main__":
    main()
