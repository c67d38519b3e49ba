"""What was seen: the records of epochs and trials. Tables, figures and pages are made from these and nothing else.

Each record has two halves: `result`, which repeats bit for bit when the trial does, and `run`, which need not.
"""

from math import sqrt
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

ENCODER = ("encoder", "backbone")  # how the levels on the way down are named
RESULTS_VERSION = 2  # raised by a commit that changes a trial's numbers on purpose


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Record(BaseModel):
    """Frozen, exact: an unknown key is a record of another version and is refused; NaN is written as null."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelProbe(Record):
    """One level of a network in the first step of an epoch: its last block's features, its gradient and weights."""

    mean_abs: float  # of the features, after the ReLU
    mean: float
    variance: float
    dead_fraction: float  # of the channels: 0 throughout the batch
    gradient_norm: float
    weight_norm: float  # after the step


class Coins(Record):
    """The coins of one call of one dropout: how many were tossed, and how many of them dropped something."""

    p: float
    tossed: int
    dropped: int

    @property
    def off(self) -> float:
        """How far the share that was dropped is from p."""
        return abs(self.dropped / self.tossed - self.p)

    @property
    def is_outside(self) -> bool:
        """Whether the share lies outside the interval that holds it in 95 % of fair draws (binomial, as a normal)."""
        return self.off > 1.96 * sqrt(self.p * (1 - self.p) / self.tossed)


class EpochResult(Record):
    """One epoch. Dice are hard and of whole volumes unless they say otherwise; None where it was not measured."""

    epoch: int  # from 1
    lr: dict[str, float]  # parameter group -> the rate that was applied in this epoch
    loss: float  # mean over the epoch's steps
    train_soft_dice_running: float | None = None  # the notes' figure: soft Dice of the epoch's batches, while training
    train_dice_subset: float | None = None  # over `evaluate.train_subset` training subjects
    val_dice: float | None = None
    val_dice_per_class: dict[str, float | None] | None = None
    val_soft_dice: float | None = None  # the notes' validation figure, of whole volumes
    levels: dict[str, LevelProbe] | None = None  # where `evaluate.probes` asks for them
    coins: dict[str, Coins] | None = None  # likewise: of each dropout that was active in the epoch's first step

    @property
    def deepest_to_first(self) -> float | None:
        """The mean absolute value of the deepest level's features as a share of the first level's."""
        down = [probe.mean_abs for name, probe in (self.levels or {}).items() if name.startswith(ENCODER)]
        return down[-1] / down[0] if len(down) > 1 and down[0] > 0 else None

    @property
    def deepest_variance(self) -> float | None:
        """The variance of the deepest level's features."""
        down = [probe.variance for name, probe in (self.levels or {}).items() if name.startswith(ENCODER)]
        return down[-1] if down else None

    @property
    def dead_fraction(self) -> float | None:
        """The share of channels that are 0 throughout the batch, the mean over the levels."""
        return None if self.levels is None else _mean([probe.dead_fraction for probe in self.levels.values()])

    @property
    def dropout_off(self) -> float | None:
        """How far the share that a dropout drops in a call is from p, the mean over the places."""
        return None if self.coins is None else _mean([coins.off for coins in self.coins.values()])

    @property
    def dropout_outside(self) -> float | None:
        """The share of calls that drop a share outside p's 95 % binomial interval: 0.05 of fair coins."""
        return None if self.coins is None else _mean([float(coins.is_outside) for coins in self.coins.values()])


class EpochRun(Record):
    """Wall-clock seconds of one epoch's training and of its evaluation."""

    train_s: float
    evaluate_s: float


class EpochRecord(Record):
    """A line of epochs.jsonl."""

    result: EpochResult
    run: EpochRun


DistanceUnit = Literal["mm", "px"]  # px where the image files have no spacing (PNG, TIFF)


class CaseScores(Record):
    """One case at the end of training; None where neither the mask nor the prediction has the class."""

    dice: dict[str, float | None]
    hd95_mm: dict[str, float | None] | None = None
    surface_dice: dict[str, float | None] | None = None


class SetScores(Record):
    """A set of cases at the end of training: per class the mean over the cases that have one, `dice` their mean."""

    dice: float | None
    dice_per_class: dict[str, float | None]
    hd95_mm_per_class: dict[str, float | None] | None = None  # over the cases where both have the class
    surface_dice_per_class: dict[str, float | None] | None = None
    cases: dict[str, CaseScores]


class TrialResult(Record):
    """What a finished trial measured, after its last epoch."""

    epochs: int
    train: SetScores
    val: SetScores
    best_epoch: int | None  # the epoch with the highest validation Dice: selected on the validation data
    best_val_dice: float | None
    weights_hash: str  # of the final weights
    batches_hash: str  # of the indices of every patch that was drawn
    distance_unit: DistanceUnit = "mm"  # of HD95 (`hd95_mm`) and of the tolerance of the surface Dice


class TrialRun(Record):
    """Where and how long a trial ran."""

    seconds: float  # training and evaluation, over all sessions of the trial
    started_utc: str
    host: str
    device: str
    versions: dict[str, str]
    commit: str | None = None
    is_captured: bool | None = None  # whether steps were replayed from a CUDA graph; None: on a CPU, or an older record
    capture_obstacle: str | None = None  # why they were not, if they were to be


class TrialRecord(Record):
    """result.json: one trial, whether it finished or not."""

    trial: str
    label: str
    seed: int
    status: Literal["done", "diverged", "failed"]
    cause: str | None = None
    parameters: int
    result: TrialResult | None = None
    run: TrialRun
    settings: dict[str, Any]  # the resolved spec the trial is named by


class VariantEntry(Record):
    """A variant in a study's header: its label and its value on each axis."""

    label: str
    values: dict[str, Any]
    scheduler: str  # of which plateau may never fire


class TrialEntry(Record):
    """Which trial belongs to which variant and seed; figures are found by `trial`, and never by name."""

    trial: str
    label: str
    seed: int


class StudyHeader(Record):
    """study.json: what was asked, declared before the first trial starts; all that a report needs beside the trials."""

    name: str
    question: str
    command: str
    metric: str
    direction: Literal["higher", "lower"] | None = None  # which is better; None: the metric's own (older records)
    smallest_effect: float
    axes: tuple[str, ...]
    control: str | None
    seeds: tuple[int, ...]  # as declared: the verdicts bind at these
    epochs: int
    variants: tuple[VariantEntry, ...]
    trials: tuple[TrialEntry, ...]
    claims: tuple[dict[str, Any], ...]
    settings: dict[str, Any]  # of the control
    remarks: tuple[str, ...] = ()
    declared_late: tuple[str, ...] = ()  # claims (by their text) and settings that changed once results were there

    @property
    def control_trials(self) -> tuple[str, ...]:
        """The ids of the control's trials, of all where there is no control."""
        return tuple(entry.trial for entry in self.trials if self.control is None or entry.label == self.control)

    def is_study_of(self, other: "StudyHeader") -> bool:
        """Whether both are one study, asked again or with other seeds or variants: their control is the same."""
        return self.control == other.control and bool({*self.control_trials} & {*other.control_trials})


class Look(Record):
    """A line of looks.jsonl: a study's verdicts were shown at this number of seeds."""

    study: str
    metric: str
    num_seeds: int
    num_variants: int
    shown_utc: str
    seeds: tuple[int, ...] = ()
    variants: tuple[str, ...] = ()
    control_trials: tuple[str, ...] = ()  # ids: a look concerns the studies that share some of these
