"""Runs one trial and writes its records; a trial that is done is not run again."""

import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from dlx.data.batches.voxels import VoxelStore
from dlx.engine import checkpoint
from dlx.engine.capture import Captured, Eager
from dlx.engine.device import describe_device, prepare_backend
from dlx.engine.fit import Diverged, Job, StepDone, TrialProgress, fit
from dlx.engine.group import Group, is_of_peer
from dlx.engine.pictures import take_pictures
from dlx.engine.score import score_trial
from dlx.execution.trials import provenance
from dlx.execution.trials.process_cache import ProcessCache
from dlx.execution.trials.stores import Stores
from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord, TrialRecord, TrialRun
from dlx.settings.own.code import line_of
from dlx.study.results import TrialResult
from dlx.study.study import Trial
from dlx.system.characters import encodable
from dlx.system.errors import DataError, DlxError, spell_error
from dlx.system.files import write_atomically
from dlx.system.interrupts import raise_if_stopped
from dlx.trial.resolve import Resolved

CUDA_ERRORS = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS")  # prefixes of torch's messages


@dataclass(frozen=True)
class Task:
    """A resolved trial to run, its folder, and how to run it. Its voxels are in the stores of its plan."""

    trial: Trial
    resolved: Resolved
    folder: TrialFolder
    fresh: bool = False
    retry_failed: bool = False
    has_pictures: bool = True  # whether slices of some validation cases are recorded

    @cached_property
    def trial_id(self) -> str:
        return self.resolved.trial_id(self.trial.seed)

    @property
    def settings(self) -> dict[str, Any]:
        return self.resolved.settings(self.trial.seed)

    def failed(self, cause: str, *, keep: bool) -> "TrialEnded":
        """A failed end of this task's trial; with `keep` the record is written, so that the trial is not run again."""
        record = make_record(self, TrialOutcome("failed", cause))
        if keep:
            self.folder.finish(record)
        return TrialEnded(record, self.folder.path, was_done=False)

    def on(self, device: torch.device) -> "Task":
        """The same task on another device of its kind."""
        compute = replace(self.resolved.compute, device=device)
        return replace(self, resolved=replace(self.resolved, compute=compute))


@dataclass(frozen=True)
class TrialStarted:
    """A trial starts, or resumes after `resumed_from` epochs, whose records are `earlier`."""

    trial: Trial
    epochs: int
    steps_per_epoch: int
    resumed_from: int
    earlier: tuple[EpochRecord, ...]
    remark: str | None = None
    worker: str | None = None  # the name of the cluster's worker that runs it


@dataclass(frozen=True)
class CaptureFailed:
    """Steps cannot be captured and run one operation at a time; `obstacle` names the operation that prevents it."""

    obstacle: str


@dataclass(frozen=True)
class ClusterNote:
    """What the user should know of the cluster that runs the trials, such as that it has no worker left."""

    text: str


@dataclass(frozen=True)
class Scoring:
    """Training is over; all training and validation cases are being scored."""


@dataclass(frozen=True)
class TrialEnded:
    """A trial ended with this record; `was_done` if the record was found and the trial did not run."""

    record: TrialRecord
    folder: Path
    was_done: bool


Event = TrialStarted | StepDone | CaptureFailed | ClusterNote | EpochRecord | Scoring | TrialEnded


@dataclass
class TrialOutcome:
    """How a trial ended, and what is known of its run."""

    status: Literal["done", "diverged", "failed"] = "done"
    cause: str | None = None
    result: TrialResult | None = None
    scored_s: float = 0.0
    work: Eager | Captured | None = None
    started_utc: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@contextmanager
def prepared(task: Task, stores: Stores, cache: ProcessCache) -> Iterator[VoxelStore]:
    """Prepares the device and yields the task's voxels on it; within, the task's folder is locked for this process."""
    prepare_backend(task.resolved.compute)  # first: other calls would take memory of the first device
    store = cache.store(task.resolved, stores)
    with task.folder.locked():
        if task.fresh:
            task.folder.clear()
        yield store


