"""The client of a cluster: submits trials, and turns what workers send back into events and files.

Dask schedules: which worker runs a trial, and whether it is run again after a worker was lost, is not decided here.
What is lost with the scheduler itself is submitted again. `remote.py` holds the code of a worker.
"""

import hashlib
import pickle
import time
import uuid
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed
from filelock import FileLock, Timeout

from dlx.execution.cluster.remote import RemoteEnd, RemoteEvent, SharedData, StudyOnWorker, is_readable, run_remote
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import ClusterNote, Event, Task, TrialEnded, TrialStarted
from dlx.records.schema import EpochRecord, TrialRecord
from dlx.system.errors import DlxError, LockedError, SettingError, spell_error
from dlx.system.files import naming, write_atomically

POLL_S = 0.05
LOST = (CancelledError, KilledWorker, OSError)  # what reading a result raises if it was lost with its worker
MAX_SUBMISSIONS = 5  # of a trial, because the scheduler or the voxels were lost
MAX_REFUSALS = 3  # of a trial, by workers that cannot run it
LOOK_EVERY_S = 5.0
LOCK_WAIT_S = 3.0
NO_WORKER = "the cluster has no worker: trials wait until one comes"
LOST_AT_START = "the scheduler or a worker was lost before the trials began: the same command tries again"


def run_on_cluster(
    tasks: Mapping[int, Task], stores: Stores, client: Client, all_trials: Sequence[str] = ()
) -> Generator[tuple[int, Event]]:
    """Runs the tasks on the workers of a dask cluster and yields (number, event) as events arrive.

    If workers see the folders of the trials, they write the records there; else the files of a trial come back with its
    end, and its epochs before. A trial that ran when an earlier client was killed goes on, and its end is collected.
    A worker's death costs the trial that it ran; dask runs that again, at most `distributed.scheduler.allowed-failures`
    times. Closing the generator stops the running trials. `all_trials` are the ids of the study's trials, also of those
    that are done: the study has the same name on the cluster when its command is given again.

    Raises LockedError if another command runs a study of this folder on a cluster; DlxError if the scheduler is lost
    and does not come back.
    """
    folder = next(iter(tasks.values())).folder.path.parent.parent.absolute()
    with _alone(folder):
        with _reporting_loss():
            study = RemoteStudy.of(
                tasks, stores, client, folder, all_trials or [task.trial_id for task in tasks.values()]
            )
            if any(task.fresh or task.retry_failed for task in tasks.values()):
                study.forget_earlier()
        study.plugin.tasks = {trial: _ready(task) for trial, task in study.plugin.tasks.items()}
        try:
            with _reporting_loss():
                study.begin()
            yield from study.events()
        finally:
            study.end()


