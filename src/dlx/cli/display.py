"""Shows a run while it goes on, on stderr: for one trial a line an epoch, for several a line a trial.

What moves on a terminal is drawn by `live.py`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from dlx.cli.console import PlainConsole
from dlx.cli.live import EpochBar, TrialsTable, name_subset
from dlx.engine.fit import StepDone
from dlx.records.schema import EpochRecord, TrialRecord
from dlx.report.formatting import signed, spell, spell_seconds
from dlx.run.plan import Plan
from dlx.run.runner import TrialEvent
from dlx.run.trial import CaptureFailed, Event, Scoring, TrialEnded, TrialStarted
from dlx.study.metrics import trial_value
from dlx.system.characters import visible


@dataclass
class Outcome:
    """What came of a run: records with their folders, in the plan's order, and whether the user stopped it."""

    by_index: dict[int, tuple[TrialRecord, Path]] = field(default_factory=dict)
    was_interrupted: bool = False
    kept_epochs: int = 0  # of the trials that were stopped

    @property
    def trials(self) -> list[tuple[TrialRecord, Path]]:
        return [self.by_index[index] for index in sorted(self.by_index)]


class Display(Protocol):
    """What turns events into something to see."""

    console: PlainConsole

    def show(self, index: int, event: Event, /) -> None: ...


class Follower:
    """Hands events on to be shown, and keeps what a command needs at its end."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def follow(self, events: Iterator[TrialEvent]) -> Outcome:
        """Shows all events; Ctrl-C ends the run and is told in the outcome."""
        outcome = Outcome()
        kept: dict[int, int] = {}
        obstacles: set[str] = set()
        try:
            for happened in events:
                index, event = happened.index, happened.event
                if isinstance(event, CaptureFailed):  # once a network, not once a trial
                    if event.obstacle not in obstacles:
                        self.display.console.print(capture_note(event), soft_wrap=True)
                    obstacles.add(event.obstacle)
                    continue
                self.display.show(index, event)
                if isinstance(event, TrialStarted):
                    kept[index] = event.resumed_from
                elif isinstance(event, EpochRecord):
                    kept[index] = event.result.epoch
                elif isinstance(event, TrialEnded):
                    kept.pop(index, None)
                    outcome.by_index[index] = (event.record, event.folder)
        except KeyboardInterrupt:
            outcome.was_interrupted = True
        outcome.kept_epochs = sum(kept.values())
        return outcome


def capture_note(event: CaptureFailed) -> str:
    """The line that says why steps are not captured, and which setting skips the attempt."""
    return f"note     steps run uncaptured, which is slower: {event.obstacle}; compute.capture=false skips the attempt"


class FailureLines:
    """Shows nothing but the trials that did not end well: no option may hide those."""

    def __init__(self, console: PlainConsole) -> None:
        self.console = console

    def show(self, _: int, event: Event) -> None:
        if isinstance(event, TrialEnded) and event.record.status != "done":
            print_bad_end(self.console, event)


class EpochLines:
    """One trial at a time: a line an epoch, and on a terminal a bar below them."""

    def __init__(self, console: PlainConsole, plan: Plan, bar: EpochBar | None) -> None:
        self.console, self.plan, self.bar = console, plan, bar
        self.trial: TrialStarted | None = None
        self.seconds: list[float] = []

    def show(self, _: int, event: Event) -> None:
        match event:
            case TrialStarted():
                self._start(event)
            case StepDone():
                if self.bar is not None:
                    self.bar.step(event.epoch, event.step)
            case EpochRecord():
                self._epoch(event)
            case Scoring():
                if self.bar is not None:
                    self.bar.describe("scoring every subject")
            case TrialEnded():
                self._end(event)

    def _start(self, event: TrialStarted) -> None:
        self.trial, self.seconds = event, []
        title = f"{event.trial.label}, seed {event.trial.seed}"
        if event.resumed_from:
            line = f"{title}: going on after epoch {event.resumed_from} of {event.epochs}"
            self.console.print(visible(line), soft_wrap=True)
        elif len(self.plan.trials) > 1:
            self.console.print(visible(title), soft_wrap=True)
        if event.remark:
            self.console.print(visible(f"note     {event.remark}"), soft_wrap=True)
        if self.bar is not None:
            self.bar.start(title, event.epochs, event.steps_per_epoch, event.resumed_from)

    def _epoch(self, event: EpochRecord) -> None:
        assert self.trial is not None
        self.seconds.append(event.run.train_s + event.run.evaluate_s)
        left_s = sum(self.seconds) / len(self.seconds) * (self.trial.epochs - event.result.epoch)
        subset = name_subset(self.plan.first)
        line = epoch_line(event, self.trial.epochs, left_s if self.bar is None else None, subset)
        self.console.print(line, soft_wrap=True)
        if self.bar is not None:
            self.bar.epoch(event.result, left_s)

    def _end(self, event: TrialEnded) -> None:
        if self.bar is not None:
            self.bar.end()
        record = event.record
        if event.was_done and record.status == "done":
            line = f"{record.label}, seed {record.seed}: finished before, nothing was run"
            self.console.print(visible(line), soft_wrap=True)
        elif record.status != "done":
            print_bad_end(self.console, event)


class TrialLines:
    """Several trials: a line for each that ends, and on a terminal a table of those at work."""

    def __init__(self, console: PlainConsole, plan: Plan, table: TrialsTable | None) -> None:
        self.console, self.plan, self.table = console, plan, table
        self.started = time.monotonic()
        self.done = 0
        self.ran = 0

    def show(self, index: int, event: Event) -> None:
        if self.table is not None:
            self.table.show(index, event)
        if not isinstance(event, TrialEnded):
            return
        self.done += 1
        trial = self.plan.trials[index].trial
        where = f"{self.done:{len(str(len(self.plan.trials)))}d}/{len(self.plan.trials)}"
        if event.was_done and event.record.status == "done":
            return
        self.ran += not event.was_done
        if event.record.status != "done":
            print_bad_end(self.console, event)
            return
        train, val, gap = (trial_value(event.record.result, name) for name in ("train_dice", "val_dice", "gap"))
        line = (
            f"{where}  {trial.label}, seed {trial.seed}:  train {spell(train)}  val {spell(val)}  "
            f"gap {signed(gap)}  {spell_seconds(event.record.run.seconds)}"
        )
        left = len(self.plan.trials) - self.done
        if left and self.table is None:
            line += f"  eta {spell_seconds((time.monotonic() - self.started) / self.ran * left)}"
        self.console.print(visible(line), soft_wrap=True)


def print_bad_end(console: PlainConsole, event: TrialEnded) -> None:
    """The line of a trial that diverged or failed; after an earlier run's, with the option that runs it again."""
    record = event.record
    line = f"{record.label}, seed {record.seed}: {record.status}: {record.cause}"
    if event.was_done:
        line += " (in an earlier run; --retry-failed runs it again)"
    console.print(visible(line), soft_wrap=True, style="bold red")


