"""The JSON document that a command prints: made from records, one entry a trial."""

from pathlib import Path
from typing import Any

from dlx.records import TrialRecord
from dlx.report.table import gap


def trial_entry(record: TrialRecord, folder: Path) -> dict[str, Any]:
    """One trial; figures are of the last epoch and null where the trial did not finish."""
    result = record.result
    return {
        "label": record.label,
        "seed": record.seed,
        "status": record.status,
        "cause": record.cause,
        "parameters": record.parameters,
        "epochs": result.epochs if result else None,
        "train_dice": result.train.dice if result else None,
        "val_dice": result.val.dice if result else None,
        "val_dice_per_class": result.val.dice_per_class if result else None,
        "gap": gap(record),
        "best_epoch": result.best_epoch if result else None,
        "best_val_dice": result.best_val_dice if result else None,
        "hd95_mm_per_class": result.val.hd95_mm_per_class if result else None,
        "surface_dice_per_class": result.val.surface_dice_per_class if result else None,
        "seconds": record.run.seconds,
        "folder": str(folder),
    }
