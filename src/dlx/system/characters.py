"""Text as a terminal or a picture can show it: control characters spelled out, and ASCII where an encoding has no more.

Names come from files (classes, channels, cases) and from the user (variants, folders). They are never markup: not for
rich, not for markdown, and not for the terminal, whose own markup are control characters.
"""

import codecs
import re
from typing import IO

# Control characters (the escape that starts a terminal's commands among them), characters that turn the direction of
# what follows, line separators, and halves of surrogate pairs (what Python reads of a file name that is not UTF-8).
UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What dlx itself writes beyond ASCII. Other letters are spelled out, so that names which differ still differ.
ASCII = str.maketrans(
    {
        "±": "+-",
        "→": "->",
        "…": "...",
        "×": "x",  # noqa: RUF001
        "·": ".",
        "–": "-",  # noqa: RUF001
        "—": "-",
        "−": "-",  # noqa: RUF001
        "‘": "'",  # noqa: RUF001
        "’": "'",  # noqa: RUF001
        "“": '"',
        "”": '"',
        **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#", strict=True)),
        **dict.fromkeys("─━╌╶╴╸╺", "-"),
    }
)

FALLBACK = "dlx.ascii"  # the name of the error handler


def fall_back_to_ascii(stream: IO[str] | None) -> None:
    """Makes a stream write in ASCII what its encoding lacks, instead of raising UnicodeEncodeError."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=FALLBACK)


def visible(text: str) -> str:
    """One line of text in which nothing controls a terminal: a line break is `\\n`, an escape `\\x1b`."""
    return UNSHOWABLE.sub(lambda found: _spelled_out(found[0]), text)


def visible_lines(text: str) -> str:
    """The same, line by line: for text whose line breaks are meant."""
    return "\n".join(visible(line) for line in text.split("\n"))


def encodable(text: str, encoding: str = "utf-8") -> str:
    """Text in which each character that this encoding lacks stands in ASCII: `±` as `+-`, `ö` as `\\xf6`.

    UTF-8, in which records are written, lacks only halves of surrogate pairs: a byte of a file name that is not UTF-8
    becomes `\\xe9`.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_in_encoding(letter, encoding) for letter in text)
    return text


def _in_encoding(letter: str, encoding: str) -> str:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return _in_ascii(letter)
    return letter


def _in_ascii(letter: str) -> str:
    if UNSHOWABLE.match(letter):
        return _spelled_out(letter)
    return letter.translate(ASCII).encode("ascii", "backslashreplace").decode()


def _spelled_out(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as `ls` spells it
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape", "surrogatepass").decode()


def _write_in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(map(_in_ascii, letters)), error.end


codecs.register_error(FALLBACK, _write_in_ascii)
