"""Blocks Ctrl-C while processes are started, on systems with signal masks (not Windows)."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

HAS_SIGNAL_MASKS = hasattr(signal, "pthread_sigmask")


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Delays Ctrl-C to the end of the `with` block; processes started in it start with Ctrl-C blocked."""
    if not HAS_SIGNAL_MASKS:
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting the tracker later would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignores Ctrl-C from now on, including one that arrived while it was blocked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if HAS_SIGNAL_MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
