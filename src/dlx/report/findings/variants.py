"""One variant of a study, put together from the records of its trials."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from dlx.records.archive import TrialHistory
from dlx.records.schema import StudyHeader, TrialRecord, VariantEntry
from dlx.settings.spec import EvaluateSpec
from dlx.statistics.claims import Estimate
from dlx.statistics.collapse import Collapse, find_collapse
from dlx.statistics.comparison import Comparison
from dlx.study.metrics import TRIAL_METRICS, split_metric, trial_value, why_unmeasured
from dlx.study.results import EpochResult
from dlx.study.run_id import RunId, spell_run

Placed = Mapping[str, Mapping[RunId, TrialHistory]]  # label -> run -> what is known of the trial


@dataclass(frozen=True)
class VariantSummary:
    """One variant: its metrics over runs, and its comparison with the control (None for the control itself)."""

    label: str
    values: dict[str, Any]
    is_control: bool
    by_run: dict[str, dict[RunId, float | None]] = field(repr=False)  # metric -> run -> value; None: diverged
    collapse: Collapse = field(repr=False)  # the runs that collapsed where others did not: no mean describes both
    epochs: dict[RunId, tuple[EpochResult, ...]] = field(repr=False)  # run -> its epochs so far
    records: dict[RunId, TrialRecord] = field(repr=False)  # run -> its record, where the trial has ended
    comparison: Comparison | None = None
    warnings: tuple[str, ...] = ()  # what a reader must know before the scores

    @property
    def name(self) -> str:
        """The label, and whether it is the control."""
        return self.label + " (control)" * self.is_control

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By metric, over the runs that have it."""
        return {metric: Estimate.of(values.values()) for metric, values in self.by_run.items()}

    @property
    def case_sd(self) -> float | None:
        """Standard deviation over the validation cases of their mean Dice, averaged over runs first."""
        by_case: dict[str, list[float]] = {}
        for record in self.records.values():
            for case, scores in (record.result.val.cases if record.result else {}).items():
                known = [value for value in scores.dice.values() if value is not None]
                if known:
                    by_case.setdefault(case, []).append(mean(known))
        means = [mean(values) for values in by_case.values()]
        return stdev(means) if len(means) > 1 else None

    @property
    def unfinished(self) -> tuple[str, ...]:
        """`seed 3: diverged (cause)` for each trial that did not finish."""
        bad = [(run, record) for run, record in self.records.items() if record.status != "done"]
        return tuple(f"{spell_run(run)}: {record.status} ({record.cause})" for run, record in bad)

    def lacks(self, metric: str, window: tuple[int, int] | None = None) -> str | None:
        """Why finished trials lack this metric; None if all have it."""
        for run, record in self.records.items():
            if record.result is None or (window is None and run in self.by_run.get(metric, ())):
                continue
            evaluate = EvaluateSpec.model_construct(**record.settings.get("evaluate", {}))  # checked when it ran
            lack = why_unmeasured(metric, evaluate, record.result.epochs, window)
            if lack is not None:
                return lack[0]
            if window is None and metric in self.by_run:
                return f"{spell_run(run)} has none: a class is missing there"
        return None


def place(trials: Iterable[TrialHistory], header: StudyHeader) -> dict[str, dict[RunId, TrialHistory]]:
    """Trials by variant and run."""
    placed: dict[str, dict[RunId, TrialHistory]] = {variant.label: {} for variant in header.variants}
    for trial in sorted(trials, key=lambda trial: (trial.entry.fold or 0, trial.entry.seed)):
        placed[trial.entry.label][trial.entry.run] = trial
    return placed


def describe_variant(entry: VariantEntry, placed: Placed, header: StudyHeader) -> VariantSummary:
    """A variant before it is compared with the control and checked."""
    trials = placed[entry.label]
    asked = (header.metric, *(claim["metric"] for claim in header.claims))
    of_classes = [metric for metric in asked if split_metric(metric)[1] is not None]
    by_run = {metric: _by_run(trials, metric) for metric in (*TRIAL_METRICS, *of_classes)}
    control = trials if header.control is None else placed[header.control]
    return VariantSummary(
        label=entry.label,
        values=entry.values,
        is_control=entry.label == header.control,
        by_run=by_run,
        collapse=find_collapse(
            by_run["val_dice"],
            _by_run(control, "val_dice"),
            header.runs,
            classes=dice_of_classes({run: trial.record for run, trial in trials.items()}),
            control_classes=dice_of_classes({run: trial.record for run, trial in control.items()}),
        ),
        epochs={run: tuple(epoch.result for epoch in trial.epochs) for run, trial in trials.items()},
        records={run: trial.record for run, trial in trials.items() if trial.record is not None},
    )


def _by_run(trials: Mapping[RunId, TrialHistory], metric: str) -> dict[RunId, float | None]:
    """Run -> value of the trials that ended, without those that failed or did not measure the metric."""
    values: dict[RunId, float | None] = {}
    for run, trial in trials.items():
        if trial.record is None:
            continue
        value = trial_value(trial.record.result, metric, [epoch.result for epoch in trial.epochs])
        if value is not None or trial.record.status == "diverged":
            values[run] = value
    return values


def dice_of_classes(records: Mapping[RunId, TrialRecord | None]) -> dict[str, dict[RunId, float | None]]:
    """Class -> run -> validation Dice, of the finished trials."""
    found: dict[str, dict[RunId, float | None]] = {}
    for run, record in records.items():
        if record is not None and record.result is not None:
            for name, dice in record.result.val.dice_per_class.items():
                found.setdefault(name, {})[run] = dice
    return found


def on_one_device(variants: Iterable[VariantSummary], runs: Iterable[RunId]) -> list[RunId]:
    """The runs whose finished trials of these variants all ran on one device; other runs are not paired."""
    known = list(variants)
    devices = {run: {v.records[run].run.device for v in known if run in v.records} for run in runs}
    return [run for run, found in devices.items() if len(found) <= 1]
