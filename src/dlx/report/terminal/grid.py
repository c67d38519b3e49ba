"""A table of text and numbers for a terminal: in columns if they fit, else as a list; nothing is cut off.

Text is printed literally: names from files are not parsed as markup, and characters that the terminal's encoding lacks
are replaced by ASCII.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from rich.box import SIMPLE_HEAD, Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dlx.system.characters import encodable, visible

MIN_WORDS = 12  # characters: a narrower column of text would have too many lines
MAX_WORD = 24  # characters: a longer word is broken
GAP = 3  # blanks between two columns of a table
ASCII_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True)
class Line:
    """A sentence on lines of its own, wrapped at the terminal's width."""

    text: str = ""
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(encodable(visible(self.text), options.encoding), style=self.style)


@dataclass(frozen=True)
class Column:
    """A column of text, which may be wrapped, or of numbers, which are aligned right and never wrapped."""

    title: str | tuple[str, ...]  # a line, or several
    is_number: bool = False
    may_stack: bool = False  # a number's spread may stand below its mean
    has_parts: bool = False  # each line of the title but the first names a line of every cell

    @property
    def title_lines(self) -> tuple[str, ...]:
        return (self.title,) if isinstance(self.title, str) else self.title

    @property
    def part_titles(self) -> list[str]:
        """The title of each line of a cell, with the first line of the column's."""
        return [f"{self.title_lines[0]} {part}" for part in self.title_lines[1:]]


@dataclass(frozen=True)
class Styled:
    """A line of a cell in a style of its own."""

    text: str
    style: str = ""


Cell = str | Sequence[Styled]  # a line, or several


@dataclass(frozen=True)
class Row:
    """A cell for each column; the first names the row."""

    cells: tuple[Cell, ...]
    style: str = ""
    starts_section: bool = False