def run_trial(task: Task, store: VoxelStore, cache: ProcessCache) -> Iterator[Event]:
    """Runs one trial, from its checkpoint if there is one, and yields its events; the last one is TrialEnded.

    Divergence, and errors such as too little memory, end in a record with the cause and are not raised. DlxError and
    OSError (a damaged checkpoint, a full disk) are raised. `cache` keeps captured steps for later trials.
    """
    found = task.folder.result()
    if found is not None and (found.status == "done" or not task.retry_failed):
        yield TrialEnded(found, task.folder.path, was_done=True)
        return
    torch.set_num_threads(task.resolved.compute.threads)
    outcome = TrialOutcome()
    try:
        job = cache.make_job(task.resolved, store, task.trial.seed)
        outcome.work = job.step.work
        yield from _train_and_score(task, job, outcome, cache.group)
        cache.keep(task.resolved, job)
    except Diverged as error:
        outcome.status, outcome.cause = "diverged", str(error)
        cache.keep(task.resolved, job)
    except (DlxError, OSError):  # the user can fix these; they are not failures of the trial
        raise
    except Exception as error:
        raise_if_stopped()  # the trial did not fail: a signal interrupted native code
        if cache.group is not None and is_of_peer(error):
            raise
        outcome.status, outcome.cause = "failed", _cause(error, task)
        write_atomically(task.folder.error, traceback.format_exc().encode("utf-8", "backslashreplace"))
    record = make_record(task, outcome)
    task.folder.finish(record)
    yield TrialEnded(record, task.folder.path, was_done=False)


def _cause(error: Exception, task: Task) -> str:
    """The error, and the line of the user's own network in which it arose, if it did."""
    line = None if task.resolved.code is None else line_of(error, task.resolved.code)
    return spell_error(error) + (f" ({line})" if line else "")


def _train_and_score(task: Task, job: Job, outcome: TrialOutcome, group: Group | None) -> Iterator[Event]:
    """Trains a trial from its checkpoint to its end and sets the outcome's result."""
    history = _resume(task, job, group)
    if not history.records:
        task.folder.clear()
        task.folder.begin(task.settings)
    yield TrialStarted(
        trial=task.trial,
        epochs=job.epochs,
        steps_per_epoch=job.step.source.num_steps,
        resumed_from=history.progress.epoch,
        earlier=tuple(history.records),
        remark=history.remark,
    )
    yield from _train_and_record(task, job, history)
    yield Scoring()
    started = time.perf_counter()
    outcome.result = _score(task, job, history.progress)
    outcome.scored_s = time.perf_counter() - started


def make_record(task: Task, outcome: TrialOutcome) -> TrialRecord:
    """The record of a trial that ended; its seconds are the sum over all epochs on disk and scoring."""
    resolved, work = task.resolved, outcome.work
    return TrialRecord(
        trial=task.trial_id,
        label=task.trial.label,
        seed=task.trial.seed,
        status=outcome.status,
        cause=None if outcome.cause is None else encodable(outcome.cause),
        parameters=resolved.parameters,
        result=outcome.result,
        run=TrialRun(
            seconds=outcome.scored_s + _seconds(task.folder),
            started_utc=outcome.started_utc,
            host=platform.node(),
            device=describe_device(resolved.compute.device),
            versions=provenance.versions(),
            commit=provenance.commit(),
            num_ranks=resolved.spec.compute.num_ranks if resolved.spec.compute.num_ranks > 1 else None,
            is_captured=work.obstacle is None if isinstance(work, Captured) else None,
            capture_obstacle=work.obstacle if isinstance(work, Captured) else None,
        ),
        settings=task.settings,
    )


def _seconds(folder: TrialFolder) -> float:
    """The seconds of all epochs on disk; 0 if their records are damaged, so that the trial's end is still recorded."""
    try:
        return sum(line.run.train_s + line.run.evaluate_s for line in folder.epochs())
    except DataError:
        return 0.0


def leaves_process_unusable(record: TrialRecord) -> bool:
    """True if a trial failed with a CUDA error such as an illegal access or a failed assertion, after which every call
    on the device fails in this process. Too little memory is not such an error.
    """
    cause = record.cause or ""
    return record.status == "failed" and any(words in cause for words in CUDA_ERRORS)


