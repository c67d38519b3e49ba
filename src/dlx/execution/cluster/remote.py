"""What runs on a worker of a cluster: one trial at a time, with voxels and captured steps kept for later ones.

`StudyOnWorker` is sent to each worker once, also to one that joins later; a task is then two short texts. `collect.py`
holds the code of the client.
"""

import os
import pickle
import shutil
import signal
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from distributed import Worker, WorkerPlugin, get_worker

from dlx.data.batches.voxels import VoxelStore
from dlx.data.cache import load_cache
from dlx.engine.fit import StepDone
from dlx.execution.cluster.facts import facts, misfit
from dlx.execution.trials.process_cache import ProcessCache
from dlx.execution.trials.trial import Event, Task, TrialEnded, TrialStarted, prepared, run_trial
from dlx.execution.workers.devices import cuda_names
from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord
from dlx.system.errors import DataError, DlxError, LockedError, spell_error
from dlx.system.files import write_atomically
from dlx.system.interrupts import HAS_SIGNAL_MASKS

STEP_MESSAGES_EVERY_S = 1.0  # each is a message through the scheduler
LOCK_TRIES = 20  # of LOCK_WAIT_S each: a worker that was given up for lost may still be ending its trial
FILES = ("settings.json", "epochs.jsonl", "last.safetensors", "best.safetensors", "pictures.json", "error.txt")

# torch's random generators, threads and flags belong to the process: two trials in it would change each other's numbers
_one_trial = threading.Lock()


@dataclass(frozen=True)
class SharedData:
    """The cases of a data set in a file that workers can read: the decoded-data cache on a shared folder."""

    path: Path
    fingerprint: str
    cases: tuple[str, ...]

    def open(self) -> VoxelStore:
        """Reads the voxels; DataError if the file is not there, is damaged or holds other data."""
        dataset = load_cache(self.path)
        if dataset.fingerprint != self.fingerprint:
            raise DataError(f"{self.path}: holds other data than the study's")
        return VoxelStore(dataset.cases_of(self.cases))


@dataclass(frozen=True)
class RemoteEnd:
    """How a trial ended on a worker.

    `record` is a TrialRecord as compressed JSON. `files` are those of its folder, where that is not shared with the
    client. `refusal` is why the worker at `address` could not run it, if another worker may: then there is no record.
    """

    record: bytes | None
    files: dict[str, bytes] = field(default_factory=dict)
    refusal: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class RemoteEvent:
    """An event of a trial that runs on a worker, and what a client has to know that has not seen the trial begin.

    `attempt` is the submission of the trial that the worker runs.
    """

    trial_id: str
    attempt: int
    worker: str  # its name
    address: str
    epochs: int
    steps_per_epoch: int
    epochs_done: int  # before the event
    event: Event


class StudyOnWorker(WorkerPlugin):
    """What the trials of a study share on a worker.

    `key` names the study's folder, `tasks` are its trials by their ids. If the study's folder is shared, `token` is a
    file in it and its content, and the worker writes the trials' folders there; else it writes them into its own local
    directory and sends back the files. `data` are by fingerprint; of those that are None the voxels come with the
    tasks. `is_fresh` removes what the worker has of earlier runs.
    """

    idempotent = True  # a client that starts again does not stop the trials that run

    def __init__(
        self,
        name: str,
        key: str,
        tasks: Mapping[str, Task],
        data: Mapping[str, SharedData | None],
        *,
        token: tuple[str, str] | None,
        is_fresh: bool = False,
    ) -> None:
        self.name, self.key, self.tasks, self.data = name, key, dict(tasks), dict(data)
        self.token, self.is_fresh = token, is_fresh
        self.expected = facts()

    def setup(self, worker: Worker) -> None:
        """Called on the worker, once it has the plugin; one sent again keeps what the worker had."""
        self.cache, self.stores = ProcessCache(), dict[str, VoxelStore]()
        self.stopped = threading.Event()
        self.scratch = Path(worker.local_directory) / self.key
        # workers of one command are numbered and share the devices; others see the device that they were started for
        self.number = worker.name if isinstance(worker.name, int) else 0
        self.misfit = misfit(facts(), self.expected, worker.state.nthreads)
        if self.is_fresh:
            shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def is_shared(self) -> bool:
        """Whether workers see the study's folder."""
        return self.token is not None

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - distributed passes it
        """Called when the study has ended or the worker closes: stops the trial that runs."""
        self.stopped.set()

    def store(self, fingerprint: str, sent: Mapping[str, Any] | None) -> None:
        """Makes the voxels of a data set available, once in this process."""
        if fingerprint in self.stores:
            return
        shared = self.data[fingerprint]
        if shared is not None:
            self.stores[fingerprint] = shared.open()
        elif sent is not None:
            self.stores[fingerprint] = VoxelStore.from_arrays(sent)

    def local(self, task: Task) -> Task:
        """The task with the device of this worker and the folder that it writes. DlxError if this worker is unfit."""
        if self.misfit is not None:
            raise DlxError(f"this worker {self.misfit}")
        device_name = task.resolved.compute.device_name
        if device_name is not None:
            names = cuda_names()
            if device_name not in names:
                here = ", ".join(names) or "no CUDA device"
                raise DlxError(f"the trial is planned for {device_name}, but this worker has {here}")
            alike = [index for index, name in enumerate(names) if name == device_name]
            task = task.on(torch.device("cuda", alike[self.number % len(alike)]))
        if self.is_shared:
            return task
        return replace(task, folder=TrialFolder.at(self.scratch / task.folder.path.name))


