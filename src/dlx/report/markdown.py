"""What markdown pages are written with: escaped text, tables, and a variant's name in them."""

import re
from collections.abc import Iterable, Sequence

from dlx.report.variants import VariantSummary

Lines = list[str]


def escape(text: object) -> str:
    """Text that markdown takes as it is, also in a cell of a table and beside dollars."""
    return re.sub(r"([\\`*_<>|$\[\]~])", r"\\\1", " ".join(str(text).split()))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], num_text: int = 1) -> Lines:
    """A table whose first `num_text` columns are words and the others numbers; cells are markdown already."""
    rule = ["---"] * num_text + ["---:"] * (len(titles) - num_text)
    return [f"| {' | '.join(row)} |" for row in (titles, rule, *rows)]


def name_of(variant: VariantSummary) -> str:
    return escape(variant.label) + (" (control)" if variant.is_control else "")
