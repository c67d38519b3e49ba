"""A pool of threads that a stop of the command does not wait for."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from dlx.system.interrupts import raise_if_stopped, raise_stop, stops_deferred, stops_kept

LOOK_EVERY_S = 0.1  # how often a wait for a result looks for a stop
Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadPool:
    """The threads of `thread_pool`."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._waiting: deque[Future[Any]] = deque()  # results not yet read

    def map(self, call: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items; what a call raises is raised in its place. A stop is raised while it
        waits. To be read to its end before the next `map`.
        """
        self._waiting.extend(self._executor.submit(call, item) for item in items)
        while self._waiting:
            future = self._waiting.popleft()  # kept no longer: results are whole volumes
            _wait_for([future])
            yield future.result()

    def end(self) -> None:
        """Drops the calls that have not begun and waits for the others; a stop is raised while it waits."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        _wait_for(self._waiting)
        self._executor.shutdown()


@contextmanager
def thread_pool(num_threads: int) -> Iterator[ThreadPool]:
    """A pool for the `with` block. At its end calls that have not begun are dropped, and running ones are waited for;
    these too are left alone if Ctrl-C or SIGTERM ends the block, as one may take minutes (a large volume). A signal
    that came before, and whose exception was lost (in an import, a destructor), is raised again at once.
    """
    raise_if_stopped()
    with stops_kept(), stops_deferred():
        executor = ThreadPoolExecutor(num_threads)
        pool = ThreadPool(executor)
        try:
            yield pool
            pool.end()
        except (KeyboardInterrupt, SystemExit):
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        except BaseException:
            pool.end()
            raise


def _wait_for(futures: Collection[Future[Any]]) -> None:
    """Waits until all are done; a stop is raised at once."""
    raise_stop()
    while running := [future for future in futures if not future.done()]:
        wait(running, LOOK_EVERY_S)
        raise_stop()
