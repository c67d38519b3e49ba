"""Several trials at once on one machine: worker processes that live as long as the study, each with a trial at a time.

Workers are given the voxels in shared memory once, then one task after the other. A worker that dies (a crash, too
little memory) makes its trial a failed row, and the next trial gets a new one. Workers end with their parent, however
that ends.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch.multiprocessing  # teaches pickle to hand tensors over in shared memory

from dlx.data.voxels import VoxelStore
from dlx.engine.fit import StepDone
from dlx.errors import DlxError
from dlx.resolve import Resolved
from dlx.run.stores import Stores, place
from dlx.run.trial import Event, TrialEnded, make_record, run_trial
from dlx.store import TrialFolder
from dlx.studies import Trial

STEP_EVENTS_EVERY_S = 0.2  # a display needs no more
END_S = 5.0  # how long a worker that is told to end may take before it is killed


@dataclass(frozen=True)
class Task:
    """A trial to run, and how."""

    trial: Trial
    resolved: Resolved
    folder: TrialFolder
    fresh: bool = False
    retry_failed: bool = False

    def failed(self, cause: str, *, keep: bool) -> TrialEnded:
        """The end of a trial that could not end by itself; kept on disk where running it again would not help."""
        record = make_record(self.trial, self.resolved, self.folder, "failed", cause)
        if keep:
            self.folder.finish(record)
        return TrialEnded(record, self.folder.path, was_done=False)


@dataclass
class Worker:
    """A worker process, the pipe to it, and the number of the task it is at (None: it waits for one)."""

    process: BaseProcess
    pipe: Connection
    task: int | None = None


def run_in_workers(tasks: Mapping[int, Task], stores: Stores, num_workers: int) -> Generator[tuple[int, Event]]:
    """Runs the tasks in their order, `num_workers` at once, and yields (number, event) as they come.

    A task that is refused (a damaged checkpoint, a trial that another process runs) ends as failed and leaves no
    result behind. Closing the generator stops the workers; finished epochs are on disk.
    """
    for store in stores.values():
        store.share_memory()
    waiting = deque(tasks)
    workers: list[Worker] = []
    try:
        while waiting or any(worker.task is not None for worker in workers):
            _hand_out(waiting, tasks, workers, stores, num_workers)
            for pipe in wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                try:
                    number, event = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    if worker.task is not None:
                        yield worker.task, tasks[worker.task].failed(_how_it_ended(worker), keep=True)
                    continue
                if isinstance(event, str):  # a refusal
                    event = tasks[number].failed(event, keep=False)
                if isinstance(event, TrialEnded):
                    worker.task = None
                yield number, event
    finally:
        _stop(workers)


def _hand_out(
    waiting: deque[int], tasks: Mapping[int, Task], workers: list[Worker], stores: Stores, num_workers: int
) -> None:
    while waiting:
        worker = next((worker for worker in workers if worker.task is None), None)
        if worker is None:
            if len(workers) == num_workers:
                return
            worker = _start(stores)
            workers.append(worker)
        number = waiting.popleft()
        try:
            worker.pipe.send((number, tasks[number]))
        except OSError:  # it died while it waited
            workers.remove(worker)
            waiting.appendleft(number)
            continue
        worker.task = number


def _start(stores: Stores) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, stores), name="dlx-worker", daemon=True)
    process.start()
    theirs.close()  # so that a worker's end is seen as the end of the pipe
    return Worker(process, ours)


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


def work(pipe: Connection, stores: Stores) -> None:
    """What a worker does: its parent's tasks, one after the other, telling what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it then ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    placed: dict[tuple[str, str], VoxelStore] = {}
    while True:
        try:
            number, task = pipe.recv()
        except EOFError:
            return
        fingerprint, device = task.resolved.dataset.fingerprint, task.resolved.compute.device
        key = (fingerprint, str(device))
        if key not in placed:
            placed[key] = place(stores[fingerprint], device)
        try:
            for event in _events(task, placed[key]):
                pipe.send((number, event))
        except (DlxError, OSError) as error:
            pipe.send((number, str(error)))


def _events(task: Task, store: VoxelStore) -> Iterator[Event]:
    """A task's events, steps thinned out."""
    told = 0.0
    with task.folder.locked():
        if task.fresh:
            task.folder.clear()
        for event in run_trial(task.trial, task.resolved, store, task.folder, retry_failed=task.retry_failed):
            if isinstance(event, StepDone):
                if time.monotonic() - told < STEP_EVENTS_EVERY_S:
                    continue
                told = time.monotonic()
            yield event


def _end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(1)
