"""Keeps TensorBoard's and MLflow's files up to date while trials run: it sees their events before they are shown."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Protocol

from dlx.cli.options import TrainOptions
from dlx.cli.output.console import PlainConsole
from dlx.execution.planning.plan import Plan
from dlx.execution.trials.trial import Event, TrialEnded, TrialStarted
from dlx.records.archive import TrialHistory
from dlx.records.folder import trial_folder_name
from dlx.records.schema import EpochRecord
from dlx.report.trackers import mlflow, tensorboard
from dlx.report.trackers.times import seconds_of
from dlx.report.trackers.values import hyperparameters
from dlx.system.characters import visible
from dlx.system.errors import DlxError, spell_error
from dlx.system.shell import shell_command

TRACKED = (TrialStarted, EpochRecord, TrialEnded)  # events of steps are many, and no tracker needs them


class Tracker(Protocol):
    """Writes events to the files of another program."""

    def take(self, index: int, event: Event, /) -> None: ...

    def close(self) -> None: ...


class LiveEvents:
    """TensorBoard's files: begun with a trial's earlier epochs, to which each new one is appended."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.header = plan, plan.header()
        settings = {task.trial_id: task.settings for task in plan.trials}
        self.parameters = hyperparameters(self.header, settings)
        self.open: dict[int, tensorboard.TrialEvents] = {}

    def take(self, index: int, event: Event) -> None:
        """Writes the event of the trial of this number in the plan."""
        entry = self.header.trials[index]
        folder = self.plan.folder / tensorboard.FOLDER / trial_folder_name(entry)
        parameters = self.parameters[entry.trial]
        match event:
            case TrialStarted():
                started_s = time.time() - sum(map(seconds_of, event.earlier))
                self.open[index] = tensorboard.TrialEvents(folder, parameters, started_s, event.earlier)
            case EpochRecord() if index in self.open:
                self.open[index].append(event)
            case TrialEnded() if index in self.open:
                events = self.open.pop(index)
                with closing(events):
                    events.finish(event.record, self.plan.trials[index].folder.pictures())
            case TrialEnded() if (trial := recorded(self.plan, index)) is not None:
                tensorboard.write_trial_events(folder, parameters, trial)

    def close(self) -> None:
        """Closes the files of trials that are still running."""
        for events in self.open.values():
            events.close()


class LiveRuns:
    """MLflow's runs, written when trials end: MLflow is imported then, beside the trials that still run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.runs: mlflow.MlflowRuns | None = None

    def take(self, index: int, event: Event) -> None:
        """Writes the run of a trial that ended."""
        trial = recorded(self.plan, index) if isinstance(event, TrialEnded) else None
        if trial is None:
            return
        if self.runs is None:
            self.runs = mlflow.MlflowRuns(self.plan.folder / mlflow.FOLDER, self.plan.header())
        self.runs.write(trial)

    def close(self) -> None:
        """Nothing is open between two events."""


def recorded(plan: Plan, index: int) -> TrialHistory | None:
    """The records of a trial that ended; None if none were written, as of a trial that another process runs."""
    folder = plan.trials[index].folder
    record = folder.result()
    if record is None:
        return None
    return TrialHistory(plan.header().trials[index], tuple(folder.epochs()), record, folder.path)


def tracked(
    events: Iterator[tuple[int, Event]], plan: Plan, options: TrainOptions, console: PlainConsole
) -> Iterator[tuple[int, Event]]:
    """The same events, each after the trackers have it. A tracker that fails stops with a note; the run goes on."""
    makers: dict[str, Callable[[Plan], Tracker]] = {"tensorboard": LiveEvents, "mlflow": LiveRuns}
    trackers = {name: make(plan) for name, make in makers.items() if getattr(options, name)}
    try:
        for index, event in events:
            for name in list(trackers) if isinstance(event, TRACKED) else ():
                try:
                    trackers[name].take(index, event)
                except (DlxError, OSError) as error:
                    trackers.pop(name).close()
                    again = shell_command(["dlx", "report", str(plan.folder), f"--{name}"])
                    line = f"note     --{name} stopped: {spell_error(error)}; to write its files later: {again}"
                    console.print(visible(line), soft_wrap=True)
            yield index, event
    finally:
        for tracker in trackers.values():
            tracker.close()
        if isinstance(events, Generator):
            events.close()
