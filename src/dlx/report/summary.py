"""What a study found, from its records: each variant's figures over its seeds, and how it compares with the control.

Tables, figures and pages show this and compute nothing themselves.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, TypeVar

from dlx import statistics
from dlx.archive import StudyRecords, TrialRecords
from dlx.records import EpochResult, Look, StudyHeader, TrialRecord
from dlx.report.claims import ClaimOutcome, judge_claims
from dlx.report.table import mean_of_all
from dlx.statistics import Comparison, NoiseFloor
from dlx.studies import LOWER_IS_BETTER

T = TypeVar("T")

TITLES = {
    "val_dice": "validation Dice",
    "train_dice": "train Dice",
    "gap": "gap (train - validation Dice)",
    "best_val_dice": "best epoch's validation Dice",
    "hd95_mm": "HD95 (mm)",
    "surface_dice": "normalised surface Dice",
    "jitter": "jitter of validation Dice",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a figure over the seeds that have it; None where there are too few."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class VariantSummary:
    """One variant: its figures over seeds, its comparison with the control (None for the control itself)."""

    label: str
    values: dict[str, Any]
    is_control: bool
    figures: dict[str, Spread]  # by metric
    by_seed: dict[str, dict[int, float | None]]  # metric -> seed -> figure; None: diverged or failed
    comparison: Comparison | None
    case_sd: float | None  # spread over the validation cases, each its mean over seeds
    unfinished: tuple[str, ...]  # `seed 3: diverged (cause)`
    epochs: dict[int, tuple[EpochResult, ...]]  # seed -> its epochs so far
    marks: tuple[str, ...] = ()  # what a reader must know of this variant


@dataclass(frozen=True)
class Summary:
    """A study's variants in their order, the noise floor, the claims' verdicts, and remarks."""

    header: StudyHeader
    variants: tuple[VariantSummary, ...]
    noise_floor: NoiseFloor | None
    claims: tuple[ClaimOutcome, ...]
    num_done: int
    remarks: tuple[str, ...]
    look: Look | None  # to be recorded when this is shown: verdicts bind at this number of seeds

    @property
    def metric_title(self) -> str:
        return TITLES[self.header.metric]


def figure_of(record: TrialRecord, epochs: Sequence[EpochResult], metric: str) -> float | None:
    """One trial's figure after its last epoch; None where it has none."""
    result = record.result
    if result is None:
        return None
    match metric:
        case "train_dice":
            return result.train.dice
        case "val_dice":
            return result.val.dice
        case "gap":
            return None if result.train.dice is None or result.val.dice is None else result.train.dice - result.val.dice
        case "best_val_dice":
            return result.best_val_dice
        case "hd95_mm":
            return mean_of_all(result.val.hd95_mm_per_class)
        case "surface_dice":
            return mean_of_all(result.val.surface_dice_per_class)
        case "jitter":
            known = [(epoch.epoch, epoch.val_dice) for epoch in epochs if epoch.val_dice is not None]
            return statistics.jitter([e for e, _ in known], [v for _, v in known], result.epochs)
    raise ValueError(f"'{metric}' is no figure of a trial")


def summarize_study(records: StudyRecords) -> Summary:
    """Everything a report says of a study, finished or still running."""
    header = records.header
    control = header.control
    placed: dict[str, dict[int, TrialRecords]] = {variant.label: {} for variant in header.variants}
    for trial in records.trials:
        placed[trial.entry.label][trial.entry.seed] = trial
    figures = {label: {m: _by_seed(trials, m) for m in TITLES} for label, trials in placed.items()}
    idle = {label: mark for label, trials in placed.items() if (mark := _idle(label, trials, placed, header))}
    comparisons: dict[str, Comparison] = {}
    floor, look, remarks = None, None, list(header.remarks)
    unlike = _on_unlike_devices(placed, control or header.variants[0].label)
    paired = {label: {m: _without(v, label, unlike) for m, v in known.items()} for label, known in figures.items()}
    if unlike:
        remarks.append(f"{len(unlike)} pair(s) left out: variant and control ran on unlike devices")
    if control is not None:
        earlier, chosen = _earlier_looks(records)
        remarks += chosen
        outcome = statistics.compare(
            paired[control][header.metric],
            {label: known[header.metric] for label, known in paired.items() if label != control},
            declared_seeds=header.seeds,
            smallest_effect=header.smallest_effect,
            higher_is_better=header.metric not in LOWER_IS_BETTER,
            dice={label: figures[label]["val_dice"] for label in figures if label != control},
            control_dice=figures[control]["val_dice"],
            unreached=tuple(idle),
            earlier_looks=earlier,
        )
        comparisons = {row.label: row for row in outcome.rows}
        floor = outcome.noise_floor
        if any(row.verdict != "incomplete" for row in outcome.rows):
            look = Look(
                study=header.name,
                metric=header.metric,
                num_seeds=len(header.seeds),
                num_variants=len(outcome.rows),
                shown_utc="",
                seeds=header.seeds,
                variants=tuple(row.label for row in outcome.rows),
                control_trials=_control_trials(header),
            )
    variants = tuple(
        VariantSummary(
            label=variant.label,
            values=variant.values,
            is_control=variant.label == control,
            figures={metric: _spread(values.values()) for metric, values in figures[variant.label].items()},
            by_seed=figures[variant.label],
            comparison=comparisons.get(variant.label),
            case_sd=_case_sd(placed[variant.label].values()),
            unfinished=_unfinished(placed[variant.label]),
            epochs={seed: tuple(e.result for e in t.epochs) for seed, t in placed[variant.label].items()},
            marks=_marks(variant.label, idle, comparisons.get(variant.label)),
        )
        for variant in header.variants
    )
    return Summary(
        header=header,
        variants=variants,
        noise_floor=floor,
        claims=judge_claims(header, paired, {v.label: _without(v.epochs, v.label, unlike) for v in variants}),
        num_done=sum(t.record is not None for t in records.trials),
        remarks=tuple(remarks),
        look=look,
    )


