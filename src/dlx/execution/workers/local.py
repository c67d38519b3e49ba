"""Runs several trials at once on one machine, in worker processes that live as long as the study.

A worker receives the voxels once, in shared memory, then one task after another. If a worker dies (a crash, too little
memory), its trial is recorded as failed, and a new worker takes the next task. Workers end when their parent ends, even
if it is killed. `worker.py` holds the code of a worker.
"""

import signal
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch.multiprocessing  # noqa: F401 - teaches pickle to hand tensors over in shared memory

from dlx.data.batches.voxels import TENSORS
from dlx.execution.trials.stores import SHARED_MEMORY, Stores
from dlx.execution.trials.trial import Event, Task, TrialEnded, leaves_process_unusable
from dlx.execution.workers.server import quiet_children, start_context
from dlx.execution.workers.worker import Began, Refused, work
from dlx.records.schema import TrialRecord
from dlx.system.errors import DataError, DlxError

TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)  # exit codes of a worker that received SIGTERM
END_S = 5.0  # seconds from SIGTERM to SIGKILL, in which a worker completes a checkpoint that it is writing


@dataclass
class Worker:
    """A worker process, the pipe to it, and the number of its current task (None: it is idle)."""

    process: BaseProcess
    pipe: Connection
    number: int
    task: int | None = None
    has_begun: bool = False
    before: TrialRecord | None = None  # the trial's result before the worker started on it


def run_in_workers(tasks: Mapping[int, Task], stores: Stores, num_workers: int) -> Generator[tuple[int, Event]]:
    """Runs the tasks in order, `num_workers` at once, and yields (number, event) as events arrive.

    A refused task (a damaged checkpoint, a trial that another process runs) ends as failed, but no result is written.
    Closing the generator stops the workers; finished epochs are on disk.
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
    """Assigns waiting tasks to workers and receives their events."""

    tasks: Mapping[int, Task]
    stores: Stores
    num_workers: int
    waiting: deque[int]
    workers: list[Worker] = field(default_factory=list)
    retried: set[int] = field(default_factory=set)

    def dispatch(self) -> None:
        """Sends waiting tasks to idle workers, and starts workers up to `num_workers`."""
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
            with suppress(OSError):  # the idle worker has died; `receive` finds its pipe closed
                worker.pipe.send((worker.task, self.tasks[worker.task]))

    def receive(self, worker: Worker) -> Iterator[tuple[int, Event]]:
        """Yields the event that a worker sent; if the worker has died, the end of its trial."""
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
        """Handles the death of a worker. A trial that had not begun did not cause it and is tried once more."""
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
    """Moves the voxels to shared memory; DlxError if that is too small."""
    try:
        for store in stores.values():
            store.share_memory()
    except RuntimeError as error:  # torch raises it for every error of the system
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
    """The end of a dead worker's trial: its result if that was written, else a failure.

    The failure is written to disk if the trial had begun, because it would probably fail again; not if the worker was
    told to stop, as a job scheduler does with all processes of a job.
    """
    found = _result(task)
    if found is not None and found != worker.before:
        return TrialEnded(found, task.folder.path, was_done=False)
    cause = _how_it_ended(worker)
    return task.failed(cause, keep=worker.has_begun and worker.process.exitcode not in TERMINATED)


def _result(task: Task) -> TrialRecord | None:
    try:
        return task.folder.result()
    except DataError:  # damaged; the trial will write a new one
        return None


def _how_it_ended(worker: Worker) -> str:
    worker.process.join(END_S)
    code = worker.process.exitcode
    if code in TERMINATED:
        return "its process was told to stop (SIGTERM); the same command resumes it"
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