@dataclass
class History:
    """How far a trial is, the records of its epochs, and a remark for the user on how it resumes."""

    progress: TrialProgress
    records: list[EpochRecord]
    remark: str | None = None


def _resume(task: Task, job: Job, group: Group | None) -> History:
    """Loads the folder's checkpoint into the job and makes the records on disk agree with it; tells other ranks.

    Raises DataError, which says how to start over, if the checkpoint cannot be used.
    """
    path = task.folder.last
    if not path.exists():
        if task.resolved.continued is not None:
            raise DataError(
                f"{path}: missing, and without it the trial cannot continue an earlier one: repeat the command that "
                "trains that one longer (dlx train --resume RUN --epochs N)"
            )
        had_begun = task.folder.has_epochs()
        remark = "the checkpoint is missing: the trial starts over" if had_begun else None
        if group is not None:
            group.broadcast(None)
        return History(TrialProgress(), [], remark)
    try:
        saved = checkpoint.read(path)
        if saved.header.get("trial") != task.trial_id:
            raise DataError(f"{path}: is the checkpoint of another trial ({saved.header.get('trial')})")
        checkpoint.restore(saved, job)
        progress = TrialProgress(**saved.header["progress"])
        records = [EpochRecord.model_validate(line) for line in saved.header["epochs"]]
    except (DataError, KeyError, TypeError, ValidationError) as error:
        cause = str(error) if isinstance(error, DataError) else f"{path}: not a readable checkpoint"
        raise DataError(f"{cause}; --fresh starts this trial over") from None
    task.folder.restore(records)
    if group is not None:
        group.broadcast(saved)
    return History(progress, records)


def _train_and_record(task: Task, job: Job, history: History) -> Iterator[StepDone | CaptureFailed | EpochRecord]:
    """Yields the events of `fit`; writes each epoch's record before yielding it, and checkpoints during training."""
    has_reported = False
    folder, progress = task.folder, history.progress
    writer, buffers = checkpoint.CheckpointWriter(), checkpoint.HostBuffers()
    try:
        for event in fit(job, progress):
            obstacle = job.step.work.obstacle
            if obstacle is not None and not has_reported:
                has_reported = True
                yield CaptureFailed(obstacle)
            if isinstance(event, EpochRecord):
                writer.wait()  # the previous checkpoint is on disk: a kill from here on loses only this epoch
                folder.append(event)
                history.records.append(event)
                header = {
                    "trial": task.trial_id,
                    "progress": asdict(progress),
                    "epochs": [record.model_dump(mode="json") for record in history.records],
                    "settings": task.settings,
                    "label_values": list(task.resolved.dataset.label_values),
                    "windows": [window and window.model_dump() for window in task.resolved.windows],
                    "grid": grid.model_dump(mode="json") if (grid := task.resolved.dataset.grid) else None,
                    "ignored_value": task.resolved.dataset.ignored_value,
                    "regions": [list(region) for region in task.resolved.dataset.regions],
                    "region_order": list(task.resolved.dataset.region_order),
                }
                saved = checkpoint.snapshot(job, header, buffers)
                is_best = progress.best_epoch == progress.epoch
                # `best` first: a kill between the two loses this epoch, but `best` is never older than `last` says
                writer.submit(saved, folder.last, also=folder.best if is_best else None)
            yield event
    finally:
        writer.close()


def _score(task: Task, job: Job, progress: TrialProgress) -> TrialResult:
    train, val = score_trial(job, task.resolved.spec.evaluate.surface_tolerance_mm)
    if task.has_pictures:
        task.folder.write_pictures(take_pictures(job, val, task.resolved.dataset.label_names))
    return TrialResult(
        epochs=progress.epoch,
        train=train,
        val=val,
        best_epoch=progress.best_epoch,
        best_val_dice=progress.best_val_dice,
        weights_hash=checkpoint.weights_hash(job.evaluated_model),
        batches_hash=progress.batches_hash,
        distance_unit=task.resolved.dataset.distance_unit,
        label_values=task.resolved.dataset.values_of_classes(),
    )
