"""What one trial measured, by the names that studies compare by; None where it has no such figure."""

from collections.abc import Iterable, Sequence
from statistics import mean

from dlx import statistics
from dlx.records.schema import EpochResult, TrialRecord, TrialResult
from dlx.study.metrics import split_metric

TITLES = {
    "val_dice": "validation Dice",
    "train_dice": "train Dice",
    "gap": "gap (train - validation Dice)",
    "best_val_dice": "best epoch's validation Dice",
    "hd95_mm": "HD95 (mm)",
    "surface_dice": "normalised surface Dice",
    "jitter": "jitter of validation Dice",
}


TITLES_OF_A_CLASS = {
    "val_dice": "validation Dice of {}",
    "train_dice": "train Dice of {}",
    "gap": "gap of {} (train - validation Dice)",
    "hd95_mm": "HD95 of {} (mm)",
    "surface_dice": "normalised surface Dice of {}",
}


def title_of(metric: str, distance_unit: str = "mm") -> str:
    """What a study's metric is called in tables: `validation Dice`, `validation Dice of edema`."""
    figure, class_name = split_metric(metric)
    title = TITLES[figure] if class_name is None else TITLES_OF_A_CLASS[figure]
    return title.replace("(mm)", f"({distance_unit})").format(class_name)


def figure_of(record: TrialRecord, epochs: Sequence[EpochResult], metric: str) -> float | None:
    """One trial's figure after its last epoch; `epochs` are needed for the jitter alone."""
    result = record.result
    if result is None:
        return None
    metric, class_name = split_metric(metric)
    if class_name is not None:
        return _of_class(result, metric, class_name)
    match metric:
        case "train_dice":
            return result.train.dice
        case "val_dice":
            return result.val.dice
        case "gap":
            return gap(record)
        case "best_val_dice":
            return result.best_val_dice
        case "hd95_mm":
            return mean_of_all(result.val.hd95_mm_per_class)
        case "surface_dice":
            return mean_of_all(result.val.surface_dice_per_class)
        case "jitter":
            known = [(epoch.epoch, epoch.val_dice) for epoch in epochs if epoch.val_dice is not None]
            return statistics.jitter([e for e, _ in known], [v for _, v in known], result.epochs)
    raise ValueError(f"'{metric}' is no figure of a trial")


def _of_class(result: TrialResult, metric: str, class_name: str) -> float | None:
    """The same of one class; None where the trial has no such class."""
    train, val = (scores.dice_per_class.get(class_name) for scores in (result.train, result.val))
    match metric:
        case "train_dice":
            return train
        case "val_dice":
            return val
        case "gap":
            return None if train is None or val is None else train - val
        case "hd95_mm":
            return (result.val.hd95_mm_per_class or {}).get(class_name)
        case "surface_dice":
            return (result.val.surface_dice_per_class or {}).get(class_name)
    raise ValueError(f"'{metric}' is no figure of one class")


def dice_of_classes(records: Iterable[TrialRecord | None]) -> dict[str, dict[int, float | None]]:
    """Class -> seed -> validation Dice, of the trials that ran through."""
    found: dict[str, dict[int, float | None]] = {}
    for record in records:
        if record is not None and record.result is not None:
            for name, dice in record.result.val.dice_per_class.items():
                found.setdefault(name, {})[record.seed] = dice
    return found


def gap(record: TrialRecord) -> float | None:
    """Train minus validation Dice after the last epoch: how far the network overfits."""
    if record.result is None or record.result.train.dice is None or record.result.val.dice is None:
        return None
    return record.result.train.dice - record.result.val.dice


def mean_of_all(figures: dict[str, float | None] | None) -> float | None:
    """The mean over classes; None where a class has no figure, since a mean of the others would flatter."""
    values = list((figures or {}).values())
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None
