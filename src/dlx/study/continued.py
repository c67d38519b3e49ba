"""Trials of an earlier run that are trained longer under another schedule than they would have had from the start."""

from typing import Any

from dlx.study.results import Record


class ContinuedTrial(Record):
    """A trial of the earlier run: its seed, its fold in cross-validation, and its id."""

    seed: int
    fold: int | None = None
    trial: str


class Continued(Record):
    """The trials that those of a study continue, each with its seed and fold, after their last `epoch`."""

    epoch: int
    trials: tuple[ContinuedTrial, ...]

    def of_fold(self, fold: int | None) -> "Continued":
        """The trials of one fold."""
        return Continued(epoch=self.epoch, trials=tuple(one for one in self.trials if one.fold == fold))

    def settings(self, seed: int) -> dict[str, Any]:
        """`train.continue_from` of the trial of a seed, within a fold: where it starts, as part of its id."""
        ids = [one.trial for one in self.trials if one.seed == seed]
        return {"trial": ids[0] if ids else None, "epoch": self.epoch}
