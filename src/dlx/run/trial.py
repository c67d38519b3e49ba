"""Runs trials one after the other and stores what they yield; a trial that is done already is not run again."""

import platform
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from dlx.build import Resolved, make_job
from dlx.data.voxels import VoxelStore
from dlx.engine import checkpoint
from dlx.engine.device import describe_device
from dlx.engine.fit import Diverged, Job, Progress, StepDone, fit
from dlx.engine.score import score_trial
from dlx.errors import DataError
from dlx.records import EpochRecord, TrialRecord, TrialResult, TrialRun
from dlx.run import provenance
from dlx.store import TrialFolder
from dlx.studies import Trial


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins, or goes on after `resumed_from` epochs (whose records are `earlier`)."""

    trial: Trial
    parameters: int
    epochs: int
    steps_per_epoch: int
    folder: Path
    resumed_from: int
    earlier: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class Scoring:
    """Training is over; all training and validation cases are being scored."""

    trial: Trial


@dataclass(frozen=True)
class TrialEnded:
    """A trial's record; `was_done` where it was found and not run."""

    record: TrialRecord
    folder: Path
    was_done: bool


Event = TrialStarted | StepDone | EpochRecord | Scoring | TrialEnded


def make_store(resolved: Resolved) -> tuple[VoxelStore, str | None]:
    """The voxels of the split's cases, on the training device where they fit; else on the host, and a remark."""
    wanted = {*resolved.split.train, *resolved.split.val}
    cases = [case for case in resolved.dataset.cases if case.id in wanted]
    device = resolved.compute.device
    if device.type == "cuda":
        needed = sum(case.image.nbytes + case.mask.nbytes for case in cases)
        free, _ = torch.cuda.mem_get_info(device)
        if needed > free // 2:
            remark = f"the voxels ({needed >> 20} MiB) stay in host memory: {free >> 20} MiB are free on {device}"
            return VoxelStore(cases, torch.device("cpu")), remark
    return VoxelStore(cases, device), None


def trial_folder(study_folder: Path, trial: Trial, resolved: Resolved) -> TrialFolder:
    """Where a trial's records lie: found by its id."""
    return TrialFolder(study_folder, trial.label, trial.seed, resolved.trial_id(trial.seed))


def run_trial(
    trial: Trial, resolved: Resolved, store: VoxelStore, folder: TrialFolder, *, retry_failed: bool = False
) -> Iterator[Event]:
    """Runs one trial, from its checkpoint where it has one, and yields what happens; its last event is TrialEnded.

    Divergence, and errors of torch such as too little memory, end in a record with the cause; they are not raised.
    """
    found = folder.result()
    if found is not None and (found.status == "done" or not retry_failed):
        yield TrialEnded(found, folder.path, was_done=True)
        return
    torch.set_num_threads(resolved.compute.threads)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    seconds, status, cause, result = 0.0, "done", None, None
    try:
        job = make_job(resolved, store, trial.seed)
        progress, records = _resume(job, folder, resolved.trial_id(trial.seed))
        if not records:
            folder.clear()
            folder.begin(resolved.settings(trial.seed))
        yield TrialStarted(
            trial=trial,
            parameters=resolved.parameters,
            epochs=job.epochs,
            steps_per_epoch=job.step.source.num_steps,
            folder=folder.path,
            resumed_from=progress.epoch,
            earlier=tuple(records),
        )
        for event in _train_and_store(job, progress, resolved, trial, folder):
            if isinstance(event, EpochRecord):
                records.append(event)
            yield event
        yield Scoring(trial)
        scoring = time.perf_counter()
        result = _score(job, progress, resolved)
        seconds = time.perf_counter() - scoring
    except Diverged as error:
        status, cause = "diverged", str(error)
        records = folder.epochs()
    except (RuntimeError, MemoryError) as error:
        status, cause = (
            "failed",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
        )
        (folder.path / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        records = folder.epochs()
    record = TrialRecord(
        trial=resolved.trial_id(trial.seed),
        label=trial.label,
        seed=trial.seed,
        status=_status(status),
        cause=cause,
        parameters=resolved.parameters,
        result=result,
        run=TrialRun(
            seconds=seconds + sum(line.run.train_s + line.run.evaluate_s for line in records),
            started_utc=started,
            host=platform.node(),
            device=describe_device(resolved.compute.device),
            versions=provenance.versions(),
            commit=provenance.commit(),
        ),
        settings=resolved.settings(trial.seed),
    )
    folder.finish(record)
    yield TrialEnded(record, folder.path, was_done=False)


def _status(text: str) -> Literal["done", "diverged", "failed"]:
    assert text in ("done", "diverged", "failed")
    return text  # type: ignore[return-value]


def _resume(job: Job, folder: TrialFolder, trial_id: str) -> tuple[Progress, list[EpochRecord]]:
    """The progress of the folder's checkpoint, put into the job, and the records up to it."""
    if not folder.last.exists():
        return Progress(), []
    saved = checkpoint.read(folder.last)
    if saved.header.get("trial") != trial_id:
        raise DataError(f"{folder.last}: is the checkpoint of another trial ({saved.header.get('trial')})")
    checkpoint.restore(saved, job.model, job.ema, job.optimizer, job.scheduler)
    progress = Progress(**saved.header["progress"])
    return progress, folder.trim(progress.epoch)


def _train_and_store(
    job: Job, progress: Progress, resolved: Resolved, trial: Trial, folder: TrialFolder
) -> Iterator[StepDone | EpochRecord]:
    """What `fit` yields, each epoch's record on disk before it is passed on, its checkpoint written beside training."""
    writer = checkpoint.CheckpointWriter()
    try:
        for event in fit(job, progress):
            if isinstance(event, EpochRecord):
                folder.append(event)
                header = {
                    "trial": resolved.trial_id(trial.seed),
                    "progress": asdict(progress),
                    "settings": resolved.settings(trial.seed),
                    "label_values": list(resolved.dataset.label_values),
                }
                saved = checkpoint.snapshot(job.model, job.ema, job.optimizer, job.scheduler, header)
                is_best = progress.best_epoch == progress.epoch
                writer.submit(saved, folder.last, *([folder.best] if is_best else []))
            yield event
    finally:
        writer.close()


def _score(job: Job, progress: Progress, resolved: Resolved) -> TrialResult:
    train, val = score_trial(job, resolved.spec.evaluate.surface_tolerance_mm)
    return TrialResult(
        epochs=progress.epoch,
        train=train,
        val=val,
        best_epoch=progress.best_epoch,
        best_val_dice=progress.best_val_dice,
        weights_hash=checkpoint.weights_hash(job.evaluated_model),
        batches_hash=progress.batches_hash,
    )
