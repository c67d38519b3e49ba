"""What one trial measured, by the names that studies compare by; None where it has no such figure."""

from collections.abc import Sequence
from statistics import mean

from dlx import statistics
from dlx.records import EpochResult, TrialRecord

TITLES = {
    "val_dice": "validation Dice",
    "train_dice": "train Dice",
    "gap": "gap (train - validation Dice)",
    "best_val_dice": "best epoch's validation Dice",
    "hd95_mm": "HD95 (mm)",
    "surface_dice": "normalised surface Dice",
    "jitter": "jitter of validation Dice",
}


def figure_of(record: TrialRecord, epochs: Sequence[EpochResult], metric: str) -> float | None:
    """One trial's figure after its last epoch; `epochs` are needed for the jitter alone."""
    result = record.result
    if result is None:
        return None
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
