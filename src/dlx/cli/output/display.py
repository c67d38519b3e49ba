"""Prints the progress of a run on stderr: one line per epoch for a single trial, one line per trial for several.

`live.py` draws the progress bars and the table of running trials on a terminal.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dlx.cli.output.console import PlainConsole
from dlx.cli.output.live import EpochBar, TrialsTable, train_title
from dlx.engine.fit import StepDone
from dlx.execution.planning.plan import Plan
from dlx.execution.trials.trial import CaptureFailed, ClusterNote, Event, Scoring, TrialEnded, TrialStarted
from dlx.records.folder import TrialFolder
from dlx.records.schema import EpochRecord, TrialRecord
from dlx.report.wording.formatting import signed, spell, spell_seconds
from dlx.study.metrics import trial_value
from dlx.study.study import Trial
from dlx.system.characters import visible
from dlx.system.interrupts import raise_if_stopped, stop_caught, stops_kept


@dataclass
class Outcome:
    """The outcome of a run: records and their folders by index in the plan, and the interrupt that ended it, if any."""

    by_index: dict[int, tuple[TrialRecord, Path]] = field(default_factory=dict)
    interrupt: KeyboardInterrupt | None = None
    kept: dict[int, int] = field(default_factory=dict)  # finished epochs of interrupted trials, by index in the plan

    @property
    def was_interrupted(self) -> bool:
        return self.interrupt is not None

    @property
    def trials(self) -> list[tuple[TrialRecord, Path]]:
        return [self.by_index[index] for index in sorted(self.by_index)]


class Display(Protocol):
    """Shows events to the user."""

    console: PlainConsole

    def show(self, index: int, event: Event, /) -> None: ...


def follow(events: Iterator[tuple[int, Event]], display: Display) -> Outcome:
    """Shows all events and collects the outcome of the run; Ctrl-C or SIGTERM ends it, and the outcome records that."""
    outcome = Outcome()
    try:
        with stops_kept():
            _show_all(events, display, outcome)
    except KeyboardInterrupt as interrupt:
        outcome.interrupt = interrupt
        stop_caught()
        if isinstance(events, Generator):
            events.close()  # workers end, and a checkpoint that is being written is completed
    return outcome


def _show_all(events: Iterator[tuple[int, Event]], display: Display, outcome: Outcome) -> None:
    obstacles: set[str] = set()
    for index, event in events:
        raise_if_stopped()
        if isinstance(event, CaptureFailed):  # shown once per obstacle, not once per trial
            if event.obstacle not in obstacles:
                display.console.print(capture_note(event), soft_wrap=True)
            obstacles.add(event.obstacle)
            continue
        if isinstance(event, ClusterNote):
            display.console.print(visible(f"note     {event.text}"), soft_wrap=True)
            continue
        display.show(index, event)
        if isinstance(event, TrialStarted):
            outcome.kept[index] = event.resumed_from
        elif isinstance(event, EpochRecord):
            outcome.kept[index] = event.result.epoch
        elif isinstance(event, TrialEnded):
            outcome.kept.pop(index, None)
            outcome.by_index[index] = (event.record, event.folder)


def capture_note(event: CaptureFailed) -> str:
    """A note: why steps run without CUDA graph capture, and which setting skips the attempt."""
    return (
        f"note     steps are not captured, which is slower: {event.obstacle}; compute.capture=false skips the attempt"
    )


class FailureLines:
    """Shows only trials that failed or diverged; --quiet and --json do not hide those."""

    def __init__(self, console: PlainConsole, plan: Plan) -> None:
        self.console, self.plan = console, plan

    def show(self, index: int, event: Event) -> None:
        if isinstance(event, TrialEnded) and event.record.status != "done":
            print_bad_end(self.console, self.plan.trials[index].trial, event)


class EpochLines:
    """Shows one trial at a time: a line per epoch, and a progress bar below them on a terminal."""

    def __init__(self, console: PlainConsole, plan: Plan, bar: EpochBar) -> None:
        self.console, self.plan, self.bar = console, plan, bar
        self.epochs = 0  # of the running trial
        self.seconds: list[float] = []

    def show(self, index: int, event: Event) -> None:
        match event:
            case TrialStarted():
                self._start(event)
            case StepDone():
                self.bar.step(event.epoch, event.step)
            case EpochRecord():
                self._epoch(event)
            case Scoring():
                self.bar.describe("scoring every subject")
            case TrialEnded():
                self._end(self.plan.trials[index].trial, event)

    def _start(self, event: TrialStarted) -> None:
        self.epochs, self.seconds = event.epochs, []
        title = event.trial.name
        if event.resumed_from:
            line = f"{title}: resuming after epoch {event.resumed_from} of {event.epochs}"
            self.console.print(visible(line), soft_wrap=True)
        elif len(self.plan.trials) > 1:
            self.console.print(visible(title), soft_wrap=True)
        if event.remark:
            self.console.print(visible(f"note     {event.remark}"), soft_wrap=True)
        self.bar.start(title, event.epochs, event.steps_per_epoch, event.resumed_from)

    def _epoch(self, event: EpochRecord) -> None:
        self.seconds.append(event.run.train_s + event.run.evaluate_s)
        left_s = sum(self.seconds) / len(self.seconds) * (self.epochs - event.result.epoch)
        line = epoch_line(event, self.epochs, train_title(self.plan))
        if not self.console.is_terminal and event.result.epoch < self.epochs:  # on a terminal the bar shows it
            line += f"  eta {spell_seconds(left_s)}"
        self.console.print(line, soft_wrap=True)
        self.bar.epoch(event.result, left_s)

    def _end(self, trial: Trial, event: TrialEnded) -> None:
        self.bar.end()
        record = event.record
        if event.was_done and record.status == "done":
            self.console.print(visible(f"{trial.name}: already finished; nothing was run"), soft_wrap=True)
        elif record.status != "done":
            print_bad_end(self.console, trial, event)


class TrialLines:
    """Shows several trials: a line for each that ends, and a table of the running ones on a terminal."""

    def __init__(self, console: PlainConsole, plan: Plan, table: TrialsTable) -> None:
        self.console, self.plan, self.table = console, plan, table
        self.ran = 0

    def show(self, index: int, event: Event) -> None:
        self.table.show(index, event)
        if not isinstance(event, TrialEnded):
            return
        if event.was_done and event.record.status == "done":
            return
        self.ran += not event.was_done
        trial = self.plan.trials[index].trial
        if event.record.status != "done":
            print_bad_end(self.console, trial, event)
            return
        num_trials, done = len(self.plan.trials), self.table.done
        train, val, gap = (trial_value(event.record.result, name) for name in ("train_dice", "val_dice", "gap"))
        line = (
            f"{done:{len(str(num_trials))}d}/{num_trials}  {trial.name}:  train {spell(train)}  "
            f"val {spell(val)}  gap {signed(gap)}  {spell_seconds(event.record.run.seconds)}"
        )
        if done < num_trials and not self.console.is_terminal:
            left_s = (time.monotonic() - self.table.started) / self.ran * (num_trials - done)
            line += f"  eta {spell_seconds(left_s)}"
        self.console.print(visible(line), soft_wrap=True)


def print_bad_end(console: PlainConsole, trial: Trial, event: TrialEnded) -> None:
    """Prints that a trial diverged or failed, why, and where the traceback is; if that was in an earlier run, also how
    to run it again.
    """
    record, traceback = event.record, TrialFolder.at(event.folder).error
    line = f"{trial.name}: {record.status}: {record.cause}"
    if traceback.exists():
        line += f" (traceback: {traceback})"
    if event.was_done:
        line += " (in an earlier run; --retry-failed runs it again)"
    console.print(visible(line), soft_wrap=True, style="bold red")


def epoch_line(event: EpochRecord, epochs: int, train_title: str) -> str:
    """One epoch, in 80 columns.

    Below `train_title` (see there) is the Dice of the training subjects that are measured; `val` is that of all
    validation subjects.
    """
    result = event.result
    rates = "/".join(f"{rate:.3g}" for rate in dict.fromkeys(result.lr.values()))
    width = len(str(epochs))
    line = f"epoch {result.epoch:{width}d}/{epochs}  lr {rates:<8} loss {result.loss:<7.4f}"
    if result.val_dice is not None:
        line += f" {train_title} {spell(result.train_dice_subset)}  val {spell(result.val_dice)}"
    return f"{line}  {event.run.train_s + event.run.evaluate_s:.1f} s"


@contextmanager
def display_on(console: PlainConsole, plan: Plan, *, quiet: bool, in_workers: bool) -> Iterator[Display]:
    """A display on this console: shows only failures if `quiet`, else lines, and live progress on a terminal."""
    if quiet:
        yield FailureLines(console, plan)
    elif in_workers:
        table = TrialsTable(console, plan)
        with table.live if console.is_terminal else nullcontext():
            yield TrialLines(console, plan, table)
    else:
        bar = EpochBar(console)
        with bar.progress:
            yield EpochLines(console, plan, bar)