@dataclass
class RemoteStudy:
    """The trials of a study on a cluster: what was submitted, and what has come back."""

    client: Client
    plugin: StudyOnWorker
    stores: Stores
    numbers: dict[str, int]  # of each trial, by its id
    key: str  # of the study's folder: what an earlier client left of it has this prefix
    waiting: dict[str, Future[Any]] = field(default_factory=dict)  # by the trial's id
    tries: dict[str, int] = field(default_factory=dict)
    refusers: dict[str, set[str]] = field(default_factory=dict)  # of a trial: addresses of workers that cannot run it
    begun: set[str] = field(default_factory=set)  # trials of which this client has seen an event
    adopted: set[str] = field(default_factory=set)  # of those, the ones that began under an earlier client
    sent: dict[str, Future[Any]] = field(default_factory=dict)  # voxels, by fingerprint
    arrived: "SimpleQueue[bytes]" = field(default_factory=SimpleQueue)
    ended: as_completed = field(init=False)
    looked_s: float = 0.0  # when `_look` was called last, on the monotonic clock
    num_published: int = 0
    has_workers: bool = True

    @classmethod
    def of(
        cls, tasks: Mapping[int, Task], stores: Stores, client: Client, folder: Path, all_trials: Sequence[str]
    ) -> "RemoteStudy":
        """The study of these tasks, whose names on the cluster follow from its folder and its trials."""
        by_id = {task.trial_id: task for task in tasks.values()}
        key = f"dlx-{_digest([str(folder)])}"
        absolute = {
            trial: replace(task, folder=type(task.folder).at(task.folder.path.absolute()))
            for trial, task in by_id.items()
        }
        is_shared = _is_shared(folder, client)
        name = f"{key}-{_digest(sorted(all_trials))}-{'shared' if is_shared else 'sent'}"
        plugin = StudyOnWorker(name, absolute, _data_of(tasks, stores, client), is_shared=is_shared)
        return cls(client, plugin, stores, {task.trial_id: number for number, task in tasks.items()}, key)

    @property
    def name(self) -> str:
        return self.plugin.name

    def begin(self) -> None:
        """Submits all trials; those that an earlier client submitted are taken over.

        SettingError if trials on CUDA would wait for ever, as no worker offers a GPU.
        """
        if self._needs_gpu(self.numbers):
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            if not any(worker["resources"].get("GPU") for worker in workers):
                raise SettingError("no worker of the cluster offers a GPU: start them with --resources GPU=1")
        self._remove_others()
        self.ended = as_completed(loop=self.client.loop)
        self._submit(list(self.numbers))

    def _needs_gpu(self, trials: Iterable[str]) -> bool:
        return any(self.plugin.tasks[trial].resolved.compute.device.type == "cuda" for trial in trials)

    def _remove_others(self) -> None:
        """Stops what an earlier client left of another study in this folder, or of this one with other trials."""
        for left in self.client.list_datasets():
            if str(left).startswith(self.key) and left != self.name:
                self._remove(str(left))

    def forget_earlier(self) -> None:
        """Stops what an earlier client left of this very study, whose results are not wanted."""
        if self.name in self.client.list_datasets():
            self._remove(self.name)

    def _remove(self, name: str) -> None:
        """Removes a study from the cluster: its results, its tasks, and its plugin, which stops what runs."""
        with suppress(Exception):
            self.client.unpublish_dataset(name)
        with suppress(Exception):  # it may have gone with an earlier client, or scheduler
            self.client.unregister_worker_plugin(name)

    def _receive(self, event: tuple[float, Any]) -> None:
        """Called by dask's thread for each event; those of the topic's own bookkeeping are no bytes."""
        _, message = event
        if isinstance(message, bytes):
            self.arrived.put(message)

    def _submit(self, trials: Sequence[str]) -> None:
        """Submits trials. Dask keeps their results for this study until `end`, whatever happens to this client."""
        self.client.subscribe_topic(self.name, self._receive)  # each time: a new scheduler knows of none
        self.client.register_plugin(self.plugin, name=self.name)
        for fingerprint, data in self.plugin.data.items():
            if data is None:
                arrays = self.stores[fingerprint].to_arrays()
                # in a list: of a table dask would name each entry by its key alone, as in any other study
                (self.sent[fingerprint],) = self.client.scatter([arrays], broadcast=True, hash=False)
        for fingerprint in self.plugin.data:
            chosen = [one for one in trials if self.plugin.tasks[one].resolved.dataset.fingerprint == fingerprint]
            voxels = [self.sent[fingerprint]] if fingerprint in self.sent else []
            self._submit_with([one for one in chosen if one not in self.refusers], voxels)
            for trial in set(chosen) & self.refusers.keys():
                self._submit_with([trial], voxels, self._not_refusing(trial))
        self._publish()

    def _publish(self) -> None:
        """Lets the cluster keep the voxels and the results that have not come, and release all others."""
        kept = [*self.waiting.values(), *self.sent.values()]
        self.client.publish_dataset(kept, name=self.name, override=True)
        self.num_published = len(self.waiting)

    def _submit_with(self, trials: Sequence[str], voxels: Sequence[Future[Any]], preferred: Sequence[str] = ()) -> None:
        """Submits trials of one data set, whose workers are `preferred` as long as one of them is there."""
        if not trials:
            return
        for trial in trials:
            self.tries[trial] = self.tries.get(trial, 0) + 1
        again = [f"-{self.tries[trial]}" if self.tries[trial] > 1 else "" for trial in trials]
        futures = self.client.map(
            run_remote,
            [self.name] * len(trials),
            list(trials),
            *[[one] * len(trials) for one in voxels],
            key=[f"{self.name}-{trial}{count}" for trial, count in zip(trials, again, strict=True)],
            pure=False,
            resources={"GPU": 1} if self._needs_gpu(trials) else None,
            workers=list(preferred) or None,
            allow_other_workers=bool(preferred),
        )
        self.waiting.update(zip(trials, futures, strict=True))
        self.ended.update(futures)

    def _not_refusing(self, trial: str) -> list[str]:
        """The addresses of the workers that have not refused a trial, and offer a GPU if it needs one."""
        needs_gpu = self._needs_gpu([trial])
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return [
            address
            for address, one in workers.items()
            if address not in self.refusers[trial] and (one["resources"].get("GPU") or not needs_gpu)
        ]

    def events(self) -> Iterator[tuple[int, Event]]:
        """Yields what arrives until every trial has ended."""
        while self.waiting:
            yield from self._arrived()
            yield from self._ended()
            if self.waiting and time.monotonic() - self.looked_s > LOOK_EVERY_S:
                with suppress(OSError):  # the scheduler was lost: all is submitted again
                    yield from self._look()

    def _look(self) -> Iterator[tuple[int, Event]]:
        """From time to time: tells the cluster what it need not keep, and the user if no worker is left."""
        self.looked_s = time.monotonic()
        if len(self.waiting) < self.num_published:
            self._publish()
        yield from self._count_workers(next(iter(self.waiting)))

    def _count_workers(self, trial: str) -> Iterator[tuple[int, Event]]:
        """A note for the user if the last worker has gone, or the first has come back; it names no trial."""
        has_workers = bool(self.client.scheduler_info(n_workers=-1)["workers"])
        if has_workers != self.has_workers:
            self.has_workers = has_workers
            yield self.numbers[trial], ClusterNote("the cluster has workers again" if has_workers else NO_WORKER)

    def _arrived(self) -> Iterator[tuple[int, Event]]:
        """The events of running trials, for at most POLL_S."""
        until = time.monotonic() + POLL_S
        while (left := until - time.monotonic()) > 0:
            with suppress(Empty):
                message: RemoteEvent = pickle.loads(self.arrived.get(timeout=left))
                if message.trial_id in self.waiting:  # else it is of a run whose end came before
                    yield from self._shown(message)

    def _shown(self, message: RemoteEvent) -> Iterator[tuple[int, Event]]:
        """An event of a running trial, whose epochs are kept here if its worker does not see the folder."""
        trial, event = message.trial_id, message.event
        number, task = self.numbers[trial], self.plugin.tasks[trial]
        if isinstance(event, TrialStarted):
            self.begun.add(trial)
            self.adopted.discard(trial)
            self._begin_folder(trial)
            event = replace(event, worker=message.worker)
        elif trial not in self.begun:  # it began under an earlier client
            self.begun.add(trial)
            self.adopted.add(trial)
            yield (
                number,
                TrialStarted(
                    task.trial,
                    message.epochs,
                    message.steps_per_epoch,
                    resumed_from=message.epochs_done,
                    earlier=(),
                    worker=message.worker,
                ),
            )
        if isinstance(event, EpochRecord) and not self.plugin.is_shared and trial not in self.adopted:
            task.folder.append(event)
        yield number, event

    def _begin_folder(self, trial: str) -> None:
        """Prepares the folder for the epochs of a trial that writes its own elsewhere; it starts from the first."""
        if not self.plugin.is_shared:
            task = self.plugin.tasks[trial]
            task.folder.clear()
            task.folder.begin(task.settings)

    def _ended(self) -> Iterator[tuple[int, Event]]:
        """The ends of trials that have come; what was lost with the scheduler is submitted again."""
        futures = {future.key: future for future in self.ended.next_batch(block=False)}
        finished = [future for future in futures.values() if future.status == "finished"]
        results = dict(zip([one.key for one in finished], self._gather(finished), strict=True))
        lost = []
        for trial, future in [(trial, future) for trial, future in self.waiting.items() if future.key in futures]:
            result = results.get(future.key)
            if result is not None and result.address is not None:
                if not any(result.address in addresses for addresses in self.refusers.values()):
                    yield self.numbers[trial], ClusterNote(f"refused by a worker, to be tried again: {result.refusal}")
                self.refusers.setdefault(trial, set()).add(result.address)
            if result is not None and (result.record is not None or self.tries[trial] >= MAX_REFUSALS):
                end = self._keep(trial, result)
            elif future.status == "error" and not self._is_innocent(trial, future):
                end = self._failed(trial, future)
            else:  # the scheduler, or the voxels, were lost, or a worker refused it, as another may not
                lost.append(trial)
                continue
            del self.waiting[trial]
            yield self.numbers[trial], end
        if lost:
            yield from self._submit_again(lost)

    def _is_innocent(self, trial: str, future: Future[Any]) -> bool:
        """Whether dask gave up a trial that never began: it waited on workers that died of others."""
        is_killed = isinstance(future.exception(), KilledWorker)
        return is_killed and trial not in self.begun and self.tries[trial] < MAX_SUBMISSIONS

    def _gather(self, futures: Sequence[Future[Any]]) -> list[RemoteEnd | None]:
        """The results of finished trials; None for one that was lost meanwhile."""
        if not futures:
            return []
        with suppress(*LOST):
            return list(self.client.gather(list(futures)))
        found: list[RemoteEnd | None] = []
        for future in futures:
            try:
                found.append(future.result())
            except LOST:
                found.append(None)
        return found

    def _keep(self, trial: str, end: RemoteEnd) -> TrialEnded:
        """The end of a trial, with its files in its folder."""
        task = self.plugin.tasks[trial]
        if end.record is None:
            return task.failed(end.refusal or "", keep=False)
        record = TrialRecord.model_validate_json(zlib.decompress(end.record))
        if not self.plugin.is_shared:
            for name, content in end.files.items():
                write_atomically(task.folder.path / name, content)
            task.folder.finish(record)
        return TrialEnded(record, task.folder.path, was_done=False)

    def _failed(self, trial: str, future: Future[Any]) -> TrialEnded:
        """The end of a trial that dask gave up, or that a worker could not even begin."""
        task, error = self.plugin.tasks[trial], future.exception()
        if isinstance(error, KilledWorker):
            cause = f"its worker died {error.allowed_failures + 1} times (too little memory?)"
            return task.failed(cause, keep=True)
        return task.failed(f"{type(error).__name__}: {error}", keep=False)

    def _submit_again(self, trials: Sequence[str]) -> Iterator[tuple[int, Event]]:
        """Submits trials whose tasks were lost, once the scheduler is there; gives up those lost too often."""
        given_up = [trial for trial in trials if self.tries[trial] >= MAX_SUBMISSIONS]
        for trial in given_up:
            del self.waiting[trial]
            cause = f"the cluster lost it {MAX_SUBMISSIONS} times"
            yield self.numbers[trial], self.plugin.tasks[trial].failed(cause, keep=False)
        again = [trial for trial in trials if trial not in given_up]
        while again:
            while self.client.status == "connecting":
                time.sleep(POLL_S)
            if self.client.status != "running":
                raise DlxError(
                    "the scheduler was lost and did not come back: finished trials are recorded, and the same command, "
                    "once it is there, runs the others"
                )
            with suppress(OSError):  # it was lost once more, or has no worker that takes the voxels
                yield from self._count_workers(again[0])
                self._submit(again)
                return

    def end(self) -> None:
        """Stops what runs and removes all of this study from the cluster; quietly, as the cluster may be gone."""
        if self.client.status != "running":
            return
        with suppress(Exception):
            self.client.unsubscribe_topic(self.name)
        with suppress(Exception):
            self.client.cancel(list(self.waiting.values()), force=True)
        self._remove(self.name)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Locks a study's folder for this command; LockedError if another one runs its trials on a cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with naming(folder / ".cluster.lock"):
            lock = FileLock(folder / ".cluster.lock").acquire(LOCK_WAIT_S, poll_interval=0.05)
    except Timeout:
        raise LockedError(f"{folder}: another command runs a study of this folder on a cluster") from None
    with lock:
        yield


