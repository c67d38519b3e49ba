"""dlx imports and trains without what Windows lacks: gaps made on another system, which is not a test of Windows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlx.system.files import read_json
from small import SMALL_ARGS

# Python imports sitecustomize when it starts, so that worker processes have the same gaps.
SITECUSTOMIZE = """
import multiprocessing.reduction
import os
import signal
import sys

multiprocessing.reduction.HAVE_SEND_HANDLE = False  # the start methods then do not list "forkserver"
for module in ("fcntl", "grp", "pwd", "resource", "termios", "multiprocessing.forkserver"):
    sys.modules[module] = None
for name in ("fork", "getuid", "sched_getaffinity", "sysconf"):
    delattr(os, name)
del signal.pthread_sigmask
"""
# other people's packages that ask what system this is, and then import what only that has
FOREIGN = """
import contextlib
with contextlib.suppress(ImportError):
    import distributed
"""
IMPORT_ALL = """
import importlib, os, pkgutil
del os.O_NONBLOCK
import dlx
for module in pkgutil.walk_packages(dlx.__path__, "dlx."):
    if module.name != "dlx.__main__":
        importlib.import_module(module.name)
"""


def run_with_gaps(folder: Path, *args: str, before_gaps: str = "") -> None:
    (folder / "sitecustomize.py").write_text(before_gaps + SITECUSTOMIZE)
    environment = os.environ | {"PYTHONPATH": str(folder), "DLX_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def results(folder: Path) -> list[dict]:
    return [read_json(path)["result"] for path in folder.glob("trials/*/result.json")]


@pytest.mark.slow
def test_every_module_imports_without_posix(tmp_path: Path) -> None:
    run_with_gaps(tmp_path, "-c", IMPORT_ALL, before_gaps=FOREIGN)


IN_WORKERS = ["sweep-dropout", "--p", "0.5", "--seeds", "1", "--max-parallel", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["train"], pytest.param(IN_WORKERS, marks=pytest.mark.long)])
def test_training_gives_the_same_numbers_without_posix(dlx, tmp_path: Path, command: list[str]) -> None:
    args = [*command, *SMALL_ARGS, "--epochs", "1", "--quiet"]
    run_with_gaps(tmp_path, "-m", "dlx", *args, "--out", "gaps")
    dlx(*args, "--out", "posix")
    assert results(tmp_path / "gaps")
    assert results(tmp_path / "gaps") == results(tmp_path / "posix")
