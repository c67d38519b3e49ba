"""Whether another process holds a file lock of filelock, found without changing the lock file."""

import contextlib
import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock now; False if there is no lock file, and if it cannot be opened.

    Where locks are flock's, a shared lock is tried for an instant: two such tests do not disturb each other, and a
    process that wants the lock at this instant tries again after its poll interval.
    """
    if sys.platform == "win32":
        return path.exists() and _is_taken(path)
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _is_taken(path: Path) -> bool:
    with contextlib.suppress(OSError):
        try:
            FileLock(path).acquire(timeout=0).lock.release()
        except Timeout:
            return True
    return False
