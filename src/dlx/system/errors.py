"""Errors that the user can fix: one line each, with what is wrong and why; the command exits with 2."""

import errno
import os
from collections.abc import Iterable

MAX_NAMES = 40  # in one message: about three lines of a terminal


class DlxError(Exception):
    """What the user gave cannot be used. The message is one line and names what and why."""


class DataError(DlxError):
    """A file, folder or split that cannot be trusted."""


class FilesError(DataError):
    """Several files or cases that cannot be used: a line of the message for each."""


class SettingError(DlxError):
    """A setting, name or argument that is unknown or out of range."""


def spell_os_error(error: OSError) -> str:
    """`path: No space left on device`. An error that names no file is one of an output stream, or has its own words."""
    cause = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {cause}"
    is_of_stream = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
    return f"standard output cannot be written: {cause}" if is_of_stream else cause


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean 'x'? (known: ...)`, or `known: ...` if no name is similar: all names, or of very many the nearest.

    `prefix` is what precedes the names where they are typed.
    """
    import difflib  # not at the start of a command: it takes longer to import than this package's own

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    shown = names if len(names) <= MAX_NAMES else difflib.get_close_matches(name, names, n=5, cutoff=0.3)
    listed = [*shown, f"{len(names) - len(shown)} more"] if len(shown) < len(names) else shown
    known_names = f"known: {('; ' if any(',' in name for name in shown) else ', ').join(listed)}"
    return f"did you mean '{prefix}{close[0]}'? ({known_names})" if close else known_names
