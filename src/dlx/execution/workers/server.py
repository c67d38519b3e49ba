"""Starts worker processes by forking a server process that has imported torch; this module does not import it."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlx.system.interrupts import interrupts_blocked
from dlx.system.safe_path import safe_children, without_main_module

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # the first is missing on Windows

# torch._dynamo: torch imports it when the first optimizer is made, which takes 1 s
PRELOADED = ["dlx.execution.workers.worker", "torch._dynamo"]
# multiprocessing sends at most 252 file descriptors to the server in one message; some are not of tensors
MAX_TENSORS_SENT = 200


def start_server() -> None:
    """Starts the server if the system supports one, and returns while the server imports torch."""
    with quiet_children():
        _has_server()


def start_context(num_tensors: int) -> "SpawnContext | ForkServerContext":
    """The context that starts a worker with `num_tensors` tensors in shared memory; call it within `quiet_children`.

    The server imports torch once, which takes about 3 s, and computes nothing, so forking it is safe. Each worker is a
    new Python that imports torch itself on Windows, if the path of the temporary folder is too long for the name of a
    socket, and for more tensors than one message to the server can carry.
    """
    if num_tensors <= MAX_TENSORS_SENT and _has_server():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


@contextmanager
def quiet_children() -> Iterator[None]:
    """Processes started within import nothing from the working folder or the main module, and start with Ctrl-C
    blocked.

    A worker unblocks Ctrl-C once it ignores it; without the block, it could print a traceback before that. This process
    receives a Ctrl-C at the end of the block.
    """
    with safe_children(), without_main_module(), interrupts_blocked():
        yield


def _has_server() -> bool:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload(PRELOADED)
    try:
        forkserver.ensure_running()
    except OSError:
        return False
    return True