def epoch_line(event: EpochRecord, epochs: int, eta_s: float | None, subset: str) -> str:
    """One epoch, in 80 columns but for the time left, which a terminal has in its bar.

    `train` is of some training subjects, counted in `subset` (see `name_subset`), `val` of all validation subjects.
    """
    result = event.result
    rates = "/".join(f"{rate:.3g}" for rate in dict.fromkeys(result.lr.values()))
    width = len(str(epochs))
    line = f"epoch {result.epoch:{width}d}/{epochs}  lr {rates:<8} loss {result.loss:<7.4f}"
    if result.val_dice is not None:
        line += f" train{subset} {spell(result.train_dice_subset)}  val {spell(result.val_dice)}"
    line += f"  {event.run.train_s + event.run.evaluate_s:.1f} s"
    return line if eta_s is None or result.epoch == epochs else f"{line}  eta {spell_seconds(eta_s)}"


@contextmanager
def follower(console: PlainConsole, plan: Plan, *, quiet: bool, in_workers: bool) -> Iterator[Follower]:
    """A Follower for this console: silent, with plain lines, or live on a terminal."""
    if quiet:
        yield Follower(FailureLines(console))
    elif in_workers:
        if not console.is_terminal:
            yield Follower(TrialLines(console, plan, None))
            return
        with TrialsTable(console, plan) as table:
            yield Follower(TrialLines(console, plan, table))
    elif not console.is_terminal:
        yield Follower(EpochLines(console, plan, None))
    else:
        with EpochBar(console) as bar:
            yield Follower(EpochLines(console, plan, bar))


@contextmanager
def reading_bar(console: PlainConsole, *, quiet: bool) -> Iterator["ReadingBar"]:
    """A bar for reading volumes, on a terminal only; it appears with the first volume, so not on a cache hit."""
    bar = Progress(
        TextColumn("reading volumes"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
        disable=quiet or not console.is_terminal,
    )  # fmt: skip
    with bar:
        yield ReadingBar(bar)


class ReadingBar:
    """Called with (done, total) while a data set is read."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.task is None:
            self.task = self.bar.add_task("reading", total=total)
        self.bar.update(self.task, completed=done)
