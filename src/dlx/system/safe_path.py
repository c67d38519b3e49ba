"""Keeps Python from importing what lies in the working folder, which is often a folder of someone's data.

Python puts the working folder first on `sys.path` for `python -m`, `python -c` and an interactive session, and
multiprocessing starts its processes with `python -c`: a `types.py` lying there would run in each of them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SAFE_PATH = "PYTHONSAFEPATH"  # of Python 3.11 and later: what is started with it does not put the folder on its path


def leave_out_working_folder() -> None:
    """Takes the entry that `python -m dlx` put first off the path; where dlx itself lies there, it goes last."""
    if sys.flags.safe_path or not sys.path or sys.path[0] not in ("", os.getcwd()):
        return
    first = sys.path.pop(0)
    if __package__ and os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == os.path.abspath(first):
        sys.path.append(first)


@contextmanager
def safe_children() -> Iterator[None]:
    """Python processes that are started within import nothing from the working folder.

    They neither add it themselves nor get it from this process's path, where it is the empty entry. The rest of the
    path, PYTHONPATH too, stays as it is.
    """
    before, path = os.environ.get(SAFE_PATH), list(sys.path)
    os.environ[SAFE_PATH] = "1"
    sys.path[:] = [entry for entry in path if entry != ""]
    try:
        yield
    finally:
        sys.path[:] = path
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


@contextmanager
def importing_from_working_folder() -> Iterator[None]:
    """Within, the user's own modules are found in the working folder, after everything that is installed."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        last = len(sys.path) - 1 - sys.path[::-1].index(folder) if folder in sys.path else None
        if last is not None:
            del sys.path[last]