@contextmanager
def _reporting_loss() -> Iterator[None]:
    """DlxError if the cluster cannot be reached within the block."""
    try:
        yield
    except (OSError, CancelledError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the study's folder
            raise
        raise DlxError(f"{LOST_AT_START} ({spell_error(error)})") from None


def _ready(task: Task) -> Task:
    """The task, with earlier results cleared here, once: on a cluster it may be run again after a worker was lost."""
    if task.fresh or task.retry_failed:
        with task.folder.locked():
            if task.fresh:
                task.folder.clear()
            task.folder.forget_result()
    return replace(task, fresh=False, retry_failed=False)


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _is_shared(folder: Path, client: Client) -> bool:
    """Whether all workers see the study's folder: each looks for a file of a random name that is written there."""
    token = folder / f".cluster-{uuid.uuid4().hex}"
    folder.mkdir(parents=True, exist_ok=True)
    token.touch()
    try:
        seen = client.run(is_readable, str(token))
    finally:
        token.unlink(missing_ok=True)
    return bool(seen) and all(seen.values())


def _data_of(tasks: Mapping[int, Task], stores: Stores, client: Client) -> dict[str, SharedData | None]:
    """For each data set the file from which workers read it; None if not all of them can."""
    found: dict[str, SharedData | None] = {}
    for task in tasks.values():
        dataset = task.resolved.dataset
        if dataset.fingerprint in found:
            continue
        path = dataset.cache_file
        is_there = path is not None and all(client.run(is_readable, str(path.absolute())).values())
        ids = stores[dataset.fingerprint].ids
        found[dataset.fingerprint] = (
            SharedData(path.absolute(), dataset.fingerprint, ids) if path is not None and is_there else None
        )
    return found
