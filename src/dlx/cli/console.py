"""The consoles that commands print to: nothing printed is markup, any encoding will do, and a width is always sensible.

Nothing else in dlx makes a rich Console.
"""

import contextlib
import os
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.text import Text

from dlx.system.characters import encodable, fall_back_to_ascii, visible_lines

DEFAULT_WIDTH = 80  # columns, where the output is not a terminal and COLUMNS does not say another width
MIN_WIDTH = 20  # columns: in fewer, lists and sentences overflow rather than break within words
MAX_WIDTH = 1000


class PlainConsole(Console):
    """A console that shows text letter by letter: no markup, no emoji codes, no highlighting, no control characters.

    On a standard error that nobody reads any longer it falls silent, so that a run is not lost with its progress; on
    a standard output that is closed it raises BrokenPipeError.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
        fall_back_to_ascii(self.file)
        width = _width(self)
        if width is not None:
            self.width = width

    def render_str(self, text: str, **options: Any) -> Text:
        """Text for a string: exactly its letters, and only those that the encoding has."""
        shown = encodable(visible_lines(text), self.encoding)
        return super().render_str(shown, **(options | {"markup": False, "emoji": False}))

    def show(self, shown: RenderableType) -> None:
        """Prints a table or a group; what is wider than the console overflows, and nothing of it is cut."""
        self.print(shown, crop=False)

    def on_broken_pipe(self) -> None:
        """Called by rich where the other end of a pipe was closed."""
        self.quiet = True
        discard(self.file)
        if not self.stderr:
            raise BrokenPipeError


def output() -> PlainConsole:
    """Standard output: results."""
    return PlainConsole()


def notes() -> PlainConsole:
    """Standard error: progress, and what a user should know."""
    return PlainConsole(stderr=True)


def note(line: str) -> None:
    """A line on standard error that is not broken: a path or a command in it can be copied."""
    notes().print(line, soft_wrap=True)


def discard(file: IO[str]) -> None:
    """Sends what is still written to a stream nowhere: its reader is gone, and a flush at exit would fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)


def _width(console: Console) -> int | None:
    """The columns to use; None where rich should ask the terminal, also each time that it changes.

    What goes to a file or a pipe is as wide as COLUMNS says, else 80 columns, whatever terminal stands beside it.
    """
    asked = os.environ.get("COLUMNS", "").strip()
    if asked.isascii() and asked.isdecimal() and int(asked) > 0:
        return min(max(int(asked), MIN_WIDTH), MAX_WIDTH)
    if not console.is_terminal:
        return DEFAULT_WIDTH
    if asked:  # no number: rich would take its own default for it, or print nothing at all
        return _of_terminal(console) or DEFAULT_WIDTH
    return None if (_of_terminal(console) or 0) >= MIN_WIDTH else DEFAULT_WIDTH


def _of_terminal(console: Console) -> int | None:
    try:
        return os.get_terminal_size(console.file.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None
