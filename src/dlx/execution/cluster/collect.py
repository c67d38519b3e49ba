"""The trials of a study on a cluster: submits them, and turns what workers send back into events and files.

Dask schedules: which worker runs a trial, and whether it is run again after a worker was lost, is not decided here.
Trials that are lost with the scheduler itself are submitted again. `remote.py` holds the code of a worker.
"""

import hashlib
import pickle
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed

from dlx.execution.cluster.folders import ClientFolders
from dlx.execution.cluster.remote import RemoteEnd, RemoteEvent, StudyOnWorker, run_remote, take_files
from dlx.execution.cluster.sharing import TOKEN, Sent, data_of, id_of, is_shared
from dlx.execution.cluster.watch import WorkerWatch, offers_gpu
from dlx.execution.trials.stores import Stores
from dlx.execution.trials.trial import ClusterNote, Event, Task, TrialEnded, TrialStarted
from dlx.records.schema import EpochRecord
from dlx.system.errors import DlxError, SettingError

POLL_S = 0.05
LOST = (CancelledError, KilledWorker, OSError)  # what reading a result raises if it was lost with its worker
MAX_LOSSES = 20  # of a trial, with the scheduler or with workers that died before it began
LOOK_EVERY_S = 5.0
SCHEDULER_LOST = "the scheduler was lost: waiting 30 s for it to come back"


