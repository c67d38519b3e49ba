"""The errors that are the user's to mend: one line each, naming the thing and the cause; the command exits with 2."""

import difflib
from collections.abc import Iterable

MOST_NAMES = 40  # that a line lists


class DlxError(Exception):
    """What the user gave cannot be used. The message is one line and names what and why."""


class DataError(DlxError):
    """A file, folder or split that cannot be trusted."""


class SettingError(DlxError):
    """A setting, name or argument that is unknown or out of range."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? (known: ...)`, or `known: ...` where none is near: all names, or the nearest of very many."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    shown = names if len(names) <= MOST_NAMES else difflib.get_close_matches(name, names, n=5, cutoff=0.3)
    listed = [*shown, f"{len(names) - len(shown)} more"] if len(shown) < len(names) else shown
    known_names = f"known: {('; ' if any(',' in name for name in shown) else ', ').join(listed)}"
    return f"did you mean '{close[0]}'? ({known_names})" if close else known_names
