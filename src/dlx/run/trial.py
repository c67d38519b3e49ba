"""Runs one trial and writes its records; a trial that is done is not run again."""

import platform
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from dlx.data.batches.voxels import VoxelStore
from dlx.engine import checkpoint
from dlx.engine.capture import Captured, Eager
from dlx.engine.device import describe_device
from dlx.engine.fit import Diverged, Job, StepDone, TrialProgress, fit
from dlx.engine.score import score_trial
from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord, TrialRecord, TrialRun
from dlx.run import provenance
from dlx.run.process_cache import JobPool
from dlx.study.results import TrialResult
from dlx.study.study import Trial
from dlx.system.characters import encodable
from dlx.system.errors import DataError, DlxError
from dlx.system.files import write_atomically
from dlx.trial.resolve import Resolved

CUDA_ERRORS = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS")  # prefixes of torch's messages


@dataclass(frozen=True)
class TrialStarted:
    """A trial starts, or resumes after `resumed_from` epochs, whose records are `earlier`."""

    trial: Trial
    parameters: int
    epochs: int
    steps_per_epoch: int
    folder: Path
    resumed_from: int
    earlier: tuple[EpochRecord, ...]
    remark: str | None = None


@dataclass(frozen=True)
class CaptureFailed:
    """Steps cannot be captured and run one operation at a time; `obstacle` names the operation that prevents it."""

    obstacle: str


@dataclass(frozen=True)
class Scoring:
    """Training is over; all training and validation cases are being scored."""

    trial: Trial


@dataclass(frozen=True)
class TrialEnded:
    """A trial ended with this record; `was_done` if the record was found and the trial did not run."""

    record: TrialRecord
    folder: Path
    was_done: bool


Event = TrialStarted | StepDone | CaptureFailed | EpochRecord | Scoring | TrialEnded


def run_trial(
    trial: Trial,
    resolved: Resolved,
    store: VoxelStore,
    folder: TrialFolder,
    *,
    retry_failed: bool = False,
    jobs: JobPool,
) -> Iterator[Event]:
    """Runs one trial, from its checkpoint if there is one, and yields its events; the last one is TrialEnded.

    Divergence, and errors such as too little memory, end in a record with the cause and are not raised. DlxError and
    OSError (a damaged checkpoint, a full disk) are raised. `jobs` keeps captured steps for later trials.
    """
    found = folder.result()
    if found is not None and (found.status == "done" or not retry_failed):
        yield TrialEnded(found, folder.path, was_done=True)
        return
    torch.set_num_threads(resolved.compute.threads)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    scored_s, status, cause, result = 0.0, "done", None, None
    work: Eager | Captured | None = None
    try:
        job = jobs.make(resolved, store, trial.seed)
        work = job.step.work
        progress, history = _resume(job, folder, resolved.trial_id(trial.seed))
        if not history.records:
            folder.clear()
            folder.begin(resolved.settings(trial.seed))
        yield TrialStarted(
            trial=trial,
            parameters=resolved.parameters,
            epochs=job.epochs,
            steps_per_epoch=job.step.source.num_steps,
            folder=folder.path,
            resumed_from=progress.epoch,
            earlier=tuple(history.records),
            remark=history.remark,
        )
        yield from _train_and_record(job, progress, history, resolved, trial, folder)
        yield Scoring(trial)
        scoring = time.perf_counter()
        result = _score(job, progress, resolved)
        scored_s = time.perf_counter() - scoring
        jobs.keep(resolved, job)
    except Diverged as error:
        status, cause = "diverged", str(error)
        jobs.keep(resolved, job)
    except (DlxError, OSError):  # the user can fix these; they are not failures of the trial
        raise
    except Exception as error:  # noqa: BLE001 - recorded, so that the other trials can run
        message = str(error).splitlines()[0] if str(error) else "no message"
        status, cause = "failed", f"{type(error).__name__}: {message}"
        write_atomically(folder.error, traceback.format_exc().encode("utf-8", "backslashreplace"))
    record = make_record(trial, resolved, folder, status, cause, result, started, scored_s, work)
    folder.finish(record)
    yield TrialEnded(record, folder.path, was_done=False)


