"""The errors that are the user's to mend: one line each, naming the thing and the cause; the command exits with 2."""

import difflib
from collections.abc import Iterable


class DlxError(Exception):
    """What the user gave cannot be used. The message is one line and names what and why."""


class DataError(DlxError):
    """A file, folder or split that cannot be trusted."""


class SettingError(DlxError):
    """A setting, name or argument that is unknown or out of range."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? (known: ...)`: the nearest known name, if one is near, then all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}(known: {', '.join(names)})"
