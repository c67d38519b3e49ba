"""Markdown: escaped text, tables, blocks of code and links, and the sections of a page made of these."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from dlx.report.wording.content import (
    Block,
    Bullets,
    Code,
    Folded,
    Given,
    Paragraph,
    Picture,
    Section,
    Strong,
    Table,
    Words,
)
from dlx.system.characters import visible, visible_lines

Lines = list[str]


def escape(text: object) -> str:
    """Text that markdown shows unchanged, also in a table's cell, between dollar signs and at the start of a line.

    GitHub replaces emoji codes (`:name:`) after markdown is rendered: an empty comment after the first colon prevents
    that.
    """
    plain = visible(" ".join(str(text).split()))
    escaped = re.sub(r"([\\`*_<>|$\[\]~&])", r"\\\1", plain)
    escaped = re.sub(r"^(#{1,6}|[-+]|=+|-+|\d+(?=[.)]))(?=[.)]?(?: |$))", _escape_start, escaped)
    return re.sub(r":(?=[\w+\\-]+:)", ":<!-- -->", escaped)


def _escape_start(found: re.Match[str]) -> str:
    """Escapes what would start a heading, a list or a rule; in `1.` the point."""
    return f"{found[0]}\\" if found[0][-1].isdecimal() else f"\\{found[0]}"


def link_target(name: str) -> str:
    """A file's name as the target of a link."""
    return quote(name, errors="surrogateescape")


def code_block(text: str, language: str) -> Lines:
    """Unchanged text in a fence of more backticks than the text has in a row."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}{language}", visible_lines(text), fence]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], num_text: int = 1) -> Lines:
    """A table; the first `num_text` columns are text, the others numbers. Cells must be escaped already."""
    rule = ["---"] * num_text + ["---:"] * (len(titles) - num_text)
    return [f"| {' | '.join(row)} |" for row in (titles, rule, *rows)]


def spell_words(words: Words) -> str:
    """Words in markdown."""
    return "".join(map(_spell_inline, words))


def _spell_inline(part: str | Given | Strong) -> str:
    if isinstance(part, Strong):
        return f"**{spell_words(part.words)}**"
    return escape(part.text) if isinstance(part, Given) else part


def spell_section(section: Section, *, level: int) -> str:
    """A section in markdown."""
    title = [f"{'#' * level} {spell_words(section.title)}"] if section.title else []
    return "\n\n".join([*title, *("\n".join(_spell_block(block)) for block in section.blocks)])


def _spell_block(block: Block) -> Lines:
    match block:
        case Paragraph(words):
            return [spell_words(words)]
        case Bullets(items):
            return [f"- {spell_words(item)}" for item in items]
        case Table(titles, rows, num_text):
            cells = [[*map(spell_words, row)] for row in rows]
            return table([*map(spell_words, titles)], cells, num_text)
        case Code(text, language):
            return code_block(text, language)
        case Folded(title, code):
            summary = ["<details>", f"<summary>{title}</summary>", ""]
            return [*summary, *_spell_block(code), "", "</details>"]
        case Picture(alt, name):
            return [f"![{alt}]({link_target(name)})"]
