"""Shows a run while it goes on: a line an epoch, and on a terminal a progress bar below them. All of it on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dlx.engine.fit import StepDone
from dlx.records import EpochRecord, TrialRecord
from dlx.report.table import spell, spell_seconds
from dlx.run.runner import Event, Scoring, TrialEnded, TrialStarted


@dataclass
class Outcome:
    """What came of a run: records with their folders, and whether the user stopped it."""

    trials: list[tuple[TrialRecord, Path]] = field(default_factory=list)
    was_interrupted: bool = False
    kept_epochs: int = 0  # of the trial that was stopped


class Follower:
    """Turns events into lines, and into the progress bar's position."""

    def __init__(self, console: Console, bar: Progress | None) -> None:
        self.console, self.bar = console, bar
        self.task: TaskID | None = None
        self.trial: TrialStarted | None = None
        self.seconds: list[float] = []

    def follow(self, events: Iterator[Event]) -> Outcome:
        """Shows all events; Ctrl-C ends the run and is told in the outcome."""
        outcome = Outcome()
        try:
            for event in events:
                self._show(event)
                if isinstance(event, TrialStarted):
                    outcome.kept_epochs = event.resumed_from
                elif isinstance(event, EpochRecord):
                    outcome.kept_epochs = event.result.epoch
                elif isinstance(event, TrialEnded):
                    outcome.trials.append((event.record, event.folder))
        except KeyboardInterrupt:
            outcome.was_interrupted = True
        return outcome

    def _show(self, event: Event) -> None:
        match event:
            case TrialStarted():
                self._start(event)
            case StepDone():
                if self.bar is not None and self.task is not None:
                    self.bar.advance(self.task)
            case EpochRecord():
                self._epoch(event)
            case Scoring():
                self._describe("scoring every subject")
            case TrialEnded():
                self._end(event)

    def _start(self, event: TrialStarted) -> None:
        self.trial, self.seconds = event, []
        title = f"{event.trial.label}, seed {event.trial.seed}"
        if event.resumed_from:
            self.console.print(f"{title}: going on after epoch {event.resumed_from} of {event.epochs}")
        if self.bar is not None:
            steps = event.epochs * event.steps_per_epoch
            self.task = self.bar.add_task(title, total=steps, completed=event.resumed_from * event.steps_per_epoch)

    def _epoch(self, event: EpochRecord) -> None:
        assert self.trial is not None
        self.seconds.append(event.run.train_s + event.run.evaluate_s)
        line = epoch_line(event, self.trial.epochs, self._eta_s(event) if self.bar is None else None)
        self.console.print(line, soft_wrap=True)

    def _eta_s(self, event: EpochRecord) -> float:
        assert self.trial is not None
        return sum(self.seconds) / len(self.seconds) * (self.trial.epochs - event.result.epoch)

    def _describe(self, text: str) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, description=text)

    def _end(self, event: TrialEnded) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        record = event.record
        if event.was_done and record.status == "done":
            self.console.print(f"{record.label}, seed {record.seed}: finished before, nothing was run")
        elif record.status != "done":
            self.console.print(f"{record.label}, seed {record.seed}: {record.status}: {record.cause}", style="bold red")


def epoch_line(event: EpochRecord, epochs: int, eta_s: float | None) -> str:
    """One epoch in at most 80 columns; `train` is of a few training subjects, `val` of all validation subjects."""
    result = event.result
    rates = "/".join(f"{rate:.3g}" for rate in dict.fromkeys(result.lr.values()))
    width = len(str(epochs))
    line = f"epoch {result.epoch:{width}d}/{epochs}  lr {rates:<8} loss {result.loss:<7.4f}"
    if result.val_dice is not None:
        line += f" train {spell(result.train_dice_subset)}  val {spell(result.val_dice)}"
    line += f"  {event.run.train_s + event.run.evaluate_s:.1f} s"
    return line if eta_s is None or result.epoch == epochs else f"{line}  eta {spell_seconds(eta_s)}"


@contextmanager
def follower(console: Console, *, quiet: bool) -> Iterator[Follower]:
    """A Follower for this console: silent, with plain lines, or with a progress bar on a terminal."""
    if quiet:
        yield Follower(Console(quiet=True), None)
        return
    if not console.is_terminal:
        yield Follower(console, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Follower(bar.console, bar)


@contextmanager
def reading_bar(console: Console, *, quiet: bool) -> Iterator["ReadingBar"]:
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
