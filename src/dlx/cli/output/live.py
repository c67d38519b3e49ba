"""Live progress on a terminal: a progress bar for one trial, a table of the running trials for several."""

import time
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dlx.cli.output.console import PlainConsole
from dlx.cli.output.head import training_subset
from dlx.engine.fit import StepDone
from dlx.execution.planning.plan import Plan
from dlx.execution.trials.trial import Event, Scoring, TrialEnded, TrialStarted
from dlx.records.schema import EpochRecord
from dlx.report.wording.formatting import spell, spell_seconds
from dlx.study.results import EpochResult
from dlx.system.characters import visible


def train_title(plan: Plan) -> str:
    """`train (2 of 5)` if a validation measures only some of the training subjects, else `train`."""
    subset = training_subset(plan.first)
    return f"train ({subset})" if subset else "train"


class EpochBar:
    """A bar with epoch, step, loss and Dice of one trial and the time left, on a terminal only; removed when the trial
    ends. `progress` is the context in which it is drawn.
    """

    def __init__(self, console: PlainConsole) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID  # from `start` to `end`
        self.epochs = self.steps = 0
        self.last = ""

    def start(self, title: str, epochs: int, steps: int, done: int) -> None:
        """A trial starts; `done` epochs of it were finished before."""
        self.epochs, self.steps, self.last = epochs, steps, ""
        self.task = self.progress.add_task(visible(title), total=epochs * steps, completed=done * steps, facts="")

    def step(self, epoch: int, step: int) -> None:
        """A step ended; loss and Dice shown are those of the last epoch."""
        facts = f"epoch {epoch}/{self.epochs} step {step}/{self.steps}{self.last}"
        self.progress.update(self.task, completed=(epoch - 1) * self.steps + step, facts=facts)

    def epoch(self, result: EpochResult, left_s: float) -> None:
        """An epoch ended; the bar shows its loss and Dice until the next epoch ends."""
        self.last = f"  loss {result.loss:.3f}"
        if result.val_dice is not None:
            self.last += f"  val {result.val_dice:.3f}"
        self.last += f"  eta {spell_seconds(left_s)}"

    def describe(self, text: str) -> None:
        """Replaces the facts by a description of the work after the last step."""
        self.progress.update(self.task, description=text, facts="", total=None)

    def end(self) -> None:
        """The trial ended; removes its bar, if the trial was started."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)


# Narrowest terminals, in columns, in which the table shows a bar (beside the worker, and without that), and in which it
# shows loss and training Dice.
BAR_AND_WORKER_WIDTH, BAR_WIDTH, FULL_WIDTH = 100, 80, 60


def spell_worker(name: str) -> str:
    """`10.0.0.7:41233` for the name that dask gives a worker, its address; any other name as it is."""
    return name.partition("://")[2] or name


@dataclass
class RunningTrial:
    """A trial that is running."""

    started: TrialStarted
    epoch: int
    done_steps: int
    last: EpochResult | None
    is_scoring: bool = False


class TrialsTable:
    """The running trials of a study with their progress; the number of done and waiting trials; the time left.

    `live` is the context in which it is drawn.
    """

    def __init__(self, console: PlainConsole, plan: Plan) -> None:
        self.plan, self.started = plan, time.monotonic()
        self.running: dict[int, RunningTrial] = {}
        self.done = self.failed = 0
        self.steps_done = 0.0
        self.console = console
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)

    def show(self, index: int, event: Event) -> None:
        """Updates the state from an event; `render` draws the state a few times a second."""
        match event:
            case TrialStarted():
                last = event.earlier[-1].result if event.earlier else None
                done_steps = event.resumed_from * event.steps_per_epoch
                self.running[index] = RunningTrial(event, event.resumed_from, done_steps, last)
            case StepDone():
                row = self.running[index]
                self._advance(row, (event.epoch - 1) * row.started.steps_per_epoch + event.step)
                row.epoch = event.epoch
            case EpochRecord():
                row = self.running[index]
                self._advance(row, event.result.epoch * row.started.steps_per_epoch)
                row.last = event.result
            case Scoring():
                self.running[index].is_scoring = True
            case TrialEnded():
                self.running.pop(index, None)
                self.done += 1
                self.failed += event.record.status != "done"

    def _advance(self, row: RunningTrial, steps: int) -> None:
        self.steps_done += steps - row.done_steps
        row.done_steps = steps

    def left_s(self) -> float | None:
        """Seconds until all trials are done, at the average time per step so far; None before the first step."""
        elapsed = time.monotonic() - self.started
        lengths = [p.resolved.spec.train for p in self.plan.trials]
        average = sum(length.epochs * length.steps_per_epoch for length in lengths) / len(lengths)
        to_do = (len(lengths) - self.done) * average - sum(row.done_steps for row in self.running.values())
        return None if self.steps_done < 1 else elapsed / self.steps_done * max(0.0, to_do)

    def render(self) -> Group:
        """The current table, in the width of the console."""
        width = self.console.width
        table = Table(box=SIMPLE_HEAD, expand=True)
        table.add_column("running", overflow="fold", ratio=2, min_width=len("running"))
        if self.plan.study.folds:
            table.add_column("fold", justify="right", no_wrap=True)
        table.add_column("seed", justify="right", no_wrap=True)
        table.add_column("epoch", justify="right", no_wrap=True)
        on_cluster = width >= BAR_WIDTH and any(row.started.worker for row in self.running.values())
        if on_cluster:
            table.add_column("worker", no_wrap=True)
        has_bar = width >= (BAR_AND_WORKER_WIDTH if on_cluster else BAR_WIDTH)
        if has_bar:
            table.add_column("", ratio=1)
        titles = ("loss", train_title(self.plan), "val") if width >= FULL_WIDTH else ("val",)
        for title in titles:
            table.add_column(title, justify="right", min_width=5)
        for row in self.running.values():
            last = row.last
            values = (last.loss, last.train_dice_subset, last.val_dice) if last else (None, None, None)
            started, num_steps = row.started, row.started.epochs * row.started.steps_per_epoch
            bar = [ProgressBar(total=num_steps, completed=row.done_steps)] if has_bar else []
            table.add_row(
                visible(started.trial.label),
                *([] if started.trial.fold is None else [str(started.trial.fold)]),
                str(started.trial.seed),
                "scoring" if row.is_scoring else f"{row.epoch}/{started.epochs}",
                *([visible(spell_worker(started.worker or ""))] if on_cluster else []),
                *bar,
                *map(spell, values[-len(titles) :]),
            )
        waiting = len(self.plan.trials) - self.done - len(self.running)
        left = self.left_s()
        parts = [f"{self.done} of {len(self.plan.trials)} done", f"{len(self.running)} running", f"{waiting} waiting"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{spell_seconds(time.monotonic() - self.started)} so far"]
        parts += [f"about {spell_seconds(left)} left"] if left is not None else []
        return Group(table, Text("  " + ", ".join(parts), no_wrap=True, overflow="ellipsis"))
