"""How worker processes are started: forked from a server process that has imported torch. This module imports none."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

from dlx.system.safe_path import safe_children

# torch._dynamo: torch imports it when the first optimizer is made, which takes 1 s
PRELOADED = ["dlx.run.worker", "torch._dynamo"]
# multiprocessing sends at most 252 file descriptors to the server in one message; some are not of tensors
MAX_TENSORS_SENT = 200


def start_server() -> None:
    """Starts the server, if the system can have one, and does not wait: it imports torch while this process goes on."""
    with quiet_children():
        _has_server()


def start_context(num_tensors: int) -> SpawnContext | ForkServerContext:
    """What starts a worker that is given `num_tensors` tensors in shared memory; call it within `quiet_children`.

    The server imports torch once, which takes about 3 s, and computes nothing, so forking it is safe. Without it each
    worker is a new Python that imports torch itself: on Windows; if the temporary folder's path is too long for a
    socket's name; and for more tensors than one message to the server can carry.
    """
    if num_tensors <= MAX_TENSORS_SENT and _has_server():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


@contextmanager
def quiet_children() -> Iterator[None]:
    """Processes that are started within import nothing from the working folder, and do not see Ctrl-C at first.

    They see it once they unblock it; this process sees it at the end. A worker would otherwise print a traceback if
    Ctrl-C comes before it ignores it.
    """
    with safe_children():
        resource_tracker.ensure_running()  # starting it unblocks the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _has_server() -> bool:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    multiprocessing.set_forkserver_preload(PRELOADED)
    try:
        forkserver.ensure_running()
    except OSError:
        return False
    return True