class IgnoresInterrupts(WorkerPlugin):
    """Makes the workers of this command ignore Ctrl-C, which the terminal sends to them too: the command stops them."""

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - distributed passes it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if HAS_SIGNAL_MASKS:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def sees(path: str, token: str) -> bool:
    """Whether this worker finds the token in a file."""
    try:
        return Path(path).read_text(encoding="utf-8") == token
    except (OSError, UnicodeDecodeError):
        return False


def is_readable(path: str) -> bool:
    """Whether this worker can read a file."""
    return os.access(path, os.R_OK)


def run_remote(
    study: str,
    trial: str,
    attempt: int,
    voxels: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> RemoteEnd:
    """Runs a trial of a study whose plugin this worker has; events go to the client, under the study's name as topic.

    `attempt` counts the submissions of the trial. `voxels` are those of the trial's data, if they are not in a file;
    `files` those of the trial's folder that the client has, if that is not shared and has a checkpoint.
    """
    worker = get_worker()
    plugin = worker.plugins[study]
    assert isinstance(plugin, StudyOnWorker)
    with _one_trial:
        try:
            task = plugin.local(plugin.tasks[trial])
            if plugin.token is not None and not sees(*plugin.token):
                raise DataError(f"{Path(plugin.token[0]).parent}: this worker does not see the study's folder")
            if files is not None:
                _put_files(task.folder, files)
            plugin.store(task.resolved.dataset.fingerprint, voxels)
            return _run(plugin, trial, attempt, task, worker)
        except (DlxError, OSError) as error:  # such as a damaged checkpoint or a full disk
            return RemoteEnd(None, refusal=f"{spell_error(error)} (on {worker.name})", address=worker.address)


def _run(plugin: StudyOnWorker, trial: str, attempt: int, task: Task, worker: Worker) -> RemoteEnd:
    """Runs a trial until it ends or the study is stopped."""
    epochs = steps_per_epoch = epochs_done = 0
    for event in _events(plugin, task):
        if isinstance(event, TrialEnded):
            record = zlib.compress(event.record.model_dump_json().encode(), level=1)
            return RemoteEnd(record, {} if plugin.is_shared else take_files(task.folder, remove=True))
        if isinstance(event, TrialStarted):
            epochs, steps_per_epoch, epochs_done = event.epochs, event.steps_per_epoch, event.resumed_from
        message = RemoteEvent(
            trial, attempt, str(worker.name), worker.address, epochs, steps_per_epoch, epochs_done, event
        )
        worker.log_event(plugin.name, pickle.dumps(message))
        if isinstance(event, EpochRecord):
            epochs_done = event.result.epoch
        if plugin.stopped.is_set():
            break
    return RemoteEnd(None, refusal="the study was stopped")


def _events(plugin: StudyOnWorker, task: Task) -> Iterator[Event]:
    """The events of a trial, with at most one step event per STEP_MESSAGES_EVERY_S."""
    last_sent_s = 0.0
    for attempt in range(LOCK_TRIES):
        try:
            with prepared(task, plugin.stores, plugin.cache) as store:
                for event in run_trial(task, store, plugin.cache):
                    if isinstance(event, StepDone) and not plugin.stopped.is_set():
                        if time.monotonic() - last_sent_s < STEP_MESSAGES_EVERY_S:
                            continue
                        last_sent_s = time.monotonic()
                    yield event
            return
        except LockedError:
            if attempt == LOCK_TRIES - 1 or plugin.stopped.is_set():
                raise


def take_files(folder: TrialFolder, *, remove: bool = False) -> dict[str, bytes]:
    """The content of a trial's files, by name, which are then removed if asked for."""
    found = {name: path.read_bytes() for name in FILES if (path := folder.path / name).exists()}
    if remove:
        shutil.rmtree(folder.path, ignore_errors=True)
    return found


def _put_files(folder: TrialFolder, files: Mapping[str, bytes]) -> None:
    """Writes files of the client, unless this worker has gone on with the trial."""
    if folder.last.exists():
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder.path / name, content)