def _by_seed(trials: Mapping[int, TrialRecords], metric: str) -> dict[int, float | None]:
    """Seed -> figure, for the trials that ended; one that failed, or whose figure was not measured, is left out."""
    figures: dict[int, float | None] = {}
    for seed, trial in sorted(trials.items()):
        if trial.record is None:
            continue
        figure = figure_of(trial.record, [epoch.result for epoch in trial.epochs], metric)
        if figure is not None or trial.record.status == "diverged":
            figures[seed] = figure
    return figures


def _spread(values: Iterable[float | None]) -> Spread:
    known = [value for value in values if value is not None]
    return Spread(mean(known) if known else None, stdev(known) if len(known) > 1 else None, len(known))


def _on_unlike_devices(placed: Mapping[str, Mapping[int, TrialRecords]], control: str) -> set[tuple[str, int]]:
    """Labels and seeds of the trials that ran on another device than the control's of their seed."""
    unlike = set()
    for label, trials in placed.items():
        for seed, trial in trials.items():
            other = placed[control].get(seed)
            if trial.record is None or other is None or other.record is None:
                continue
            if trial.record.run.device != other.record.run.device:
                unlike.add((label, seed))
    return unlike


def _without(values: Mapping[int, T], label: str, unlike: Collection[tuple[str, int]]) -> dict[int, T]:
    return {seed: value for seed, value in values.items() if (label, seed) not in unlike}


def _control_trials(header: StudyHeader) -> tuple[str, ...]:
    return tuple(entry.trial for entry in header.trials if entry.label == header.control)


def _earlier_looks(records: StudyRecords) -> tuple[tuple[int, ...], list[str]]:
    """At how many seeds, fewer than now, this study's verdicts were shown; and a remark where they were shown over
    other seeds or variants than now's, since what is compared now may have been chosen after looking."""
    header = records.header
    ours, labels = set(_control_trials(header)), {variant.label for variant in header.variants}
    numbers, others = set(), []
    for look in records.looks:
        is_ours = bool(ours & set(look.control_trials)) if look.control_trials else look.study == header.name
        if not is_ours or look.metric != header.metric:
            continue
        if look.num_seeds < len(header.seeds):
            numbers.add(look.num_seeds)
        if not set(look.seeds) <= set(header.seeds) or not set(look.variants) <= labels:
            others.append(look)
    if not others:
        return tuple(sorted(numbers)), []
    seen = max(look.num_variants for look in others)
    remark = (
        f"verdicts were shown before over other seeds or variants (up to {seen}): where seeds or variants were chosen "
        "after that look, these are no longer verdicts at 5 %"
    )
    return tuple(sorted(numbers)), [remark]


def _idle(
    label: str,
    trials: Mapping[int, TrialRecords],
    placed: Mapping[str, Mapping[int, TrialRecords]],
    header: StudyHeader,
) -> str | None:
    """Why a variant changed nothing: in every pair all epochs and the final weights equal the control's."""
    if header.control is None or label == header.control:
        return None
    pairs = [(t, placed[header.control].get(seed)) for seed, t in trials.items()]
    ended = [(a, b) for a, b in pairs if a.record and a.record.result and b and b.record and b.record.result]
    if not ended or not all(_is_same(a, b) for a, b in ended):
        return None
    schedulers = {variant.label: variant.scheduler for variant in header.variants}
    if schedulers[label] == "plateau" and schedulers[header.control] != "plateau":
        return "the plateau rule never fired: the rate stayed as it was"
    return "every epoch and the final weights equal the control's: the setting reached nothing"


def _is_same(a: TrialRecords, b: TrialRecords) -> bool:
    assert a.record is not None
    assert b.record is not None
    assert a.record.result is not None
    assert b.record.result is not None
    same_weights = a.record.result.weights_hash == b.record.result.weights_hash
    return same_weights and [e.result for e in a.epochs] == [e.result for e in b.epochs]


def _case_sd(trials: Iterable[TrialRecords]) -> float | None:
    """Standard deviation over the validation cases of their mean Dice, averaged over seeds first."""
    by_case: dict[str, list[float]] = {}
    for trial in trials:
        if trial.record is None or trial.record.result is None:
            continue
        for case, scores in trial.record.result.val.cases.items():
            known = [value for value in scores.dice.values() if value is not None]
            if known:
                by_case.setdefault(case, []).append(mean(known))
    means = [mean(values) for values in by_case.values()]
    return stdev(means) if len(means) > 1 else None


def _unfinished(trials: Mapping[int, TrialRecords]) -> tuple[str, ...]:
    lines = []
    for seed, trial in sorted(trials.items()):
        if trial.record is not None and trial.record.status != "done":
            lines.append(f"seed {seed}: {trial.record.status} ({trial.record.cause})")
    return tuple(lines)


def _marks(label: str, idle: Mapping[str, str], comparison: Comparison | None) -> tuple[str, ...]:
    marks = [idle[label]] if label in idle else []
    if comparison is not None and comparison.reason and label not in idle:
        marks.append(comparison.reason)
    return tuple(marks)