def make_record(
    trial: Trial,
    resolved: Resolved,
    folder: TrialFolder,
    status: str,
    cause: str | None,
    result: TrialResult | None = None,
    started_utc: str = "",
    scored_s: float = 0.0,
    work: Eager | Captured | None = None,
) -> TrialRecord:
    """The record of a trial that ended; its seconds are the sum over all epochs on disk and scoring."""
    return TrialRecord(
        trial=resolved.trial_id(trial.seed),
        label=trial.label,
        seed=trial.seed,
        status=_status(status),
        cause=None if cause is None else encodable(cause),
        parameters=resolved.parameters,
        result=result,
        run=TrialRun(
            seconds=scored_s + _seconds(folder),
            started_utc=started_utc or datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            device=describe_device(resolved.compute.device),
            versions=provenance.versions(),
            commit=provenance.commit(),
            is_captured=work.obstacle is None if isinstance(work, Captured) else None,
            capture_obstacle=work.obstacle if isinstance(work, Captured) else None,
        ),
        settings=resolved.settings(trial.seed),
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


def _status(text: str) -> Literal["done", "diverged", "failed"]:
    assert text in ("done", "diverged", "failed")
    return text  # type: ignore[return-value]


@dataclass
class History:
    """The epochs of a trial's checkpoint, and a remark for the user on how the trial resumes."""

    records: list[EpochRecord]
    remark: str | None = None


def _resume(job: Job, folder: TrialFolder, trial_id: str) -> tuple[TrialProgress, History]:
    """Loads the folder's checkpoint into the job and makes the records on disk agree with it.

    Raises DataError, which says how to start over, if the checkpoint cannot be used.
    """
    if not folder.last.exists():
        had_begun = folder.has_epochs()
        return TrialProgress(), History([], "the checkpoint is missing: the trial starts over" if had_begun else None)
    try:
        saved = checkpoint.read(folder.last)
        if saved.header.get("trial") != trial_id:
            raise DataError(f"{folder.last}: is the checkpoint of another trial ({saved.header.get('trial')})")
        checkpoint.restore(saved, job)
        progress = TrialProgress(**saved.header["progress"])
        records = [EpochRecord.model_validate(line) for line in saved.header["epochs"]]
    except (DataError, KeyError, TypeError, ValidationError) as error:
        cause = str(error) if isinstance(error, DataError) else f"{folder.last}: not a readable checkpoint"
        raise DataError(f"{cause}; --fresh starts this trial over") from None
    folder.restore(records)
    return progress, History(records)


def _train_and_record(
    job: Job, progress: TrialProgress, history: History, resolved: Resolved, trial: Trial, folder: TrialFolder
) -> Iterator[StepDone | CaptureFailed | EpochRecord]:
    """Yields the events of `fit`; writes each epoch's record before yielding it, and checkpoints during training."""
    has_reported = False
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
                    "trial": resolved.trial_id(trial.seed),
                    "progress": asdict(progress),
                    "epochs": [record.model_dump(mode="json") for record in history.records],
                    "settings": resolved.settings(trial.seed),
                    "label_values": list(resolved.dataset.label_values),
                }
                saved = checkpoint.snapshot(job, header, buffers)
                is_best = progress.best_epoch == progress.epoch
                # `best` first: a kill between the two loses this epoch, but `best` is never older than `last` says
                writer.submit(saved, folder.last, also=folder.best if is_best else None)
            yield event
    finally:
        writer.close()


def _score(job: Job, progress: TrialProgress, resolved: Resolved) -> TrialResult:
    train, val = score_trial(job, resolved.spec.evaluate.surface_tolerance_mm)
    return TrialResult(
        epochs=progress.epoch,
        train=train,
        val=val,
        best_epoch=progress.best_epoch,
        best_val_dice=progress.best_val_dice,
        weights_hash=checkpoint.weights_hash(job.evaluated_model),
        batches_hash=progress.batches_hash,
        distance_unit=resolved.dataset.distance_unit,
    )
