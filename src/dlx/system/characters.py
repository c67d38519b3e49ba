"""Makes text safe to show in a terminal or picture: escapes control characters, and replaces what an encoding lacks.

Names come from files (classes, channels, cases) and from the user (variants, folders). They must never act as markup:
neither in rich or markdown, nor as control characters in the terminal.
"""

import codecs
import re
from typing import IO

# Control characters (including the escape that starts terminal commands), characters that change the direction of text,
# line separators, and surrogates (by which Python represents bytes of a file name that is not UTF-8).
UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# The characters beyond ASCII that dlx itself writes. All others are escaped, so that different names stay different.
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
    """Makes a stream write ASCII for characters that its encoding lacks, instead of raising UnicodeEncodeError."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=FALLBACK)


def visible(text: str) -> str:
    """The text as one line without control characters: a line break becomes `\\n`, an escape `\\x1b`."""
    return UNSHOWABLE.sub(lambda found: _spelled_out(found[0]), text)


def visible_lines(text: str) -> str:
    """As `visible`, but keeps line breaks."""
    return "\n".join(visible(line) for line in text.split("\n"))


def encodable(text: str, encoding: str = "utf-8") -> str:
    """The text with each character that the encoding lacks replaced by ASCII: `±` by `+-`, `ö` by `\\xf6`.

    UTF-8, the encoding of records, lacks only surrogates: such a byte of a file name that is not UTF-8 becomes `\\xe9`.
    """
    return text.encode(encoding, FALLBACK).decode(encoding)


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
