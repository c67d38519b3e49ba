"""The training loop: a generator that yields after every step and every epoch; the caller stores, shows or stops."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlx.engine.average import WeightAverage
from dlx.engine.device import Compute
from dlx.engine.evaluate import Evaluator, Measured
from dlx.engine.group import Group
from dlx.engine.randomness import generator, stream_seed
from dlx.engine.step import StepMeasurements, TrainStep
from dlx.models.layers.dropout import set_dropout
from dlx.records.schema import EpochRecord, EpochRun
from dlx.scoring.overlap import dice_from_counts, soft_dice_from_sums, summarize
from dlx.study.results import EpochResult


class Diverged(Exception):  # noqa: N818 - a state of the trial, not an error of the program
    """The loss or a weight is not finite, so training ends."""


@dataclass(frozen=True)
class StepDone:
    """One training step was handed to the device."""

    epoch: int
    step: int  # from 1


@dataclass
class TrialProgress:
    """How far a trial is; kept in its checkpoints."""

    epoch: int = 0
    best_epoch: int | None = None
    best_val_dice: float | None = None
    batches_hash: str = ""


@dataclass
class Job:
    """The live objects of one trial; `dlx.trial.build.make_job` makes them."""

    seed: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    step: TrainStep
    evaluator: Evaluator
    compute: Compute
    epochs: int
    train_cases: Sequence[int]
    val_cases: Sequence[int]
    subset_cases: Sequence[int]
    class_names: tuple[str, ...]
    dropout_p: float | None = 0.0  # None: the network keeps its own rates
    evaluate_every: int = 1
    patience: int | None = None
    average: WeightAverage | None = None
    noise: torch.Generator = field(init=False)
    validated: Measured | None = field(init=False, default=None)  # the validation cases, measured with these weights

    def __post_init__(self) -> None:
        self.take_noise(torch.Generator(self.compute.device))

    def take_noise(self, noise: torch.Generator) -> None:
        """Draws dropout's noise from this generator, to which a captured step is bound."""
        self.noise = noise
        set_dropout(self.model, self.dropout_p, noise)

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is measured: the averaged one if there is an EMA."""
        return self.model if self.average is None else self.average.averaged

    @property
    def ema(self) -> nn.Module | None:
        """The averaged weights; None without an EMA."""
        return None if self.average is None else self.average.averaged

    def is_validated(self, epoch: int) -> bool:
        """Whether the validation cases are measured at the end of the epoch."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    def is_finished(self, progress: TrialProgress) -> bool:
        """Whether this was the last epoch, or patience has run out, which is checked in validated epochs only."""
        if progress.epoch >= self.epochs:
            return True
        if self.patience is None or not self.is_validated(progress.epoch):
            return False
        return progress.epoch - (progress.best_epoch or progress.epoch) >= self.patience


def fit(job: Job, progress: TrialProgress) -> Iterator[StepDone | EpochRecord]:
    """Trains from `progress` to the end, yielding each step and each epoch's record; updates `progress` in place.

    When a record is yielded, model, optimizer, scheduler and `progress` are all at the end of that epoch, so a
    checkpoint taken then resumes exactly. Raises Diverged at the end of an epoch where a loss, or a weight after the
    last step, is not finite.
    """
    while not job.is_finished(progress):
        epoch = progress.epoch + 1
        started = time.perf_counter()
        begin_epoch(job, progress, epoch)
        rates = {str(group["name"]): float(group["lr"]) for group in job.optimizer.param_groups}
        for step in range(job.step.source.num_steps):
            job.step(step)
            yield StepDone(epoch, step + 1)
        measured = job.step.measurements()
        trained = time.perf_counter()
        check_finite(measured, epoch)
        result = EpochResult(
            epoch=epoch,
            lr=rates,
            loss=float(torch.tensor(measured.losses, dtype=torch.float64).mean()),
            train_soft_dice_running=measured.soft_dice,
            levels=measured.levels,
            coins=measured.dropout_samples,
            **(validate(job, epoch) if job.is_validated(epoch) else {}),
        )
        end_epoch(job, progress, result)
        yield EpochRecord(
            result=result, run=EpochRun(train_s=trained - started, evaluate_s=time.perf_counter() - trained)
        )


