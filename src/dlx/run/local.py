"""Several trials at once on one machine: worker processes that live as long as the study, each with a trial at a time.

Workers are given the voxels in shared memory once, then one task after the other. A worker that dies (a crash, too
little memory) makes its trial a failed row, and the next trial gets a new one. Workers end with their parent, however
that ends. What a worker does is in `worker.py`.
"""

import signal
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch.multiprocessing  # noqa: F401 - teaches pickle to hand tensors over in shared memory

from dlx.data.voxels import TENSORS
from dlx.records.schema import TrialRecord
from dlx.run.server import quiet_children, start_context
from dlx.run.stores import SHARED_MEMORY, Stores
from dlx.run.trial import Event, TrialEnded, leaves_process_unusable
from dlx.run.worker import Began, Refused, Task, work
from dlx.system.errors import DataError, DlxError

END_S = 5.0  # how long a worker that is told to end may take before it is killed


@dataclass
class Worker:
    """A worker process, the pipe to it, and the number of the task it is at (None: it waits for one)."""

    process: BaseProcess
    pipe: Connection
    number: int
    task: int | None = None
    has_begun: bool = False
    before: TrialRecord | None = None  # the result that its trial had when it was handed out


def run_in_workers(tasks: Mapping[int, Task], stores: Stores, num_workers: int) -> Generator[tuple[int, Event]]:
    """Runs the tasks in their order, `num_workers` at once, and yields (number, event) as they come.

    A task that is refused (a damaged checkpoint, a trial that another process runs) ends as failed and leaves no
    result behind. Closing the generator stops the workers; finished epochs are on disk.
    """
    _share(stores)
    dispatcher = Dispatcher(tasks, stores, num_workers, deque(tasks))
    try:
        while dispatcher.waiting or any(worker.task is not None for worker in dispatcher.workers):
            dispatcher.dispatch()
            for pipe in wait([worker.pipe for worker in dispatcher.workers]):
                yield from dispatcher.receive(next(worker for worker in dispatcher.workers if worker.pipe is pipe))
    finally:
        _stop(dispatcher.workers)


@dataclass
class Dispatcher:
    """The workers, and the tasks that wait for one."""

    tasks: Mapping[int, Task]
    stores: Stores
    num_workers: int
    waiting: deque[int]
    workers: list[Worker] = field(default_factory=list)
    retried: set[int] = field(default_factory=set)

    def dispatch(self) -> None:
        """Gives each waiting task to a worker, until all workers have one; new ones are started where they lack."""
        while self.waiting:
            worker = next((worker for worker in self.workers if worker.task is None), None)
            if worker is None:
                if len(self.workers) == self.num_workers:
                    return
                taken = {worker.number for worker in self.workers}
                number = next(number for number in range(self.num_workers) if number not in taken)
                worker = _start(self.stores, number)
                self.workers.append(worker)
            worker.task, worker.has_begun = self.waiting.popleft(), False
            worker.before = _result(self.tasks[worker.task])
            with suppress(OSError):  # it died while it waited, which its pipe tells in a moment
                worker.pipe.send((worker.task, self.tasks[worker.task]))

    def receive(self, worker: Worker) -> Iterator[tuple[int, Event]]:
        """What a worker has to tell, be it by its death."""
        try:
            number, event = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._lose(worker)
            return
        if isinstance(event, Began):
            worker.has_begun = True
            return
        if isinstance(event, Refused):
            event = self.tasks[number].failed(event.cause, keep=False)
        if isinstance(event, TrialEnded):
            worker.task = None
            if leaves_process_unusable(event.record):
                self.workers.remove(worker)
                _stop([worker])
        yield number, event

    def _lose(self, worker: Worker) -> Iterator[tuple[int, Event]]:
        """A worker died. A trial that had not begun is no cause of that, as far as is known: it is tried once more."""
        self.workers.remove(worker)
        if worker.task is None:
            pass
        elif worker.has_begun or worker.task in self.retried:
            yield worker.task, _end_of_dead(worker, self.tasks[worker.task])
        else:
            self.retried.add(worker.task)
            self.waiting.appendleft(worker.task)
        _stop([worker])


def _share(stores: Stores) -> None:
    """Moves the voxels to shared memory; DlxError where that is too small."""
    try:
        for store in stores.values():
            store.share_memory()
    except RuntimeError as error:  # torch's, whatever the system said
        size = sum(store.nbytes for store in stores.values()) >> 20
        cause = str(error).splitlines()[0]
        raise DlxError(
            f"the voxels ({size} MiB) cannot be put into shared memory ({cause}): make {SHARED_MEMORY} larger (in a "
            "container: --shm-size)"
        ) from None


def _start(stores: Stores, number: int) -> Worker:
    try:
        with quiet_children():
            context = start_context(len(stores) * len(TENSORS))
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, stores, number), name="dlx-worker", daemon=True)
            process.start()
    except OSError as error:
        raise DlxError(f"a worker process cannot be started: {error.strerror or error}") from None
    theirs.close()  # so that a worker's end is seen as the end of the pipe
    return Worker(process, ours, number)


def _end_of_dead(worker: Worker, task: Task) -> TrialEnded:
    """How the trial of a worker that died ended: with its result where that was written, else failed.

    A failure is kept where the trial had begun: it would most likely end so again.
    """
    found = _result(task)
    if found is not None and found != worker.before:
        return TrialEnded(found, task.folder.path, was_done=False)
    return task.failed(_how_it_ended(worker), keep=worker.has_begun)


def _result(task: Task) -> TrialRecord | None:
    try:
        return task.folder.result()
    except DataError:  # damaged: as good as none, and its trial writes another
        return None


def _how_it_ended(worker: Worker) -> str:
    worker.process.join(END_S)
    code = worker.process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (too little memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(END_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()
