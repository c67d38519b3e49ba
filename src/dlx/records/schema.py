"""The records of epochs, trials, studies and looks, as written to files. Reports are made from these alone.

A record of an epoch or a trial has two parts: `result` (`dlx.study.results`), which is bit-identical if the trial is
repeated, and `run`, which may differ.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from dlx.study.continued import Continued
from dlx.study.metrics import Direction
from dlx.study.results import EpochResult, Record, TrialResult
from dlx.study.run_id import RunId
from dlx.study.scope import Scope


class EpochRun(Record):
    """Wall-clock seconds of one epoch's training and of its evaluation."""

    train_s: float
    evaluate_s: float


class EpochRecord(Record):
    """A line of epochs.jsonl."""

    result: EpochResult
    run: EpochRun


class TrialRun(Record):
    """Where and how long a trial ran."""

    seconds: float  # training and evaluation, summed over all runs of a resumed trial
    started_utc: str
    host: str
    device: str
    versions: dict[str, str]
    commit: str | None = None
    is_captured: bool | None = None  # whether a CUDA graph replayed the steps; None on a CPU or in an older record
    capture_obstacle: str | None = None  # why capturing failed
    num_ranks: int | None = None  # the processes that trained it together; None: one


class TrialRecord(Record):
    """result.json: one trial that has ended, successfully or not."""

    trial: str
    label: str
    seed: int
    status: Literal["done", "diverged", "failed"]
    cause: str | None = None
    parameters: int
    result: TrialResult | None = None
    run: TrialRun
    settings: dict[str, Any]  # the resolved spec, whose hash is the trial id


class VariantEntry(Record):
    """A variant in a study's header: its label and its value on each axis."""

    label: str
    values: dict[str, Any]
    scheduler: str  # with `plateau`, a report says if the rate was never lowered


class TrialEntry(Record):
    """The trial of a variant, a seed and perhaps a fold; its records are found by `trial`, never by the label."""

    trial: str
    label: str
    seed: int
    fold: int | None = None  # in cross-validation

    @property
    def run(self) -> RunId:
        """The name of the trial among those of its variant."""
        return self.seed if self.fold is None else (self.fold, self.seed)


class StudyHeader(Record):
    """study.json: the study as declared before the first trial; a report needs only this and the trials."""

    name: str
    question: str
    command: str
    metric: str
    direction: Direction | None = None  # which values are better; None: the metric's default (older records)
    smallest_effect: float
    axes: tuple[str, ...]
    control: str | None
    seeds: tuple[int, ...]  # as declared; verdicts are final once the trials of all seeds have ended
    folds: tuple[int, ...] = ()  # of cross-validation: each seed has a trial in each
    scope: Scope | None = None  # for whom verdicts are to hold, if that was declared
    persons: Annotated[
        dict[str, str], Field(default_factory=dict)
    ]  # case -> person, of the cases whose person has several
    num_persons: int | None = None  # in the data; None in older records
    num_val_persons: int | None = None  # that validate, in all folds together
    epochs: int
    variants: tuple[VariantEntry, ...]
    trials: tuple[TrialEntry, ...]
    claims: tuple[dict[str, Any], ...]
    settings: dict[str, Any]  # of the control
    remarks: tuple[str, ...] = ()
    continued: Continued | None = None  # the trials of an earlier run that these continue
    declared_late: tuple[str, ...] = ()  # claims (by their text) and settings that changed after first results

    @property
    def runs(self) -> tuple[RunId, ...]:
        """The declared runs of each variant, seed by seed."""
        return tuple((fold, seed) for seed in self.seeds for fold in self.folds) if self.folds else self.seeds

    @property
    def control_trials(self) -> tuple[str, ...]:
        """The ids of the control's trials, or of all trials if there is no control."""
        return tuple(entry.trial for entry in self.trials if self.control is None or entry.label == self.control)

    def is_study_of(self, other: "StudyHeader") -> bool:
        """Whether both are the same study, perhaps with other seeds or variants: they share trials of their control."""
        return self.control == other.control and bool({*self.control_trials} & {*other.control_trials})


class Look(Record):
    """A line of looks.jsonl: the verdicts of a study were shown when it had this number of seeds."""

    study: str
    metric: str
    num_seeds: int
    num_variants: int
    shown_utc: str
    seeds: tuple[int, ...] = ()
    folds: tuple[int, ...] = ()  # of cross-validation
    variants: tuple[str, ...] = ()
    control_trials: tuple[str, ...] = ()  # ids: a look concerns the studies that share some of these

    @property
    def num_runs(self) -> int:
        """The number of runs of each variant."""
        return self.num_seeds * max(1, len(self.folds))
