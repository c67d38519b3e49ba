"""Prevents Python from importing modules from the working folder, which is often a folder with data.

Python puts the working folder first on `sys.path` for `python -m`, `python -c` and an interactive session, and
multiprocessing starts its processes with `python -c`: a `types.py` in that folder would run in each of them. Networks
of the user's own are executed without the path (`dlx/settings/own/code.py`).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

SAFE_PATH = "PYTHONSAFEPATH"  # since Python 3.11: with it, Python does not add the working folder to its path


def leave_out_working_folder() -> None:
    """Removes the entry that `python -m dlx` put first on the path; moves it last if dlx itself lies there."""
    if sys.flags.safe_path or not sys.path or sys.path[0] not in ("", os.getcwd()):
        return
    first = sys.path.pop(0)
    if __package__ and os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == os.path.abspath(first):
        sys.path.append(first)


@contextmanager
def safe_children() -> Iterator[None]:
    """Within, started Python processes import nothing from the working folder.

    They neither add it themselves nor inherit it from this process's path, where it is the empty entry. The rest of
    the path, including PYTHONPATH, is unchanged.
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
def without_main_module() -> Iterator[None]:
    """Within, processes that multiprocessing starts do not run the program's main module again.

    They would for what the module defines, which dlx's workers never use; a script that has no
    `if __name__ == "__main__":` would start another run in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
