"""epochs.csv: a row for each epoch of each trial, finished or not, made from the study's records alone."""

from dlx.records.archive import StudyRecords
from dlx.records.schema import EpochRecord
from dlx.report.files.csv_tables import TRIAL_COLUMNS, Cell, ValueTable, trials_in_order
from dlx.study.metrics import epoch_value

METRIC_COLUMNS = (
    *("loss", "train_soft_dice_running", "train_dice_subset", "val_dice", "gap_subset"),
    "val_soft_dice",
)
EPOCH_COLUMNS = (*TRIAL_COLUMNS, "trial", "epoch", *METRIC_COLUMNS, "train_seconds", "evaluate_seconds")


def epochs_table(records: StudyRecords) -> ValueTable:
    """A row for each epoch: losses, Dice, seconds, the learning rate, and the validation Dice of each class.

    The rate is in the column `lr`; if the rates of parameter groups differ in some epoch, each group has a column
    `lr:GROUP` instead. Classes are in columns `val_dice:CLASS`. A cell without a value was not measured.
    """
    epochs = [epoch for trial in records.trials for epoch in trial.epochs]
    groups = _groups(epochs)
    classes = dict.fromkeys(name for epoch in epochs for name in epoch.result.val_dice_per_class or {})
    columns = (*EPOCH_COLUMNS, *(f"lr:{group}" if group else "lr" for group in groups))
    rows = (
        (*trial, history.entry.trial, *_of_epoch(epoch, groups), *(_dice_of(epoch, name) for name in classes))
        for trial, history in trials_in_order(records)
        for epoch in history.epochs
    )
    return ValueTable((*columns, *(f"val_dice:{name}" for name in classes)), tuple(rows))


def _of_epoch(epoch: EpochRecord, groups: list[str]) -> tuple[Cell, ...]:
    """The cells from `epoch` to the learning rates."""
    result, run = epoch.result, epoch.run
    measured = (getattr(result, name) for name in METRIC_COLUMNS)
    rates = (result.lr.get(group) if group else next(iter(result.lr.values()), None) for group in groups)
    return result.epoch, *measured, run.train_s, run.evaluate_s, *rates


def _groups(epochs: list[EpochRecord]) -> list[str]:
    """The parameter groups whose rates need columns of their own; one empty name if all groups always have one rate."""
    if all(len(set(epoch.result.lr.values())) <= 1 for epoch in epochs):
        return [""]
    return list(dict.fromkeys(group for epoch in epochs for group in epoch.result.lr))


def _dice_of(epoch: EpochRecord, class_name: str) -> float | None:
    return epoch_value(epoch.result, f"val_dice:{class_name}")
