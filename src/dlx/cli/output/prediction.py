"""What `dlx predict` prints: notes and a progress bar on stderr, and a line with the outcome on stdout."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dlx.cli.output.console import note, notes, output
from dlx.cli.output.head import print_indented
from dlx.cli.parsing import spell_stop
from dlx.report.wording.formatting import spell_seconds
from dlx.settings.text import counted
from dlx.system.characters import visible

if TYPE_CHECKING:
    from dlx.prediction.predict import FailedCase, PredictedCase, PredictionPlan


def print_notes(lines: Sequence[str]) -> None:
    """Prints notes on stderr, as training commands do."""
    console = notes()
    for line in lines:
        print_indented(f"note     {line}", console)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[float, int, str], None]]:
    """A function to call with (done, total, case): it draws a bar on stderr, on a terminal only."""
    console = notes()
    bar = Progress(
        TextColumn("predicting"),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[case]}", markup=False),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("predicting", visible=False, count="", case="")

        def show(done: float, total: int, case: str) -> None:
            count = f"{int(done)}/{total}"
            bar.update(task, completed=done, total=total, visible=True, count=count, case=visible(case))

        yield show


def print_end(
    plan: "PredictionPlan",
    outcomes: Sequence["PredictedCase | FailedCase"],
    interrupt: KeyboardInterrupt | None,
) -> None:
    """Prints how many cases were predicted, how long one took, and where they are; after a stop how to go on."""
    from dlx.prediction.predict import PredictedCase

    made = [case for case in outcomes if isinstance(case, PredictedCase)]
    new = [case for case in made if not case.was_done]
    parts = [counted(len(new), "case") + " predicted"]
    if new:
        each = sum(case.seconds for case in new) / len(new)
        parts[0] += f" ({spell_seconds(each)} each)" if len(new) > 1 else f" in {spell_seconds(each)}"
    if len(made) > len(new):
        parts.append(f"{len(made) - len(new)} already complete")
    if len(outcomes) > len(made):
        parts.append(f"{len(outcomes) - len(made)} failed")
    networks = counted(len(plan.ensemble.members), "network")
    output().print(visible(f"{plan.out}: {', '.join(parts)}, by {networks} on {plan.ensemble.device}"), soft_wrap=True)
    if interrupt is not None:
        left = len(plan.scans) - len(outcomes)
        note(f"\n{spell_stop(interrupt)}; {counted(left, 'case')} left: the same command goes on")
