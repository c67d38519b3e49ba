"""CI never hangs: what does not end is shown with its stacks and killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import watchdog

WATCHDOG = Path(__file__).parent / "watchdog.py"
SPIN = "def spin_for_ever():\n    while True: pass\n"


def watch(*command, limit, exit_limit=60):
    """The result of a watched command, which has to be over in a minute."""
    words = [sys.executable, str(WATCHDOG), "--limit", str(limit), "--exit-limit", str(exit_limit), "--", *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_that_ends_gives_its_own_exit_code(code):
    assert watch(sys.executable, "-c", f"raise SystemExit({code})", limit=50).returncode == code


def test_a_command_killed_by_a_signal_fails():
    assert watch(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", limit=50).returncode == 128 + 9


@pytest.mark.slow
def test_a_command_that_never_ends_is_killed_with_all_that_it_started(tmp_path):
    started = tmp_path / "pid"
    child = f"import os, pathlib; pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n{SPIN}spin_for_ever()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    done = watch(sys.executable, "-c", code, limit=2)
    assert done.returncode == watchdog.EXIT_CODE
    assert "not done after 2 s" in done.stderr
    assert not watchdog.is_running(int(started.read_text()))


@pytest.mark.slow
def test_tests_that_are_over_and_do_not_exit_are_shown_with_their_stack_and_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # nothing but this project's conftest
    monkeypatch.setenv("PYTHONPATH", str(WATCHDOG.parent))
    (tmp_path / "conftest.py").symlink_to(Path(__file__).parent / "conftest.py")
    (tmp_path / "test_it.py").write_text(
        f"import atexit\n{SPIN}def test_that_passes():\n    atexit.register(spin_for_ever)\n"
    )
    done = watch(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, str(tmp_path), limit=50, exit_limit=0.5)
    assert "1 passed" in done.stdout
    assert done.returncode == watchdog.EXIT_CODE
    assert "did not exit within 0.5 s after its tests were over" in done.stderr
    assert "in spin_for_ever" in done.stderr


@pytest.mark.long
def test_a_worker_without_tests_left_may_wait_for_the_last_test_of_another(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(WATCHDOG.parent))
    (tmp_path / "conftest.py").symlink_to(Path(__file__).parent / "conftest.py")
    short = "def test_that_is_short():\n    pass\n"
    (tmp_path / "test_it.py").write_text(f"import time\ndef test_that_is_long():\n    time.sleep(3)\n{short}")
    words = [
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    done = watch(sys.executable, "-m", *words, limit=50, exit_limit=1)
    assert done.returncode == 0, done.stderr
