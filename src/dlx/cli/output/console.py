"""The consoles that commands print to: they interpret no markup, accept any encoding and correct unusable widths.

No other module creates a rich Console.
"""

import contextlib
import json
import os
import sys
from typing import IO, Any, Literal

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from dlx.system.characters import encodable, fall_back_to_ascii, visible_lines

DEFAULT_WIDTH = 80  # columns, if the output is not a terminal and COLUMNS is not set
MIN_WIDTH = 20  # columns: a narrower output would break lists and sentences within words
MAX_WIDTH = 1000  # columns: limits the effect of a wrong COLUMNS


class PlainConsole(Console):
    """A console that prints text as it is: no markup, no emoji codes, no highlighting, no control characters.

    FORCE_COLOR and TTY_COMPATIBLE=1, which notebooks and CI systems set, colour the text of a file or a pipe but draw
    no progress bars into it. If the reader of standard error closes the pipe, the console stops printing and the run
    goes on; if the reader of standard output does, BrokenPipeError is raised.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(
            stderr=stderr,
            soft_wrap=soft_wrap,
            markup=False,
            emoji=False,
            highlight=False,
            color_system=_colour_system(sys.stderr if stderr else sys.stdout),
        )
        fall_back_to_ascii(self.file)
        width = _width(self)
        if width is not None:
            self.width = width

    @property
    def is_terminal(self) -> bool:
        """Whether the output goes to a terminal that understands escape sequences, whatever FORCE_COLOR says."""
        return super().is_terminal and _is_terminal(self.file)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as rich Text without markup; characters that the encoding lacks are written in ASCII."""
        shown = encodable(visible_lines(text), self.encoding)
        return super().render_str(shown, **(options | {"markup": False, "emoji": False}))

    def show(self, shown: RenderableType) -> None:
        """Prints a table or a group; content wider than the console overflows instead of being cut."""
        self.print(shown, crop=False)

    def on_broken_pipe(self) -> None:
        """Called by rich when the reader has closed the pipe."""
        self.quiet = True
        discard(self.file)
        if not self.stderr:
            raise BrokenPipeError


def output() -> PlainConsole:
    """A console on standard output, for results."""
    return PlainConsole()


def notes() -> PlainConsole:
    """A console on standard error, for progress and notes."""
    return PlainConsole(stderr=True)


def note(line: str) -> None:
    """Prints a line on standard error without wrapping it, so that a path or a command in it can be copied."""
    notes().print(line, soft_wrap=True)


def print_json(document: dict[str, Any] | list[Any]) -> None:
    """Prints one JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def discard(file: IO[str]) -> None:
    """Redirects a stream whose reader is gone to the null device; otherwise its flush at exit would fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, file.fileno())
        os.close(null)


def discard_output() -> None:
    """Discards the output buffered for a stream that cannot be written; else Python reports the error again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)


def _colour_system(file: IO[str] | None) -> Literal["auto", "standard"]:
    asked = bool(os.environ.get("FORCE_COLOR")) or os.environ.get("TTY_COMPATIBLE") == "1"
    return "standard" if asked and not _is_terminal(file) else "auto"


def _is_terminal(file: IO[str] | None) -> bool:
    try:
        return file is not None and file.isatty()
    except ValueError:  # closed
        return False


def _width(console: Console) -> int | None:
    """The width to use; None if rich should ask the terminal, whose width may change.

    The output to a file or a pipe has the width in COLUMNS, else 80 columns; the width of the terminal does not matter.
    """
    asked = os.environ.get("COLUMNS", "").strip()
    if asked.isascii() and asked.isdecimal() and int(asked) > 0:
        return min(max(int(asked), MIN_WIDTH), MAX_WIDTH)
    if not console.is_terminal:
        return DEFAULT_WIDTH
    if asked:  # not a number: rich would use its own default or print nothing
        return _terminal_width(console) or DEFAULT_WIDTH
    return None if (_terminal_width(console) or 0) >= MIN_WIDTH else DEFAULT_WIDTH


def _terminal_width(console: Console) -> int | None:
    try:
        return os.get_terminal_size(console.file.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None
