"""Quotes command lines for a shell."""

import os
import re
import shlex
from collections.abc import Iterable

QUOTED_WORD = re.compile(r"""(?:\$'(?:\\.|[^'\\])*'|'[^']*'|"[^"]*"|[^\s'"])+""")
ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "'": r"\'", "\\": r"\\"}


def shell_command(words: Iterable[str]) -> str:
    """A command line that a shell splits into these words; `$'caf\\xe9'` for a word with unprintable characters."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(ESCAPES.get(letter) or _as_bytes(letter) for letter in word) + "'"


def _as_bytes(letter: str) -> str:
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def without_flags(command: str, *flags: str) -> str:
    """A command line of `shell_command` without these words; the others keep their quotes."""
    return " ".join(word for word in QUOTED_WORD.findall(command) if word not in flags)
