"""Errors that the user can fix. Their messages say what is wrong and why; the command exits with status 2."""

import errno
import os
from collections.abc import Iterable

SIMILAR = 0.65  # ratio of difflib, 0 to 1; its default of 0.6 takes `ignore` and `norm` for alike
MAX_NAMES = 40  # in one message: about three lines of a terminal
MAX_LINES = 20  # in a message about many files


class DlxError(Exception):
    """An input of the user is invalid. The message is one line and says what is wrong and why."""


class DataError(DlxError):
    """A file, folder or split is invalid."""


class FilesError(DataError):
    """Several files or cases are invalid; the message has a line for each."""


def files_error(lines: list[str]) -> FilesError:
    """The error for these problems, a line each, of which at most 20 are shown."""
    more = [f"... and {len(lines) - MAX_LINES + 1} more"] if len(lines) > MAX_LINES else []
    return FilesError("\n".join([*lines[: MAX_LINES - len(more)], *more]))


class LockedError(DataError):
    """Another process holds the lock of a folder."""


class SettingError(DlxError):
    """A setting, name or argument is unknown or out of range."""


def spell_os_error(error: OSError) -> str:
    """The error in one line, as `path: No space left on device`; without a file name it may concern standard output."""
    cause = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {cause}"
    is_of_stream = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
    return f"standard output cannot be written: {cause}" if is_of_stream else cause


def spell_error(error: BaseException) -> str:
    """The message of a DlxError, `path: cause` of an OSError, `Type: first line of the message` of others."""
    if isinstance(error, DlxError):
        return str(error)
    if isinstance(error, OSError):
        return spell_os_error(error)
    message = str(error).splitlines()[0] if str(error) else "no message"
    return f"{type(error).__name__}: {message}"


def root_cause(error: BaseException) -> str:
    """The first line of the error from which others were raised that led to this one; its type without a message."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean 'x'? (known: ...)`, or `known: ...` if no name is similar; of more than 40 only the nearest. Upper
    and lower case are alike.

    `prefix` precedes the suggested name, as it must be typed.
    """
    import difflib  # imported here because it is slow to import

    names = sorted(known)
    by_folded = {one.casefold(): one for one in reversed(names)}
    nearest_first = [
        by_folded[one] for one in difflib.get_close_matches(name.casefold(), by_folded, n=5, cutoff=SIMILAR)
    ]
    close = nearest_first[:1]
    shown = names if len(names) <= MAX_NAMES else nearest_first
    if not shown:
        return f"none of {len(names)} names is similar"
    listed = [*shown, f"{len(names) - len(shown)} more"] if len(shown) < len(names) else shown
    known_names = f"known: {('; ' if any(',' in name for name in shown) else ', ').join(listed)}"
    return f"did you mean '{prefix}{close[0]}'? ({known_names})" if close else known_names