@dataclass(frozen=True)
class Grid:
    """Rows under titles; if the columns do not fit, a list: the name of each row, and below it a line for each cell."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._encoded(options.encoding)
        if shown.title:
            yield Text(shown.title, style="italic")
        width = options.max_width
        if shown._least_width(whole_words=any(column.may_stack for column in self.columns)) <= width:
            yield shown._table(options.encoding)
        elif (stacked := shown._stacked())._least_width() <= width:
            yield stacked._table(options.encoding)
        else:
            yield from shown._list(width)

    def _encoded(self, encoding: str) -> "Grid":
        """The grid in characters that the encoding has; widths are measured after the replacement."""

        def fit(text: str) -> str:
            return encodable(visible(text), encoding)

        columns = tuple(replace(column, title=tuple(map(fit, column.title_lines))) for column in self.columns)
        rows = []
        for row in self.rows:
            cells = [tuple(replace(line, text=fit(line.text)) for line in _lines(cell)) for cell in row.cells]
            rows.append(replace(row, cells=tuple(cells)))
        return Grid(columns, tuple(rows), fit(self.title))

    def _stacked(self) -> "Grid":
        """The grid with each spread below its mean."""
        rows = []
        for row in self.rows:
            cells: list[Cell] = []
            for column, cell in zip(self.columns, row.cells, strict=True):
                pieces = [(line.style, line.text.split(" ", 1)) for line in _lines(cell)]
                stacked = [Styled(piece, style) for style, parts in pieces for piece in parts]
                cells.append(tuple(stacked) if column.may_stack else cell)
            rows.append(replace(row, cells=tuple(cells)))
        return replace(self, rows=tuple(rows))

    def _least_width(self, *, whole_words: bool = False) -> int:
        """The smallest width, in characters, that wraps no number and leaves each column of text its `_text_width`."""
        total = 1
        for index, column in enumerate(self.columns):
            longest = max(map(cell_len, self._lines_of(index)), default=0)
            total += GAP + (longest if column.is_number or whole_words else self._text_width(index))
        return total

    def _lines_of(self, index: int) -> list[str]:
        """The lines of a column, its title first."""
        return [*self.columns[index].title_lines, *(li.text for row in self.rows for li in _lines(row.cells[index]))]

    def _text_width(self, index: int) -> int:
        """The smallest width of a column of text: MIN_WORDS, or its longest word."""
        lines = self._lines_of(index)
        longest_word = max((cell_len(word) for line in lines for word in line.split()), default=0)
        return max(min(max(map(cell_len, lines), default=0), MIN_WORDS), min(longest_word, MAX_WORD))

    def _table(self, encoding: str) -> Table:
        table = Table(box=SIMPLE_HEAD if encodable("─", encoding) == "─" else ASCII_HEAD, safe_box=False)
        for index, column in enumerate(self.columns):
            title = Text("\n".join(column.title_lines))
            if column.is_number:
                table.add_column(title, justify="right", no_wrap=True)
            else:
                table.add_column(title, overflow="fold", min_width=self._text_width(index))
        for row in self.rows:
            if row.starts_section:
                table.add_section()
            table.add_row(*(_as_text(cell) for cell in row.cells), style=row.style)
        return table

    def _list(self, width: int) -> RenderResult:
        """For each row its name (`p=0.1   n 5`), and below it the other cells, each after its title."""
        titles = [" ".join(column.title_lines) for column in self.columns[1:] if not column.has_parts]
        titles += [title for column in self.columns[1:] if column.has_parts for title in column.part_titles]
        room = min(max((cell_len(title) for title in titles), default=0), max(width // 2 - 4, 8))
        for row in self.rows:
            yield Text()
            name, *cells = (_lines(cell) for cell in row.cells)
            head = " ".join(line.text for line in name)
            pairs = zip(self.columns[1:], cells, strict=True)
            fields = [field for column, lines in pairs for field in _fields(column, lines)]
            if fields and len(fields[0][1]) == 1:
                beside = f"{head}   {fields[0][0]} {fields[0][1][0].text}".rstrip()
                if cell_len(beside) + 2 <= width:
                    head, fields = beside, fields[1:]
            yield from _indented(head, 2, 4, width, row.style or "bold")
            for title, lines in fields:
                yield from _field(title, lines, room, width)
        yield Text()


def _fields(column: Column, lines: Sequence[Styled]) -> list[tuple[str, Sequence[Styled]]]:
    """A cell under its title, or each line under a title of its own; without cells that are empty."""
    if column.has_parts and len(lines) == len(column.part_titles):
        return [(title, [line]) for title, line in zip(column.part_titles, lines, strict=True)]
    return [(" ".join(column.title_lines), lines)] if any(line.text for line in lines) else []


def _field(title: str, lines: Sequence[Styled], room: int, width: int) -> list[RenderableType]:
    """A title and its value, side by side, or the value below if it would be wrapped."""
    first = f"{title:{room}}  {lines[0].text}" if lines else title
    texts = [line.text for line in lines]
    is_beside = cell_len(title) <= room and all(4 + room + 2 + cell_len(text) <= width for text in texts)
    if is_beside:
        below = [Text(" " * (6 + room) + line.text, style=line.style, overflow="ignore") for line in lines[1:]]
        return [Text("    " + first, style=lines[0].style if lines else "", overflow="ignore"), *below]
    shown = _indented(title, 4, 6, width, "")
    for line in lines:
        shown += _indented(line.text, 6, 6, width, line.style)
    return shown


def _indented(text: str, first: int, later: int, width: int, style: str) -> list[RenderableType]:
    """Text wrapped at blanks, with the indents of its first and later lines; a word that is too long overflows."""
    pieces = wrap(
        text,
        max(width, later + 10),
        initial_indent=" " * first,
        subsequent_indent=" " * later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [Text(piece, style=style, overflow="ignore", no_wrap=True) for piece in pieces]


def _lines(cell: Cell) -> tuple[Styled, ...]:
    return (Styled(cell),) if isinstance(cell, str) else tuple(cell)


def _as_text(cell: Cell) -> Text:
    return Text("\n").join(Text(line.text, style=line.style) for line in _lines(cell))


@dataclass(frozen=True)
class Trimmed:
    """Parts one below the other, without trailing blanks.

    rich pads each line of a table to the full width, which would show in files.
    """

    parts: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in self.parts:
            for line in Segment.split_lines(console.render(part, options)):
                kept = list(line)
                while kept and not kept[-1].text.strip(" ") and not kept[-1].control:
                    kept.pop()
                if kept:
                    last = kept.pop()
                    yield from kept
                    yield Segment(last.text.rstrip(" "), last.style, last.control)
                yield Segment.line()
