"""Signals that stop a command: Ctrl-C (SIGINT), and SIGTERM, which job schedulers and `docker stop` send.

The process of a command calls `stop_on_signals`: the first signal raises Stopped in its main thread, so that files are
completed and workers end; Ctrl-C after that ends the process at once. A worker calls `end_when_terminated`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from dlx.system.errors import DlxError

HAS_SIGNAL_MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows
STOPPING = (signal.SIGINT, signal.SIGTERM)
# A Ctrl-C that follows another one as soon as this is the same key: the terminal sends it to all processes in the
# foreground, and a program that started this one (`timeout`, `conda run`) may pass it on.
SAME_KEY_S = 0.3
SHOW_CURSOR = b"\x1b[?25h\n"  # progress on a terminal hides it


class Stopped(KeyboardInterrupt):
    """A signal asked the command to stop; the message is the signal's name."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Received:
    """What the first signal raised, and when. `is_deferred`: it is raised later, at the end of `stops_deferred`.
    `is_caught`: the command reacts to it, so that later errors have causes of their own.
    """

    def __init__(self) -> None:  # no dataclass: until the handlers are there, each import is a moment without them
        self.stop: BaseException | None = None
        self.at_s = 0.0
        self.is_deferred = self.is_caught = False


_received = Received()


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 + the signal's number, as shells report it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def stop_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM raise Stopped, once; Ctrl-C after that ends the process at once.

    A signal that this process was started to ignore stays ignored (Ctrl-C in the background jobs of a script).
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def end_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM end the process at once, as they do without handlers; for its last moments."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def was_stopped() -> bool:
    """Whether a signal asked this process to stop."""
    return _received.stop is not None


def raise_if_stopped() -> None:
    """Raises again what a signal raised, if that was lost: native code may swallow it or turn it into another error."""
    if _received.stop is not None and not _received.is_deferred:
        raise _received.stop


def raise_stop() -> None:
    """Raises what a signal raised, if one came, even where that is deferred."""
    if _received.stop is not None:
        raise _received.stop


@contextmanager
def stops_deferred() -> Iterator[None]:
    """Delays what a signal raises to the end of the `with` block, or to `raise_stop` in it.

    Python's locks, conditions and threads are not safe from an exception that a handler raises in them: it is replaced
    by "release unlocked lock", or leaves a lock locked. Signals are handled in the main thread, so other threads delay
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _received.is_deferred = _received.is_deferred, True
    try:
        yield
    finally:
        _received.is_deferred = before
    raise_if_stopped()


@contextmanager
def stops_kept() -> Iterator[None]:
    """After a signal, an error in the `with` block becomes what the signal raised, because the stop caused it: native
    code and Python's locks replace an exception by another one. A DlxError or OSError stays what it is, and so does an
    error after `stop_caught`.
    """
    try:
        yield
    except (DlxError, OSError):
        raise
    except Exception:
        if not _received.is_caught:
            raise_if_stopped()
        raise


def stop_caught() -> None:
    """The command has caught the stop and completes its work: errors from now on have causes of their own."""
    _received.is_caught = True


def call_on_signal(call: Callable[[], None]) -> None:
    """Calls this in a thread once a signal stops the process, even while the main thread is held by native code."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(read, 1)[0] not in STOPPING:
            pass
        call()

    threading.Thread(target=wait, daemon=True, name="signals").start()


def _stop(number: int, _frame: FrameType | None) -> None:
    if _received.stop is None:
        _received.stop, _received.at_s = Stopped(number), time.monotonic()
        raise_if_stopped()
    elif number == signal.SIGINT and time.monotonic() - _received.at_s > SAME_KEY_S:
        _quit_at_once(number)


def _quit_at_once(number: int) -> NoReturn:
    """Ends the process without completing anything. Files are whole all the same: each is renamed into its place when
    it is complete. Workers end with their parent.
    """
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
    os._exit(128 + number)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM to the end of the `with` block; processes started in it start with Ctrl-C blocked.

    Without signal masks (on Windows) nothing is delayed.
    """
    if not HAS_SIGNAL_MASKS:
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting the tracker later would unblock the signal
    with stops_deferred():  # SIGTERM is not blocked: the processes would inherit that
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_when_terminated() -> None:
    """For a worker: ignores Ctrl-C from now on, including one that arrived while it was blocked, as the parent handles
    it; SIGTERM raises SystemExit with the code 143, once, so that the checkpoint that is being written is completed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    if HAS_SIGNAL_MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end(number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _received.stop = SystemExit(128 + number)
    raise_if_stopped()
