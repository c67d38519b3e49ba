"""What `dlx show` prints besides a study's tables: how far trials are, and a single trial."""

from collections.abc import Sequence
from statistics import mean

from dlx.records.schema import EpochRecord
from dlx.report.shown.changed_settings import UNKNOWN, ChangedSetting
from dlx.report.shown.states import TrialState
from dlx.report.terminal.grid import Column, Grid, Line, Row
from dlx.report.wording.formatting import spell
from dlx.study.results import CaseScores, TrialResult
from dlx.study.run_id import spell_run

MAX_EPOCHS, MAX_CASES = 10, 10  # rows of a table that is read at a glance
COLOURS = {"running": "green", "stopped": "yellow"}


def states_table(states: Sequence[TrialState]) -> list[Grid | Line]:
    """A row for each trial that has begun and not ended, and a line on those that wait; nothing if all have ended."""
    begun = [found for found in states if found.state in ("running", "stopped")]
    rows = []
    for found in begun:
        last, validated = found.last, found.last_validated
        loss = spell(last.loss, 4) if last else "-"
        dice = (validated.train_dice_subset, validated.val_dice) if validated else (None, None)
        entry, progress = found.trial.entry, f"{found.num_epochs} of {found.epochs}"
        name = f"{entry.label}, {spell_run(entry.run)}"
        rows.append(Row((name, found.state, progress, loss, *map(spell, dice)), style=COLOURS[found.state]))
    titles = ("epochs", "loss", "train", "val")
    columns = (Column("trial"), Column("state"), *(Column(title, is_number=True) for title in titles))
    title = "trials that have not ended, with the Dice of their last validation"
    parts: list[Grid | Line] = [Grid(columns, tuple(rows), title=title)] if rows else []
    waiting = sum(found.state == "waiting" for found in states)
    return [*parts, *([Line(f"waiting trials: {waiting}")] if waiting else [])]


def bad_ends(states: Sequence[TrialState]) -> list[Line]:
    """A line for each trial that failed or diverged, with its cause."""
    return [
        Line(f"{s.trial.entry.label}, {spell_run(s.trial.entry.run)}: {s.state}: {s.cause}", "bold red")
        for s in states
        if s.state in ("failed", "diverged")
    ]


def settings_table(changed: Sequence[ChangedSetting]) -> Grid | Line:
    """A row for each setting that differs from its default or from the control's."""
    if not changed:
        return Line("All settings that are known have their defaults.")
    has_control = any(setting.control != UNKNOWN for setting in changed)
    rows = tuple(Row((s.key, s.value, s.default, *([s.control] * has_control))) for s in changed)
    columns = tuple(map(Column, ("setting", "value", "default", *(["control"] * has_control))))
    return Grid(columns, rows, title="settings that differ from the defaults" + " or the control's" * has_control)


def epochs_table(epochs: Sequence[EpochRecord], subset: str) -> Grid:
    """The last epochs, a row each; `subset` says of how many training subjects the Dice is, if not of all."""
    rows = []
    for epoch in epochs[-MAX_EPOCHS:]:
        result = epoch.result
        rates = "/".join(f"{rate:.3g}" for rate in dict.fromkeys(result.lr.values()))
        dice = (spell(result.train_dice_subset), spell(result.val_dice))
        seconds = f"{epoch.run.train_s + epoch.run.evaluate_s:.1f}"
        rows.append(Row((str(result.epoch), rates, spell(result.loss, 4), *dice, seconds)))
    train = ("train", f"({subset})") if subset else "train"
    titles: list[str | tuple[str, ...]] = ["epoch", "lr", "loss", train, "val", "seconds"]
    columns = tuple(Column(title, is_number=True) for title in titles)
    which = f"the last {len(rows)} of {len(epochs)} epochs" if len(rows) < len(epochs) else f"all {len(epochs)} epochs"
    return Grid(columns, tuple(rows), title=which)


def hardest_cases_table(result: TrialResult) -> list[Grid]:
    """The validation cases of the lowest mean Dice, with the Dice of each class; none for a single case."""
    means = {case: dice for case, scores in result.val.cases.items() if (dice := mean_dice(scores)) is not None}
    if len(means) < 2:
        return []
    names = list(result.val.dice_per_class)
    rows = []
    for case in sorted(means, key=means.__getitem__)[:MAX_CASES]:
        of_classes = (result.val.cases[case].dice.get(name) for name in names)
        rows.append(Row((case, spell(means[case]), *map(spell, of_classes))))
    columns = (Column("case"), *(Column(title, is_number=True) for title in ("mean", *names)))
    return [Grid(columns, tuple(rows), title=f"the hardest of {len(means)} validation cases: Dice of each class")]


def mean_dice(scores: CaseScores) -> float | None:
    """The mean over the classes that the case has; None without any."""
    known = [value for value in scores.dice.values() if value is not None]
    return mean(known) if known else None
