"""A list of studies on the terminal: a line each; in a narrow terminal question and verdict stand below it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from dlx.report.listing.entries import ListedStudy, age_s
from dlx.report.terminal.grid import GAP
from dlx.report.wording.formatting import spell_age
from dlx.system.characters import encodable, visible

MIN_QUESTION = 32  # characters: of a shorter piece of a question nobody can tell what was asked


@dataclass(frozen=True)
class ListedRow:
    """The cells of a study, in characters that the encoding has; `asked` is the question, or why it is unreadable."""

    run: str
    trials: str
    age: str
    verdict: str
    asked: str
    style: str = "dim"  # of `asked`

    def cells(self, num_columns: int) -> tuple[str, ...]:
        """The cells of the first columns, as many as fit the terminal."""
        return (self.run, self.trials, self.age, self.verdict, self.asked)[:num_columns]


TITLES = ListedRow("run", "trials", "age", "verdict", "question", style="")


@dataclass(frozen=True)
class StudyList:
    """The studies, as many columns of each as fit, the others on lines below. Only the question is ever cut."""

    studies: Sequence[ListedStudy]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, encoding = options.max_width, options.encoding
        rows = [_row(study, encoding) for study in self.studies]
        widths = [max(map(cell_len, column)) for column in zip(*(r.cells(4) for r in (TITLES, *rows)), strict=True)]
        ends = [sum(widths[:number]) + GAP * (number - 1) for number in range(5)]
        num_columns = max((number for number in (3, 4) if ends[number] <= width), default=1)
        left = width - ends[4] - GAP  # for the question beside the other columns
        if num_columns == 4 and left >= MIN_QUESTION:
            num_columns, widths = 5, [*widths, left]
        if num_columns > 1:
            yield _whole(Text(_in_columns(TITLES.cells(num_columns), widths), style="bold"))
        for row in rows:
            yield from _lines(row, num_columns, widths, width, encoding)


def _lines(row: ListedRow, num_columns: int, widths: Sequence[int], width: int, encoding: str) -> Iterator[Text]:
    """A study: a line of its first columns, and below it what is not in them."""
    if num_columns == 5:
        line = Text(_in_columns(row.cells(4), widths) + " " * GAP)
        yield _whole(line.append(_cut(row.asked, widths[4], encoding), style=row.style))
        return
    yield _whole(Text(_in_columns(row.cells(num_columns), widths)))
    below = [row.trials, row.age] if num_columns == 1 else []
    below += [row.verdict] if num_columns < 4 else []
    if known := [cell for cell in below if cell != "-"]:
        yield _whole(Text("  " + ", ".join(known)))
    yield _whole(Text("  " + _cut(row.asked, width - 2, encoding), style=row.style))


def _row(study: ListedStudy, encoding: str) -> ListedRow:
    def fit(text: str) -> str:
        return encodable(visible(text), encoding)

    age = spell_age(age_s(study))
    if study.cause is not None:
        return ListedRow(fit(study.name), "-", age, "-", fit(study.cause), style="red")
    states = {"running": study.num_running, "failed": study.num_failed, "diverged": study.num_diverged}
    marks = [f"{count} {state}" for state, count in states.items() if count]
    trials = ", ".join([f"{study.num_done} of {study.num_trials}", *marks])
    return ListedRow(fit(study.name), trials, age, fit(study.verdict), fit(study.question))


def _in_columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The cells at their widths; trials and age, the second and third, at the right of their columns."""
    padded = []
    for index, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        blanks = " " * (width - cell_len(cell))
        padded.append(blanks + cell if index in (1, 2) and len(cells) > 1 else cell + blanks)
    return (" " * GAP).join(padded)


def _cut(text: str, width: int, encoding: str) -> str:
    """The text, or what fits of it with an ellipsis."""
    ellipsis = encodable("…", encoding)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - len(ellipsis))).rstrip() + ellipsis


def _whole(line: Text) -> Text:
    """A line that is neither wrapped nor cut."""
    line.no_wrap, line.overflow = True, "ignore"
    line.rstrip()
    return line
