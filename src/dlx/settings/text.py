"""Values and parts as a user types them: `1e-3`, `[1, 2]`, `step:step_size=30,gamma=0.1`; counts in words; and
command lines as a shell reads them.
"""

import json
import os
import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from dlx.system.errors import SettingError

PART_NAME = re.compile(r"[A-Za-z][\w.+-]*")
QUOTED_WORD = re.compile(r"""(?:\$'(?:\\.|[^'\\])*'|'[^']*'|"[^"]*"|[^\s'"])+""")
ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "'": r"\'", "\\": r"\\"}


def counted(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def shell_command(words: Iterable[str]) -> str:
    """A command line that a shell splits into these words; `$'caf\\xe9'` where a word holds what cannot be printed."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(ESCAPES.get(letter) or _as_bytes(letter) for letter in word) + "'"


def _as_bytes(letter: str) -> str:
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def without_flags(command: str, *flags: str) -> str:
    """A command line of `shell_command` without these words; how the others are quoted stays as it is."""
    return " ".join(word for word in QUOTED_WORD.findall(command) if word not in flags)


def parse_value(text: str) -> Any:
    """The value a user typed: a number (`30`, `1e-3`), true/false, none, a [list], a {JSON table}, else the text."""
    stripped = text.strip()
    lowered = stripped.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    if stripped.startswith("{"):
        try:
            return json.loads(stripped)
        except ValueError as error:
            raise SettingError(f"'{text}': not a JSON table ({error})") from None
    if stripped.startswith("["):
        if not stripped.endswith("]"):
            raise SettingError(f"'{text}': the list is not closed with ]")
        with suppress(ValueError, RecursionError):  # names that hold a comma are written as JSON: ["a,b", "c"]
            return json.loads(stripped)
        inner = stripped[1:-1].strip()
        return [parse_value(item) for item in split_outside_brackets(inner, ",")] if inner else []
    if len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    for kind in (int, float):
        try:
            return kind(stripped)
        except ValueError:
            continue
    return stripped


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """`a=[1,2],b=3` split at the commas that stand outside brackets: `a=[1,2]` and `b=3`."""
    pieces, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "[({") - (letter in "])}")
        if letter == separator and depth == 0:
            pieces.append(text[start:position])
            start = position + 1
    return [*pieces, text[start:]]


def parse_part(text: str) -> dict[str, Any]:
    """`name` or `name:key=value,key=value` as `{"name": ..., "args": {...}}`; raises SettingError with the cause."""
    name, colon, rest = text.strip().partition(":")
    if not PART_NAME.fullmatch(name):
        raise SettingError(f"'{text}': a name was expected, as in unet2 or step:step_size=30,gamma=0.1")
    args: dict[str, Any] = {}
    for piece in split_outside_brackets(rest, ",") if colon and rest.strip() else []:
        key, equals, value = piece.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            own = "; a part of your own is registered first: docs/extending.md" if rest.strip().isidentifier() else ""
            raise SettingError(f"'{text}': '{piece}' is not of the form key=value{own}")
        if key in args:
            raise SettingError(f"'{text}': '{key}' is given twice")
        args[key] = parse_value(value)
    return {"name": name, "args": args}