@dataclass
class RemoteStudy:
    """The trials of a study on a cluster: those that were submitted, and how far each is."""

    client: Client
    plugin: StudyOnWorker
    stores: Stores
    numbers: dict[str, int]  # of each trial, by its id
    key: str  # of the study's folder: the names of its studies on the cluster have this prefix
    waiting: dict[str, Future[Any]] = field(default_factory=dict)  # by the trial's id, as all that follow
    attempts: Counter[str] = field(default_factory=Counter)  # how often a trial was submitted, by earlier clients too
    losses: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)  # how often its last attempt began, as far as is known
    refusers: dict[str, set[str]] = field(default_factory=dict)  # addresses of workers that cannot run a trial
    preferred: dict[str, set[str]] = field(default_factory=dict)  # addresses of workers for which it was submitted
    arrived: "SimpleQueue[bytes]" = field(default_factory=SimpleQueue)
    folders: ClientFolders = field(init=False)
    sent: Sent = field(init=False)
    watch: WorkerWatch = field(init=False)
    ended: as_completed = field(init=False)
    looked_s: float = 0.0  # when `_look` was called last, on the monotonic clock
    num_published: int = 0

    def __post_init__(self) -> None:
        self.folders = ClientFolders(self.plugin.tasks, is_shared=self.plugin.is_shared)
        self.sent = Sent(self.client)
        self.watch = WorkerWatch(self.client, self.plugin.expected)

    @classmethod
    def of(
        cls,
        tasks: Mapping[int, Task],
        stores: Stores,
        client: Client,
        folder: Path,
        token: str,
        all_trials: Sequence[str],
    ) -> "RemoteStudy":
        """The study of these tasks, whose names on the cluster follow from its folder and its trials."""
        by_id = {task.trial_id: task for task in tasks.values()}
        key = f"dlx-{_digest([id_of(folder)])}"
        absolute = {
            trial: replace(task, folder=type(task.folder).at(task.folder.path.absolute()))
            for trial, task in by_id.items()
        }
        shared = is_shared(folder, token, client)
        # with another token, workers of an earlier command would look for a file that is no longer there
        name = f"{key}-{_digest([token, *sorted(all_trials)])}-{'shared' if shared else 'sent'}"
        data = data_of(tasks.values(), stores, client)
        is_fresh = any(task.fresh for task in tasks.values())
        file = (str(folder / TOKEN), token) if shared else None
        plugin = StudyOnWorker(name, key, absolute, data, token=file, is_fresh=is_fresh)
        numbers = {task.trial_id: number for number, task in tasks.items()}
        return cls(client, plugin, stores, numbers, key)

    @property
    def name(self) -> str:
        return self.plugin.name

    def begin(self) -> None:
        """Submits all trials; those that an earlier client submitted are taken over.

        SettingError if trials on CUDA would wait for ever, as no worker offers a GPU.
        """
        needs_gpu = any(self._needs_gpu(trial) for trial in self.numbers)
        if needs_gpu and not any(offers_gpu(worker) for worker in self.watch.workers().values()):
            raise SettingError("no worker of the cluster offers a GPU: start them with --resources GPU=1")
        self._remove_others()
        self._count_earlier_attempts()
        self.ended = as_completed(loop=self.client.loop)
        self._submit(list(self.numbers))

    def _needs_gpu(self, trial: str) -> bool:
        return self.plugin.tasks[trial].resolved.compute.device.type == "cuda"

    def _remove_others(self) -> None:
        """Stops what an earlier client left of another study in this folder, or of this one with other trials."""
        for left in self.client.list_datasets():
            if str(left).startswith(self.key) and left != self.name:
                self._remove(str(left))

    def _count_earlier_attempts(self) -> None:
        """Reads from the tasks that an earlier client left how often it had submitted each trial: those go on."""
        if self.name not in self.client.list_datasets():
            return
        for future in self.client.get_dataset(self.name):
            trial, _, attempt = str(future.key).removeprefix(f"{self.name}-").rpartition("-")
            if trial in self.numbers:
                self.attempts[trial] = int(attempt) - 1  # submitting it takes that task over

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
        voxels = {
            fingerprint: self.sent.once(fingerprint, self.stores[fingerprint].to_arrays(), everywhere=True)
            for fingerprint, data in self.plugin.data.items()
            if data is None
        }
        workers = self.watch.workers() if self.refusers else {}
        groups: dict[tuple[str, ...], list[str]] = {}
        for trial in trials:
            groups.setdefault(tuple(self._fit(trial, workers)) if trial in self.refusers else (), []).append(trial)
        for preferred, group in groups.items():
            self._submit_to(preferred, group, voxels)
        self._publish()

    def _submit_to(self, preferred: Sequence[str], trials: Sequence[str], voxels: Mapping[str, Future[Any]]) -> None:
        """Submits trials for the workers at these addresses, or for any without one."""
        self.attempts.update(trials)
        for trial in trials:
            self.watch.leaves(self.plugin.tasks[trial].trial.name)
        self.preferred.update({trial: set(preferred) for trial in trials})
        self.starts.subtract({trial: self.starts[trial] for trial in trials})
        for needs_gpu in (False, True):
            chosen = [trial for trial in trials if self._needs_gpu(trial) == needs_gpu]
            if not chosen:
                continue
            data = [voxels.get(self.plugin.tasks[trial].resolved.dataset.fingerprint) for trial in chosen]
            files = [self._files(trial) for trial in chosen]
            futures = self.client.map(
                run_remote,
                [self.name] * len(chosen),
                chosen,
                [self.attempts[trial] for trial in chosen],
                *([data, files] if any(data) or any(files) else []),  # each argument costs time
                key=[f"{self.name}-{trial}-{self.attempts[trial]}" for trial in chosen],
                pure=False,
                resources={"GPU": 1} if needs_gpu else None,
                workers=list(preferred) or None,
            )
            self.waiting.update(zip(chosen, futures, strict=True))
            self.ended.update(futures)

    def _files(self, trial: str) -> Future[Any] | None:
        """What this machine has of a trial that has a checkpoint, sent; None if workers see the folder."""
        folder = self.plugin.tasks[trial].folder
        if self.plugin.is_shared or not folder.last.exists():
            return None
        return self.sent.once(trial, take_files(folder), everywhere=False)

    def _publish(self) -> None:
        """Lets the cluster keep the voxels and the results that have not come, and release all others."""
        every = [*self.waiting.values(), *self.sent.futures.values()]
        kept = [future for future in every if future.status not in ("cancelled", "lost")]
        self.client.publish_dataset(kept, name=self.name, override=True)
        self.num_published = len(self.waiting)

    def _fit(self, trial: str, workers: Mapping[str, Any]) -> list[str]:
        """The addresses of the workers that have not refused a trial; of those, the ones that have refused none."""
        found = [
            address
            for address, worker in workers.items()
            if address not in self.refusers.get(trial, ()) and (offers_gpu(worker) or not self._needs_gpu(trial))
        ]
        ready = [address for address in found if not any(address in refusers for refusers in self.refusers.values())]
        return sorted(ready or found)

    def events(self) -> Iterator[tuple[int, Event]]:
        """Yields what arrives until every trial has ended."""
        while self.waiting:
            yield from self._take_events()
            yield from self._take_ends()
            if self.waiting and time.monotonic() - self.looked_s > LOOK_EVERY_S:
                with suppress(OSError):  # the scheduler was lost: all is submitted again
                    yield from self._look()

    def _look(self) -> Iterator[tuple[int, Event]]:
        """From time to time: tells the cluster what it need not keep, and the user what became of the workers."""
        self.looked_s = time.monotonic()
        if len(self.waiting) < self.num_published:
            self._publish()
        workers = self.watch.workers()
        yield from self._notes(workers)
        stranded = [trial for trial in self.waiting if self.preferred[trial] and not self.preferred[trial] & {*workers}]
        if stranded and workers:
            self.client.cancel([self.waiting[trial] for trial in stranded])
            self._submit(stranded)

    def _notes(self, workers: Mapping[str, Any]) -> Iterator[tuple[int, Event]]:
        """Notes on the workers, which are of no trial: they come with the number of the first."""
        need_gpu = all(self._needs_gpu(trial) for trial in self.waiting)
        on_cpu = [
            self.plugin.tasks[trial].resolved.compute.threads for trial in self.waiting if not self._needs_gpu(trial)
        ]
        for text in self.watch.notes(workers, need_gpu=need_gpu, threads=max(on_cpu, default=0)):
            yield next(iter(self.numbers.values())), ClusterNote(text)

    def _take_events(self) -> Iterator[tuple[int, Event]]:
        """The events of running trials, for at most POLL_S."""
        until = time.monotonic() + POLL_S
        while (left := until - time.monotonic()) > 0:
            with suppress(Empty):
                message: RemoteEvent = pickle.loads(self.arrived.get(timeout=left))
                is_current = message.attempt == self.attempts[message.trial_id]
                if message.trial_id in self.waiting and is_current:
                    yield from self._shown(message)

    def _shown(self, message: RemoteEvent) -> Iterator[tuple[int, Event]]:
        """An event of a running trial, whose epochs are kept here if its worker does not see the folder."""
        trial, event = message.trial_id, message.event
        number, task = self.numbers[trial], self.plugin.tasks[trial]
        done = event.result.epoch if isinstance(event, EpochRecord) else message.epochs_done
        self.watch.runs(message.address, task.trial.name, done)
        if isinstance(event, TrialStarted):
            self.starts[trial] += 1
            self.folders.begin(trial, event)
            event = replace(event, worker=message.worker)
        elif not self.starts[trial]:  # it began under an earlier client
            self.starts[trial] += 1
            started = TrialStarted(
                trial=task.trial,
                epochs=message.epochs,
                steps_per_epoch=message.steps_per_epoch,
                resumed_from=message.epochs_done,
                earlier=(),
                worker=message.worker,
            )
            yield number, started
        if isinstance(event, EpochRecord):
            self.folders.append(trial, event)
        yield number, event

    def _take_ends(self) -> Iterator[tuple[int, Event]]:
        """The ends of trials that have come; those that were lost or refused are submitted again."""
        futures = {future.key: future for future in self.ended.next_batch(block=False)}
        finished = [future for future in futures.values() if future.status == "finished"]
        results = dict(zip([one.key for one in finished], self._gather(finished), strict=True))
        again: list[str] = []
        for trial, future in [(trial, future) for trial, future in self.waiting.items() if future.key in futures]:
            result = results.get(future.key)
            if result is not None and result.record is None and self._has_others(trial, result):
                if self._is_first_refusal(result):
                    yield (
                        self.numbers[trial],
                        ClusterNote(f"a worker refused a trial, which another one gets: {result.refusal}"),
                    )
                self.refusers[trial].add(result.address or "")
                again.append(trial)
                continue
            if result is not None:
                end = self.folders.finish(trial, result)
            elif future.status == "error" and not self._is_innocent(trial, future):
                end = self._failed(trial, future)
            else:  # the scheduler, the voxels, or workers that ran other trials, were lost
                self.losses[trial] += 1
                if self.losses[trial] <= MAX_LOSSES:
                    again.append(trial)
                    continue
                cause = f"the cluster lost it {self.losses[trial]} times"
                end = self.plugin.tasks[trial].failed(cause, keep=False)
            del self.waiting[trial]
            self.watch.leaves(self.plugin.tasks[trial].trial.name)
            self.folders.release(trial)
            yield self.numbers[trial], end
        if again:
            yield from self._submit_again(again)

    def _has_others(self, trial: str, result: RemoteEnd) -> bool:
        """Whether a worker is there that has not refused the trial, which the one at the result's address has."""
        if result.address is None:
            return False
        refusers = self.refusers.setdefault(trial, set())
        with suppress(OSError):
            return bool({*self._fit(trial, self.watch.workers())} - {*refusers, result.address})
        return True  # the scheduler is lost, which is noticed later

    def _is_first_refusal(self, result: RemoteEnd) -> bool:
        """Whether the worker has refused no other trial."""
        return not any(result.address in refusers for refusers in self.refusers.values())

    def _is_innocent(self, trial: str, future: Future[Any]) -> bool:
        """Whether dask gave up a trial because workers died at which it waited, or before which it began less often
        than dask allows.
        """
        error = future.exception()
        return isinstance(error, KilledWorker) and self.starts[trial] <= error.allowed_failures

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

    def _failed(self, trial: str, future: Future[Any]) -> TrialEnded:
        """The end of a trial that dask gave up, or that a worker could not even begin."""
        task, error = self.plugin.tasks[trial], future.exception()
        if isinstance(error, KilledWorker):
            cause = f"its worker died {error.allowed_failures + 1} times (too little memory?)"
            return task.failed(cause, keep=True)
        return task.failed(f"{type(error).__name__}: {error}", keep=False)

    def _submit_again(self, trials: Sequence[str]) -> Iterator[tuple[int, Event]]:
        """Submits trials again, once the scheduler is there."""
        while True:
            if self.client.status == "connecting":
                yield next(iter(self.numbers.values())), ClusterNote(SCHEDULER_LOST)
            while self.client.status == "connecting":
                time.sleep(POLL_S)
            if self.client.status != "running":
                raise DlxError(
                    "the scheduler was lost and did not come back: finished trials are recorded, and the same command, "
                    "once it is there, runs the others"
                )
            with suppress(OSError):  # it was lost once more, or has no worker that takes the voxels
                yield from self._notes(self.watch.workers())
                self._submit(trials)
                return

    def end(self) -> None:
        """Stops what runs and removes all of this study from the cluster; quietly, as the cluster may be gone."""
        self.folders.close()
        if self.client.status != "running":
            return
        with suppress(Exception):
            self.client.unsubscribe_topic(self.name)
        with suppress(Exception):
            self.client.cancel(list(self.waiting.values()), force=True)
        self._remove(self.name)


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(errors="surrogateescape"), digest_size=8).hexdigest()
