"""Tables for the terminal: the scores of one trial, or of the seeds of one variant."""

from collections.abc import Iterable, Mapping, Sequence

from dlx.records.schema import TrialRecord
from dlx.report.findings.variants import dice_of_classes
from dlx.report.shown.recorded_settings import read_settings
from dlx.report.terminal.grid import Column, Grid, Line, Row, Trimmed
from dlx.report.wording.formatting import signed, spell, spell_seconds, spell_spread
from dlx.report.wording.verdicts import spell_collapse
from dlx.settings.text import counted
from dlx.statistics.claims import Estimate
from dlx.statistics.collapse import Collapse, find_collapse
from dlx.study.metrics import trial_value
from dlx.study.results import TrialResult
from dlx.study.run_id import RunId

DICE = ("train_dice", "val_dice", "gap")


def trial_table(record: TrialRecord) -> Trimmed:
    """One trial after its last epoch: a row per class, their mean, and lines on best epoch, subjects and time."""
    result = record.result
    assert result is not None
    evaluate, unit = read_settings(record.settings).evaluate, result.distance_unit
    tolerance = evaluate.surface_tolerance_mm
    titles = ("train Dice", "val Dice", "gap", ("val HD95", unit), ("val surface", f"Dice {tolerance:g} {unit}"))
    rows = [Row(_scores_row(name, result, f":{name}")) for name in result.val.dice_per_class]
    cells = _scores_row(name_of_mean(result.val.dice_per_class), result, "")
    rows.append(Row(cells, style="bold", starts_section=True))
    grid = Grid(
        (Column("class"), *(Column(title, is_number=True) for title in titles)),
        tuple(rows),
        title=f"{record.label}, seed {record.seed}: after epoch {result.epochs}",
    )
    best = f"best epoch {result.best_epoch}: val Dice {spell(result.best_val_dice)} (selected on the validation data)"
    if (evaluate.every or 1) >= result.epochs:
        best = "validated once, after the last epoch"
    unknown = [name for name, value in (result.val.hd95_mm_per_class or {}).items() if value is None]
    facts = (
        f"{len(result.train.cases)} training and {counted(len(result.val.cases), 'validation subject')}, "
        f"{record.parameters:,} parameters, {spell_seconds(record.run.seconds)} on {record.run.device}"
    )
    lines = [Line(best), Line(facts)]
    if unknown:
        cause = "no validation case has it in mask and prediction; the mean is left out"
        lines.insert(0, Line(f"no HD95 of {', '.join(unknown)}: {cause}"))
    return Trimmed((grid, *lines))


def name_of_mean(classes: Iterable[str]) -> str:
    """The name of the row with the mean over classes, also if a class is called `mean`."""
    return "mean of all" if "mean" in classes else "mean"


def _scores_row(title: str, result: TrialResult, of_class: str) -> tuple[str, ...]:
    """The scores of one class (`of_class` is `:edema`) or of all (empty)."""
    hd95, surface = trial_value(result, f"hd95_mm{of_class}"), trial_value(result, f"surface_dice{of_class}")
    return title, *_dice_cells(result, of_class), spell(hd95, 2), spell(surface)


def _dice_cells(result: TrialResult, of_class: str) -> tuple[str, str, str]:
    train, val, gap = (trial_value(result, metric + of_class) for metric in DICE)
    return spell(train), spell(val), signed(gap)


def seeds_table(records: Sequence[TrialRecord]) -> Trimmed:
    """A row a seed, their mean and spread (standard deviation over seeds), and below it the same of each class."""
    titles = ("seed", "train Dice", "val Dice", "gap", "best val Dice (epoch)", "seconds")
    rows = [Row((str(record.seed), *run_cells(record))) for record in records]
    results = [record.result for record in records if record.result is not None]
    over_seeds = [Estimate.of(trial_value(result, metric) for result in results) for metric in DICE]
    if all(estimate.n > 1 for estimate in over_seeds):
        train, val, gap = over_seeds
        rows.append(Row(("mean", spell(train.mean), spell(val.mean), signed(gap.mean), "", ""), starts_section=True))
        rows.append(Row(("spread", *(spell(estimate.sd) for estimate in over_seeds), "", "")))
    columns = tuple(Column(title, is_number=True) for title in titles)
    grid = Grid(columns, tuple(rows), title=f"{records[0].label}: {len(records)} seeds")
    collapse, warning = collapse_lines(records[0].label, {record.seed: record for record in records})
    return Trimmed((grid, *warning, *classes_table(results, collapse, over="seeds")))


def run_cells(record: TrialRecord) -> tuple[str, ...]:
    """The Dice of a run, that of its best epoch, and its seconds."""
    if record.result is None:
        return record.status, "-", "-", "-", f"{record.run.seconds:.0f}"
    best = f"{spell(record.result.best_val_dice)} ({record.result.best_epoch})"
    return *_dice_cells(record.result, ""), best, f"{record.run.seconds:.0f}"


def collapse_lines(label: str, records: Mapping[RunId, TrialRecord]) -> tuple[Collapse, list[Line]]:
    """What of these runs of one network collapsed, and a line that says so."""
    dice = {run: record.result.val.dice if record.result else None for run, record in records.items()}
    of_classes = dice_of_classes(records)
    collapse = find_collapse(dice, dice, [*dice], classes=of_classes, control_classes=of_classes)
    return collapse, [Line(f"{label}: {spell_collapse(collapse)}", "red")] if collapse else []


def classes_table(results: Sequence[TrialResult], collapse: Collapse, *, over: str) -> tuple[Grid, ...]:
    """A row a class: mean and standard deviation over the runs that ended; nothing if fewer than two did."""
    if len(results) < 2:
        return ()
    unit = results[0].distance_unit
    titles = {"train_dice": "train Dice", "val_dice": "val Dice", "gap": "gap", "hd95_mm": f"val HD95 {unit}"}
    rows = []
    for name in results[0].val.dice_per_class:
        is_mixed = bool(collapse.of_metric(f"val_dice:{name}"))
        cells = [name]
        for metric in titles:
            known = Estimate.of(trial_value(result, f"{metric}:{name}") for result in results)
            cells.append(spell_spread(known, is_mixed=is_mixed, has_sign=metric == "gap"))
        rows.append(Row(tuple(cells)))
    columns = (Column(title, is_number=True, may_stack=True) for title in titles.values())
    title = f"each class over {over}: mean ± standard deviation"
    title += ", or lowest to highest where a run collapsed or never learned it" * bool(collapse)
    return (Grid((Column("class"), *columns), tuple(rows), title=title),)
