"""What a page consists of, before it is markdown or HTML: sections of paragraphs, lists, tables and blocks of code.

Text is either dlx's own, or given by users and files (`Given`), in which each renderer escapes what would be markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Given:
    """Text from users and files: labels, names of cases and classes, remarks."""

    text: object


@dataclass(frozen=True)
class Strong:
    """Words that stand out."""

    words: "Words"


Inline = str | Given | Strong
Words = tuple[Inline, ...]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    words: Words


@dataclass(frozen=True)
class Bullets:
    """A list without an order."""

    items: tuple[Words, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first `num_text` columns are text, the others numbers."""

    titles: tuple[Words, ...]
    rows: tuple[tuple[Words, ...], ...]
    num_text: int = 1


@dataclass(frozen=True)
class Code:
    """Text that is shown unchanged."""

    text: str
    language: str


@dataclass(frozen=True)
class Folded:
    """A block that a reader opens."""

    title: str
    block: "Code | Bullets"


@dataclass(frozen=True)
class Picture:
    """A figure in a file beside the page."""

    alt: str
    name: str


Block = Paragraph | Bullets | Table | Code | Folded | Picture


@dataclass(frozen=True)
class Section:
    """A part of a page with its heading; without a title it continues the part before."""

    title: Words
    blocks: tuple[Block, ...]


def words(*parts: Inline) -> Words:
    """The parts that are not empty."""
    return tuple(part for part in parts if part)


def joined(separator: str, parts: Sequence[Words]) -> Words:
    """Words with the separator between them."""
    found: list[Inline] = []
    for part in parts:
        found += [separator, *part] if found else part
    return tuple(found)


def given(*texts: object) -> tuple[Words, ...]:
    """Each text as words of its own, such as the cells of a row."""
    return tuple((Given(text),) for text in texts)


def plain(*texts: str) -> tuple[Words, ...]:
    """As `given`, of dlx's own text."""
    return tuple((text,) for text in texts)
