"""Dice and learning rates over epochs as figures show them: a mean with its spread, or single runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.report.wording.verdicts import spell_collapse
from dlx.settings.text import counted
from dlx.statistics.claims import Estimate
from dlx.study.metrics import MIN_POINTS, epoch_value
from dlx.study.results import EpochResult
from dlx.study.run_id import RunId

MAX_POINTS_WITHOUT_CURVE = 2
CURVES = {"val_dice": "val_dice", "train_dice": "train_dice_subset"}  # metric of a trial -> of an epoch
MAX_POINTS_WITH_MARKERS = 60
FEW_POINTS = 12

Curve = Mapping[int, float]  # epoch -> value, of the epochs that measured it


@dataclass(frozen=True)
class VariantCurves:
    """One metric of a variant over epochs.

    `mean` has an estimate over the runs that ended for each epoch; it is empty if runs collapsed, as no mean describes
    both kinds. `alone` are the curves of the other runs, and `broken` those of them that diverged or failed.
    """

    mean: Mapping[int, Estimate]
    num_together: int
    alone: Mapping[RunId, Curve]
    broken: frozenset[RunId]


def curves_of(variant: VariantSummary, metric: str) -> VariantCurves:
    """The curves of a metric in CURVES."""
    together = [] if variant.collapse else ended_runs(variant)
    curves = {run: epoch_curve(epochs, CURVES[metric]) for run, epochs in variant.epochs.items()}
    joint = [curves[run] for run in together if curves[run]]
    alone = {run: curve for run, curve in curves.items() if run not in together and curve}
    broken = frozenset(run for run in alone if variant.by_run["val_dice"].get(run, 0.0) is None)
    return VariantCurves(mean_curve(joint), len(joint), alone, broken)


def epoch_curve(epochs: Sequence[EpochResult], metric: str) -> Curve:
    """Epoch -> value, of the epochs that measured the metric."""
    return {epoch.epoch: value for epoch in epochs if (value := epoch_value(epoch, metric)) is not None}


def mean_curve(curves: Sequence[Curve]) -> dict[int, Estimate]:
    """For each epoch that some curve has, the estimate over the curves that have it."""
    epochs = sorted({epoch for curve in curves for epoch in curve})
    return {epoch: Estimate(tuple(curve[epoch] for curve in curves if epoch in curve)) for epoch in epochs}


def has_markers(epochs: Sequence[int]) -> bool:
    """Whether each measured epoch gets a point, as they are few: the line between them is no measurement."""
    if not epochs:
        return False
    is_sparse = len(epochs) <= FEW_POINTS or epochs[-1] - epochs[0] + 1 >= 2 * len(epochs)
    return is_sparse and len(epochs) <= MAX_POINTS_WITH_MARKERS


def ended_runs(variant: VariantSummary) -> list[RunId]:
    """The runs that ended with a validation Dice."""
    return [run for run, value in variant.by_run["val_dice"].items() if value is not None]


def spell_runs_shown(variant: VariantSummary) -> str:
    """How many runs the curves of a variant show, or how they collapsed."""
    num_ended, num_begun = len(ended_runs(variant)), sum(bool(epochs) for epochs in variant.epochs.values())
    if variant.collapse:
        return spell_collapse(variant.collapse)
    return f"n = {num_ended}" + (f", {num_begun - num_ended} unfinished" if num_begun > num_ended else "")


def has_curves(summary: Summary) -> bool:
    """Whether some trial was validated three times or more, or trials are still to end: two points are no curve."""
    return summary.num_done < len(summary.header.trials) or _most_points(summary) > MAX_POINTS_WITHOUT_CURVE


def few_points(summary: Summary) -> str:
    """Why there are no curves, if the study validated too rarely; else empty."""
    most = _most_points(summary)
    if summary.header.epochs <= MAX_POINTS_WITHOUT_CURVE:
        return f"{counted(summary.header.epochs, 'epoch')}: too few for a curve"
    if most >= min(MIN_POINTS, summary.header.epochs):
        return ""
    every = max(1, summary.header.epochs // MIN_POINTS)
    how_often = "once, after the last epoch" if most == 1 else f"{most} times"
    return f"validated {how_often}: evaluate.every={every} gives a curve"


def _most_points(summary: Summary) -> int:
    """How often at most a finished trial was validated; enough for curves if none has finished."""
    ended = [v.epochs[seed] for v in summary.variants for seed, record in v.records.items() if record.status == "done"]
    return max((sum(epoch.val_dice is not None for epoch in epochs) for epochs in ended), default=MIN_POINTS)
