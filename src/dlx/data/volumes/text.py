"""Reads lines and numbers of text headers (MetaImage, NRRD), within the limits of the parsers behind SimpleITK."""

import math
import re
from typing import BinaryIO

from dlx.data.volumes.header import BadFile, quoted

MAX_LINE_BYTES = 16 << 10
MAX_LINES = 2000
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
MAX_NUMBER_LETTERS = 40


def read_line(stream: BinaryIO) -> str:
    """The next line without its end; BadFile at the end of the file, or for a line that is too long or not text."""
    line = stream.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise BadFile(f"a line of the header is longer than {MAX_LINE_BYTES} bytes")
    if not line.endswith(b"\n"):
        raise BadFile("truncated: the file ends within its header")
    text = line.removesuffix(b"\n").removesuffix(b"\r").decode("latin-1")
    if any(letter < " " and letter != "\t" for letter in text):
        raise BadFile(f"a line of the header is not text: {quoted(text)}")
    return text


def required(fields: dict[str, str], name: str) -> str:
    """The value of a field; BadFile if it is missing or empty."""
    if not fields.get(name):
        raise BadFile(f"the header lacks '{name}'")
    return fields[name]


def whole_number(text: str, name: str) -> int:
    """One non-negative whole number of at most 10 digits."""
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise BadFile(f"the header's '{name}' is {quoted(text)}, not a whole number")
    return int(text)


def whole_numbers(text: str, count: int, name: str) -> list[int]:
    """`count` whole numbers, separated by blanks."""
    return [whole_number(word, name) for word in _words(text, count, name)]


def numbers(text: str, count: int, name: str) -> list[float]:
    """`count` finite numbers, separated by blanks."""
    return [number(word, name) for word in _words(text, count, name)]


def _words(text: str, count: int, name: str) -> list[str]:
    words = text.split()
    if len(words) != count:
        raise BadFile(f"the header's '{name}' has {len(words)} numbers, not {count}: {quoted(text)}")
    return words


def number(word: str, name: str) -> float:
    """One finite decimal number."""
    if len(word) > MAX_NUMBER_LETTERS or not word.isascii() or not NUMBER.fullmatch(word):
        raise BadFile(f"the header's '{name}' contains {quoted(word)}, not a finite number")
    value = float(word)
    if not math.isfinite(value):
        raise BadFile(f"the header's '{name}' contains {quoted(word)}, which is beyond the range of numbers")
    return value
