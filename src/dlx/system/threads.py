"""A pool of threads that a stop of the command does not wait for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from dlx.system.interrupts import raise_if_stopped


@contextmanager
def thread_pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool for the `with` block. At its end calls that have not begun are dropped, and running ones are waited for;
    these too are left alone if Ctrl-C or SIGTERM ended the block, as one may take minutes (a large volume). A signal
    that came before, and whose exception was lost (in an import, a destructor), is raised again at once.
    """
    raise_if_stopped()
    pool = ThreadPoolExecutor(num_threads)
    try:
        yield pool
    except (KeyboardInterrupt, SystemExit):
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown(cancel_futures=True)
