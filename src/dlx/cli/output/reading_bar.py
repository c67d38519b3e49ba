"""A progress bar on stderr while files are read. Imports no torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dlx.cli.output.console import PlainConsole


@contextmanager
def reading_bar(
    console: PlainConsole, *, quiet: bool, what: str = "reading volumes"
) -> Iterator[Callable[[int, int], None]]:
    """A function to call with (done, total) while volumes are read: it draws a progress bar, on a terminal only.

    A cache hit reads no volumes and shows no bar.
    """
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("reading", visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
