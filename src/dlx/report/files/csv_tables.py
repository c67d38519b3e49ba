"""A study's values as tables for other programs: cases.csv and results.csv, made from its records alone.

epochs.csv is in `epochs_csv.py`. Text is in quotes, numbers are not, and a cell without a value is empty. Numbers have
all their digits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.report.findings.patients import case_values
from dlx.report.findings.variants import place
from dlx.study.axes import spell_value
from dlx.study.metrics import trial_value
from dlx.study.results import TrialResult

Cell = str | float | bool | None

TRIAL_COLUMNS = ("study", "variant", "seed", "fold")
CASE_COLUMNS = (*TRIAL_COLUMNS, "case", "person", "class", "dice", "hd95", "distance_unit", "surface_dice")
RESULT_COLUMNS = (
    *TRIAL_COLUMNS,
    *("status", "parameters", "epochs", "train_dice", "val_dice", "gap", "best_epoch", "best_val_dice"),
    *("hd95", "distance_unit", "surface_dice", "seconds"),
)


@dataclass(frozen=True)
class ValueTable:
    """Rows of values under columns; None is no value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def csv(self) -> str:
        """The table as text, a line each for the columns and each row."""
        return "".join(f"{','.join(map(_spell, row))}\n" for row in (self.columns, *self.rows))


def cases_table(records: StudyRecords) -> ValueTable:
    """A row for each class of each validation case of each finished trial: Dice, HD95 and surface Dice."""
    persons = records.header.persons
    rows = (
        (*trial, case, persons.get(case, case), *values)
        for trial, history in trials_in_order(records)
        if history.record is not None and history.record.result is not None
        for case, *values in _of_cases(history.record.result)
    )
    return ValueTable(CASE_COLUMNS, tuple(rows))


def _of_cases(result: TrialResult) -> Iterator[tuple[str, str, Cell, Cell, Cell, Cell]]:
    """Case, class, Dice, HD95, its unit, and surface Dice."""
    dice, hd95, surface = (case_values(result, metric) for metric in ("val_dice", "hd95_mm", "surface_dice"))
    for case, scores in result.val.cases.items():
        for name in scores.dice:
            distance = (hd95[case].get(name), result.distance_unit)
            yield case, name, dice[case].get(name), *distance, surface[case].get(name)


def results_table(records: StudyRecords) -> ValueTable:
    """A row for each trial, finished or not: its scores, and the values of its variant on the study's axes."""
    axes = tuple(dict.fromkeys(records.header.axes))
    values = {variant.label: variant.values for variant in records.header.variants}
    rows = (
        (*trial, *_of_trial(history), *(_axis_cell(values[history.entry.label], axis) for axis in axes))
        for trial, history in trials_in_order(records)
    )
    return ValueTable((*RESULT_COLUMNS, *_axis_columns(axes)), tuple(rows))


def _of_trial(trial: TrialHistory) -> tuple[Cell, ...]:
    """The cells from `status` to `seconds`."""
    record = trial.record
    result = record.result if record else None
    return (
        record.status if record else "unfinished",
        record.parameters if record else None,
        result.epochs if result else len(trial.epochs),
        *(trial_value(result, metric) for metric in ("train_dice", "val_dice", "gap")),
        result.best_epoch if result else None,
        *(trial_value(result, metric) for metric in ("best_val_dice", "hd95_mm")),
        result.distance_unit if result else None,
        trial_value(result, "surface_dice"),
        record.run.seconds if record else None,
    )


def trials_in_order(records: StudyRecords) -> Iterator[tuple[tuple[Cell, ...], TrialHistory]]:
    """The trials by variant, fold and seed, each with the cells of TRIAL_COLUMNS."""
    for label, trials in place(records.trials, records.header).items():
        for trial in trials.values():
            yield (records.header.name, label, trial.entry.seed, trial.entry.fold), trial


def _axis_columns(axes: Sequence[str]) -> list[str]:
    """The names of the axes; one that names another column too, such as `variant`, becomes `axis:variant`."""
    columns: list[str] = []
    for axis in axes:
        name = axis
        while name in (*RESULT_COLUMNS, *columns):
            name = f"axis:{name}"
        columns.append(name)
    return columns


def _axis_cell(values: dict[str, object], axis: str) -> Cell:
    """A value on an axis: numbers as they are, all else as in a label."""
    value = values.get(axis)
    return value if isinstance(value, int | float) else spell_value(value)


def _spell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return '"{}"'.format(cell.replace('"', '""'))
    return str(cell).lower() if isinstance(cell, bool) else repr(cell)
