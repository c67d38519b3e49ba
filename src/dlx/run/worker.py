"""The worker process: runs tasks of the parent process one after another and sends back their events.

`local.py` holds the code of the parent.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from dlx.engine.device import prepare_backend
from dlx.engine.fit import StepDone
from dlx.records.folder import TrialFolder
from dlx.run.devices import cuda_names, device_of_worker
from dlx.run.process_cache import ProcessCache
from dlx.run.stores import Stores
from dlx.run.trial import Event, TrialEnded, make_record, run_trial
from dlx.study.study import Trial
from dlx.system.errors import DlxError, spell_os_error
from dlx.system.interrupts import ignore_interrupts
from dlx.trial.resolve import Resolved

STEP_EVENTS_EVERY_S = 0.2  # the table of trials is drawn four times a second


@dataclass(frozen=True)
class Task:
    """A trial to run, and how."""

    trial: Trial
    resolved: Resolved
    folder: TrialFolder
    fresh: bool = False
    retry_failed: bool = False

    def failed(self, cause: str, *, keep: bool) -> TrialEnded:
        """A failed end of this task's trial; with `keep` the record is written, so that the trial is not run again."""
        record = make_record(self.trial, self.resolved, self.folder, "failed", cause)
        if keep:
            self.folder.finish(record)
        return TrialEnded(record, self.folder.path, was_done=False)

    def on(self, device: torch.device) -> "Task":
        """The same task on another device of its kind."""
        compute = replace(self.resolved.compute, device=device)
        return replace(self, resolved=replace(self.resolved, compute=compute))


@dataclass(frozen=True)
class Began:
    """The worker has its task, lock and voxels; if it dies from now on, the trial is the cause."""


@dataclass(frozen=True)
class Refused:
    """A worker could not run its task, for a cause that may be temporary."""

    cause: str


def work(pipe: Connection, stores: Stores, worker: int) -> None:
    """Runs the tasks that come through the pipe until it closes; `worker` is this worker's number, from 0."""
    ignore_interrupts()  # the parent handles Ctrl-C and ends its workers
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cache = ProcessCache()
    while True:
        try:
            number, task = pipe.recv()
        except EOFError:
            return
        try:
            for event in _events(task, stores, cache, worker):
                pipe.send((number, event))
        except OSError as error:
            pipe.send((number, Refused(spell_os_error(error))))
        except DlxError as error:
            pipe.send((number, Refused(str(error))))
        except Exception as error:  # noqa: BLE001 - such as too little memory on the device for the voxels
            cause = str(error).splitlines()[0] if str(error) else "no message"
            pipe.send((number, Refused(f"{type(error).__name__}: {cause}")))


def _events(task: Task, stores: Stores, cache: ProcessCache, worker: int) -> Iterator[Event | Began]:
    """Yields the events of a task, with at most one step event per STEP_EVENTS_EVERY_S."""
    task = task.on(device_of_worker(task.resolved, cuda_names(), worker))
    prepare_backend(task.resolved.compute)  # first of all: otherwise every worker takes memory of the first device
    store = cache.store(task.resolved, stores)
    last_sent_s = 0.0
    with task.folder.locked():
        yield Began()
        if task.fresh:
            task.folder.clear()
        for event in run_trial(
            task.trial, task.resolved, store, task.folder, retry_failed=task.retry_failed, jobs=cache.jobs
        ):
            if isinstance(event, StepDone):
                if time.monotonic() - last_sent_s < STEP_EVENTS_EVERY_S:
                    continue
                last_sent_s = time.monotonic()
            yield event


def _end(*_: object) -> None:
    """Handles SIGTERM: the stack unwinds, so that the checkpoint that is being written is completed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def _end_with_parent() -> None:
    parent: Any = parent_process()
    wait([parent.sentinel])
    os._exit(1)