def begin_epoch(job: Job, progress: TrialProgress, epoch: int) -> None:
    """Seeds the epoch's streams, draws its batches, and adds them to the hash of all batches so far."""
    job.noise.manual_seed(stream_seed(job.seed, "noise", epoch))
    if getattr(job.model, "draws_from_default_generator", False):
        torch.manual_seed(stream_seed(job.seed, "network", epoch))
    job.step.source.begin_epoch(generator(job.seed, "order", epoch))
    if job.step.augmenter is not None:
        draws = generator(job.seed, "augment", epoch)
        job.step.augmenter.begin_epoch(draws, int(torch.randint(2**62, (), generator=draws)))
    job.step.work.begin_epoch()
    digest = hashlib.blake2b(progress.batches_hash.encode(), digest_size=16)
    digest.update(job.step.source.index_bytes())
    progress.batches_hash = digest.hexdigest()
    job.validated = None
    job.model.train()


def end_epoch(job: Job, progress: TrialProgress, result: EpochResult) -> None:
    """Steps the scheduler (after the optimizer's steps, once an epoch) and notes the best validation Dice."""
    if isinstance(job.scheduler, ReduceLROnPlateau):
        if result.val_dice is not None:
            job.scheduler.step(result.val_dice)
    else:
        job.scheduler.step()
    progress.epoch = result.epoch
    if result.val_dice is not None and (progress.best_val_dice is None or result.val_dice > progress.best_val_dice):
        progress.best_epoch, progress.best_val_dice = result.epoch, result.val_dice


def validate(job: Job, epoch: int) -> dict[str, Any]:
    """The Dice fields of an epoch's record: all validation cases, and the fixed subset of the training cases.

    If the epoch may be the last, the predictions are kept, and scoring reuses them.
    """
    if job.step.group is not None:
        return validate_together(job, job.step.group)
    may_end = epoch == job.epochs or job.patience is not None
    measured = job.evaluator.measure(job.evaluated_model, job.val_cases, keep_predictions=may_end)
    job.validated = measured if may_end else None
    subset = job.evaluator.measure(job.evaluated_model, job.subset_cases) if job.subset_cases else None
    return dice_fields(job, measured, subset)


def validate_together(job: Job, group: Group) -> dict[str, Any]:
    """As `validate`: each rank measures its share of the cases, and all know the result. No predictions are kept."""
    measured = measure_together(job, group, job.val_cases)
    return dice_fields(job, measured, measure_together(job, group, job.subset_cases) if job.subset_cases else None)


def measure_together(job: Job, group: Group, cases: Sequence[int]) -> Measured:
    """The measurements of the cases, of which each rank makes those of every `size`-th one."""
    rows = slice(group.ranks.rank, None, group.ranks.size)
    own = job.evaluator.measure(job.evaluated_model, cases[rows]) if cases[rows] else None
    num_classes = len(job.class_names)
    counts = torch.zeros(len(cases), 3, num_classes, dtype=torch.int64)
    soft = torch.zeros(len(cases), 3, num_classes) if job.evaluator.with_soft_dice else None
    if own is not None:
        counts[rows] = own.counts
        if soft is not None and own.soft is not None:
            soft[rows] = own.soft
    return Measured(group.total(counts), None if soft is None else group.total(soft))


def dice_fields(job: Job, measured: Measured, subset: Measured | None) -> dict[str, Any]:
    """The Dice fields of an epoch's record, of the validation cases and the subset of the training cases."""
    summary = summarize(dice_from_counts(measured.counts))
    scores: dict[str, Any] = {
        "val_dice": summary.mean,
        "val_dice_per_class": dict(zip(job.class_names[1:], summary.per_class[1:], strict=True)),
    }
    if measured.soft is not None:
        scores["val_soft_dice"] = summarize(soft_dice_from_sums(measured.soft)).mean
    if subset is not None:
        scores["train_dice_subset"] = summarize(dice_from_counts(subset.counts)).mean
    return scores


def check_finite(measured: StepMeasurements, epoch: int) -> None:
    """Raises Diverged if a loss is not finite, naming the first such step, or if a weight is not after the last one."""
    for step, loss in enumerate(measured.losses, start=1):
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} in epoch {epoch}, step {step}")
    if not measured.are_weights_finite:
        raise Diverged(f"the weights became not finite in epoch {epoch}")
