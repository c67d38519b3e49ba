"""Runs a command that must end. If it takes too long, or does not exit after its tests, it is shown and killed.

    python3 tests/watchdog.py --limit 3600 --exit-limit 60 -- make check

`--limit` is for the whole command, in seconds. `--exit-limit` is for what a pytest process may take between the end of
its tests and its exit: `conftest.py` calls `register` and `tell_end`, which leave files for this one in a folder that
the variable DLX_WATCHDOG names. At a limit the stacks of all processes below are printed (Python's of those that called
`register`, native ones if gdb is installed), all are killed, and the exit code is 124. Otherwise it is the command's.

Needs only Python's standard library, as it runs before anything is installed.
"""

import argparse
import contextlib
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIABLE = "DLX_WATCHDOG"
EXIT_CODE = 124  # as of timeout(1)
POLL_S = 0.2
STACK_S = 5.0  # how long a process may take to write its stacks
GDB_S = 120.0


def register() -> None:
    """Makes this process write its threads' stacks for the watchdog at SIGUSR1; nothing if there is no watchdog."""
    if VARIABLE in os.environ:
        file = os.open(Path(os.environ[VARIABLE], f"{os.getpid()}.stacks"), os.O_WRONLY | os.O_CREAT)
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)


def tell_end() -> None:
    """Tells the watchdog, if there is one, that this process has done its work and should exit now."""
    if VARIABLE in os.environ:
        Path(os.environ[VARIABLE], f"{os.getpid()}.ended").touch()


def run(command: list[str], limit_s: float, exit_limit_s: float) -> int:
    """The command's exit code (128 + signal where one ended it), or 124 after a limit."""
    with tempfile.TemporaryDirectory(prefix="watchdog-") as folder:
        environment = os.environ | {VARIABLE: folder}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.killpg(process.pid, number))  # it has a session of its own
        started = time.monotonic()
        ended: dict[int, float] = {}  # when a pytest process was seen to be over
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_S)
                return code if code >= 0 else 128 - code
            now = time.monotonic()
            for path in Path(folder).glob("*.ended"):
                ended.setdefault(int(path.stem), now)
            for pid in [pid for pid in ended if not is_running(pid)]:  # a later process may get the same number
                Path(folder, f"{pid}.ended").unlink(missing_ok=True)
                del ended[pid]
            late = [pid for pid, when in ended.items() if now - when > exit_limit_s]
            if late:
                cause = f"process {late[0]} did not exit within {exit_limit_s:g} s after its tests were over"
            elif now - started > limit_s:
                cause = f"not done after {limit_s:g} s"
            else:
                continue
            return stop(process, Path(folder), f"{' '.join(command)}: {cause}")


def stop(process: "subprocess.Popen[bytes]", folder: Path, cause: str) -> int:
    """Prints why, and the stacks of all processes that descend from this one; then kills them."""
    print(f"\nwatchdog: {cause}; the stacks of its processes follow, then it is killed", file=sys.stderr, flush=True)
    below = descendants(os.getpid())
    for pid in below:
        print(f"\nwatchdog: process {pid}: {command_of(pid)}", file=sys.stderr, flush=True)
        show_native_stacks(pid)  # first: a process that is within exit() dies of the signal that asks for Python's
        show_python_stacks(pid, folder)
    for pid in {*below, *descendants(os.getpid())}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return EXIT_CODE


def show_native_stacks(pid: int) -> None:
    """All threads' stacks as gdb sees them, where gdb is installed and may look."""
    if shutil.which("gdb") is None:
        return
    command = ["gdb", "-p", str(pid), "-batch", "-nx", "-ex", "thread apply all backtrace 40"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=GDB_S)
        lines = done.stdout.splitlines()
        first = next((at for at, line in enumerate(lines) if line.startswith("Thread ")), len(lines))
        print("\n".join(lines[first:] or [done.stderr.strip()[-300:]]), file=sys.stderr, flush=True)


def show_python_stacks(pid: int, folder: Path) -> None:
    """The stacks that a process writes that called `register`; nothing of others."""
    path = folder / f"{pid}.stacks"
    if not path.exists():
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + STACK_S
    while time.monotonic() < end and is_running(pid) and path.stat().st_size == 0:
        time.sleep(0.05)
    time.sleep(0.2)  # the rest of what it writes
    print(path.read_text(errors="replace") or "no Python stacks: its interpreter is gone", file=sys.stderr, flush=True)


def is_running(pid: int) -> bool:
    """True for a process that is there and no zombie."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    status = _stat(pid)
    return status is None or status[0] != "Z"


def descendants(pid: int) -> list[int]:
    """The processes below one, children before their own children; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        status = _stat(int(path.name))
        if status is not None and status[0] != "Z":
            children.setdefault(int(status[1]), []).append(int(path.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def _stat(pid: int) -> list[str] | None:
    """State and parent of a process, from Linux's /proc; None where that does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except OSError:
        return None


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except OSError:
        return "?"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a command, and ends it with its stacks where it does not end.")
    parser.add_argument("--limit", type=float, required=True, help="seconds for the whole command")
    parser.add_argument("--exit-limit", type=float, default=60.0, help="seconds from the end of tests to the exit")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    return run(options.command, options.limit, options.exit_limit)


if __name__ == "__main__":
    raise SystemExit(main())
