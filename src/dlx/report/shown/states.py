"""How far each trial of a study is: done, running, stopped, waiting, or failed with its cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.records.folder import TrialFolder
from dlx.report.shown.recorded_settings import read_settings
from dlx.settings.text import counted
from dlx.study.results import EpochResult

State = Literal["done", "diverged", "failed", "running", "stopped", "waiting"]


@dataclass(frozen=True)
class TrialState:
    """A trial: `running` while a process holds its lock, `stopped` if none does though epochs are recorded."""

    trial: TrialHistory
    state: State
    num_epochs: int  # that are recorded
    epochs: int  # that it will have

    @property
    def has_ended(self) -> bool:
        return self.trial.record is not None

    @property
    def cause(self) -> str | None:
        """Why it diverged or failed."""
        return self.trial.record.cause if self.trial.record is not None else None

    @property
    def last(self) -> EpochResult | None:
        """The last recorded epoch."""
        return self.trial.epochs[-1].result if self.trial.epochs else None

    @property
    def last_validated(self) -> EpochResult | None:
        """The last epoch that was validated."""
        known = (epoch.result for epoch in reversed(self.trial.epochs) if epoch.result.val_dice is not None)
        return next(known, None)


def states_of(records: StudyRecords) -> list[TrialState]:
    """The state of each trial, in the header's order."""
    return [state_of(trial, records.header.epochs) for trial in records.trials]


def state_of(trial: TrialHistory, epochs: int) -> TrialState:
    """The state of one trial; `epochs` is its length if its own settings are not known."""
    planned = read_settings(trial.settings()).train.epochs
    return TrialState(trial, _state(trial), len(trial.epochs), epochs if planned is None else planned)


def _state(trial: TrialHistory) -> State:
    if trial.record is not None:
        return trial.record.status
    if trial.folder is not None and TrialFolder.at(trial.folder).is_running():
        return "running"
    return "stopped" if trial.epochs else "waiting"


def state_entry(found: TrialState) -> dict[str, Any]:
    """A trial's state for a JSON document."""
    entry, last, validated = found.trial.entry, found.last, found.last_validated
    return {
        "label": entry.label,
        "seed": entry.seed,
        **({} if entry.fold is None else {"fold": entry.fold}),
        "state": found.state,
        "epoch": found.num_epochs,
        "epochs": found.epochs,
        "loss": last.loss if last else None,
        "train_dice_subset": validated.train_dice_subset if validated else None,
        "val_dice": validated.val_dice if validated else None,
        "cause": found.cause,
        "folder": None if found.trial.folder is None else str(found.trial.folder),
    }


def count_states(states: Sequence[TrialState]) -> str:
    """`4 of 6 trials done, 1 running, 1 waiting`."""
    known = [found.state for found in states]
    others = [f"{known.count(state)} {state}" for state in dict.fromkeys(known) if state != "done"]
    return ", ".join([f"{known.count('done')} of {counted(len(known), 'trial')} done", *others])
