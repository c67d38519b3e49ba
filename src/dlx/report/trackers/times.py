"""When the epochs of a trial ended: records hold how long each took, and when the trial started."""

import time
from contextlib import suppress
from datetime import UTC, datetime

from dlx.records.archive import TrialHistory
from dlx.records.schema import EpochRecord


def seconds_of(epoch: EpochRecord) -> float:
    """How long the epoch took, with its evaluation."""
    return epoch.run.train_s + epoch.run.evaluate_s


def started_s(trial: TrialHistory) -> float:
    """When a trial started, in seconds since 1970; of an unfinished one, as if its last epoch had just ended."""
    if trial.record is not None:
        with suppress(ValueError):
            started = datetime.fromisoformat(trial.record.run.started_utc)
            return started.replace(tzinfo=started.tzinfo or UTC).timestamp()
    return time.time() - sum(map(seconds_of, trial.epochs))


def epoch_times(trial: TrialHistory) -> list[float]:
    """When each epoch ended, in seconds since 1970; pauses between two runs of a trial are left out."""
    times, now_s = [], started_s(trial)
    for epoch in trial.epochs:
        now_s += seconds_of(epoch)
        times.append(now_s)
    return times
