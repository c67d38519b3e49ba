"""The worker process: runs tasks of the parent process one after another and sends back their events.

`local.py` holds the code of the parent.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from dlx.engine.fit import StepDone
from dlx.execution.trials.process_cache import ProcessCache
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import Event, Task, prepared, run_trial
from dlx.execution.workers.devices import cuda_names, device_of_worker
from dlx.system.errors import spell_error
from dlx.system.interrupts import end_when_terminated, raise_if_stopped

STEP_EVENTS_EVERY_S = 0.2  # the table of trials is drawn four times a second


@dataclass(frozen=True)
class Began:
    """The worker has its task, lock and voxels; if it dies from now on, the trial is the cause."""


@dataclass(frozen=True)
class Refused:
    """A worker could not run its task, for a cause that may be temporary.

    The parent makes the trial's end from this: in the worker, what caused the error may prevent that too.
    """

    cause: str


def work(pipe: Connection, stores: Stores, worker: int) -> None:
    """Runs the tasks that come through the pipe until it closes; `worker` is this worker's number, from 0."""
    end_when_terminated()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    sys.stdout = sys.stderr  # what a network of the user's own prints is no result
    cache = ProcessCache()
    while True:
        try:
            number, task = pipe.recv()
        except EOFError:
            return
        try:
            for event in _events(task, stores, cache, worker):
                pipe.send((number, event))
        except Exception as error:  # noqa: BLE001 - such as too little memory on the device for the voxels
            raise_if_stopped()  # the task did not fail: a signal interrupted native code
            pipe.send((number, Refused(spell_error(error))))


def _events(task: Task, stores: Stores, cache: ProcessCache, worker: int) -> Iterator[Event | Began]:
    """Yields the events of a task, with at most one step event per STEP_EVENTS_EVERY_S."""
    task = task.on(device_of_worker(task.resolved, cuda_names(), worker))
    last_sent_s = 0.0
    with prepared(task, stores, cache) as store:
        yield Began()
        for event in run_trial(task, store, cache):
            if isinstance(event, StepDone):
                if time.monotonic() - last_sent_s < STEP_EVENTS_EVERY_S:
                    continue
                last_sent_s = time.monotonic()
            yield event


def _end_with_parent() -> None:
    parent: Any = parent_process()
    wait([parent.sentinel])
    os._exit(1)
