"""Tables of single trials on a terminal: what one scored, and several seeds beside each other."""

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from dlx.records.schema import SetScores, TrialRecord
from dlx.report.formatting import signed, spell, spell_seconds, spell_spread
from dlx.report.measures import dice_of_classes, figure_of, gap, mean_of_all
from dlx.report.terminal.grid import Column, Grid, Line, Row, Trimmed
from dlx.report.words import spell_collapse
from dlx.settings.text import counted
from dlx.statistics import Collapse, Estimate, find_collapse


def trial_table(record: TrialRecord) -> Trimmed:
    """One trial after its last epoch: a row per class and their mean, and below it what else is known of it."""
    result = record.result
    assert result is not None
    tolerance, unit = record.settings["evaluate"]["surface_tolerance_mm"], result.distance_unit
    titles = ("train Dice", "val Dice", "gap", ("val HD95", unit), ("val surface", f"Dice {tolerance:g} {unit}"))
    rows = [Row(_class_row(name, result.train, result.val)) for name in result.val.dice_per_class]
    means = [mean_of_all(figures) for figures in (result.val.hd95_mm_per_class, result.val.surface_dice_per_class)]
    rows.append(
        Row(
            (
                name_of_mean(result.val.dice_per_class),
                spell(result.train.dice),
                spell(result.val.dice),
                signed(gap(record)),
                spell(means[0], 2),
                spell(means[1]),
            ),
            style="bold",
            starts_section=True,
        )
    )
    grid = Grid(
        (Column("class"), *(Column(title, is_number=True) for title in titles)),
        tuple(rows),
        title=f"{record.label}, seed {record.seed}: after epoch {result.epochs}",
    )
    best = f"best epoch {result.best_epoch}: val Dice {spell(result.best_val_dice)} (selected on the validation data)"
    if record.settings["evaluate"]["every"] >= result.epochs:
        best = "validated once, after the last epoch"
    unknown = [name for name, value in (result.val.hd95_mm_per_class or {}).items() if value is None]
    facts = (
        f"{len(result.train.cases)} training and {counted(len(result.val.cases), 'validation subject')}, "
        f"{record.parameters:,} parameters, {spell_seconds(record.run.seconds)} on {record.run.device}"
    )
    lines = [best, facts]
    if unknown:
        lines.insert(
            0,
            f"no HD95 of {', '.join(unknown)}: no validation case has it in mask and prediction; the mean is left out",
        )
    return Trimmed((grid, *map(Line, lines)))


def name_of_mean(classes: Iterable[str]) -> str:
    """What the row of the mean over classes is called; a class may be called `mean`."""
    return "mean of all" if "mean" in classes else "mean"


def _class_row(name: str, train: SetScores, val: SetScores) -> tuple[str, ...]:
    train_dice, val_dice = train.dice_per_class[name], val.dice_per_class[name]
    difference = None if train_dice is None or val_dice is None else train_dice - val_dice
    hd95 = (val.hd95_mm_per_class or {}).get(name)
    surface = (val.surface_dice_per_class or {}).get(name)
    return name, spell(train_dice), spell(val_dice), signed(difference), spell(hd95, 2), spell(surface)


def seeds_table(records: Sequence[TrialRecord]) -> Trimmed:
    """A row a seed, their mean and spread (standard deviation over seeds), and below it the same of each class."""
    titles = ("train Dice", "val Dice", "gap", "best val Dice (epoch)", "seconds")
    shown = []
    rows: list[tuple[float | None, float | None, float | None]] = []
    for record in records:
        if record.result is None:
            cells: tuple[str, ...] = (str(record.seed), record.status, "-", "-", "-", f"{record.run.seconds:.0f}")
            shown.append(Row(cells))
            continue
        result = record.result
        rows.append((result.train.dice, result.val.dice, gap(record)))
        shown.append(
            Row(
                (
                    str(record.seed),
                    spell(result.train.dice),
                    spell(result.val.dice),
                    signed(gap(record)),
                    f"{spell(result.best_val_dice)} ({result.best_epoch})",
                    f"{record.run.seconds:.0f}",
                )
            )
        )
    for name, of, has_sign in (("mean", mean, True), ("spread", stdev, False)):
        columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
        if all(len(column) > 1 for column in columns) and columns:
            figures = [of(column) for column in columns]
            last = signed(figures[2]) if has_sign else spell(figures[2])
            cells = (name, spell(figures[0]), spell(figures[1]), last, "", "")
            shown.append(Row(cells, starts_section=name == "mean"))
    grid = Grid(
        tuple(Column(title, is_number=True) for title in ("seed", *titles)),
        tuple(shown),
        title=f"{records[0].label}: {len(records)} seeds",
    )
    dice = {record.seed: record.result.val.dice if record.result else None for record in records}
    of_classes = dice_of_classes(records)
    collapse = find_collapse(dice, dice, [*dice], classes=of_classes, control_classes=of_classes)
    warning = [Line(f"{records[0].label}: {spell_collapse(collapse)}", "red")] if collapse else []
    return Trimmed((grid, *warning, *_classes_over_seeds(records, collapse)))


def _classes_over_seeds(records: Sequence[TrialRecord], collapse: Collapse) -> tuple[Grid, ...]:
    """A row a class: mean and standard deviation over the seeds that ended; nothing where fewer than two did."""
    results = [record.result for record in records if record.result is not None]
    if len(results) < 2:
        return ()
    unit = results[0].distance_unit
    titles = {"train_dice": "train Dice", "val_dice": "val Dice", "gap": "gap", "hd95_mm": f"val HD95 {unit}"}
    rows = []
    for name in results[0].val.dice_per_class:
        is_mixed = bool(collapse.of_metric(f"val_dice:{name}"))
        cells = [name]
        for figure in titles:
            found = [figure_of(record, (), f"{figure}:{name}") for record in records]
            known = Estimate(tuple(value for value in found if value is not None))
            cells.append(spell_spread(known, is_mixed=is_mixed, has_sign=figure == "gap"))
        rows.append(Row(tuple(cells)))
    columns = (Column(title, is_number=True, may_stack=True) for title in titles.values())
    title = "each class over seeds: mean ± standard deviation"
    title += ", or lowest to highest where a run collapsed or never learned it" * bool(collapse)
    return (Grid((Column("class"), *columns), tuple(rows), title=title),)
