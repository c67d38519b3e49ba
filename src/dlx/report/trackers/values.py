"""What trackers show of a trial: its values in each epoch and at its end, and the settings that tell trials apart."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from dlx.records.schema import EpochRecord, StudyHeader, TrialRecord
from dlx.settings.flat import flattened, spell_setting
from dlx.settings.spec import setting_fields
from dlx.study.metrics import trial_value
from dlx.study.results import SetScores

Hyperparameter = str | float | bool
KNOWN_OTHERWISE = ("seed", "split.")  # settings that tell the trials of one variant apart


def epoch_values(epoch: EpochRecord) -> dict[str, float]:
    """The values of an epoch by their names, without those that were not measured.

    The names before a slash are the groups in which TensorBoard shows them. The rate of all parameters is `lr`; if
    those of groups differ, there is `lr/GROUP` for each.
    """
    result, run = epoch.result, epoch.run
    rates = {f"lr/{group}": rate for group, rate in result.lr.items()}
    found: dict[str, float | None] = {
        "loss/train": result.loss,
        "dice/val": result.val_dice,
        "dice/train_subset": result.train_dice_subset,
        "dice/gap_subset": result.gap_subset,
        "soft_dice/train_running": result.train_soft_dice_running,
        "soft_dice/val": result.val_soft_dice,
        **{f"dice_of_class/val/{name}": dice for name, dice in (result.val_dice_per_class or {}).items()},
        **({"lr": next(iter(rates.values()))} if len(set(rates.values())) == 1 else rates),
        "seconds/train": run.train_s,
        "seconds/evaluate": run.evaluate_s,
    }
    return _known(found)


def final_values(record: TrialRecord) -> dict[str, float]:
    """The scores after the last epoch, of whole volumes and all subjects; empty if the trial did not finish."""
    result = record.result
    if result is None:
        return {}
    unit = result.distance_unit
    metrics = {"train_dice": "train_dice", "val_dice": "val_dice", "gap": "gap", "best_val_dice": "best_val_dice"}
    metrics |= {f"val_hd95_{unit}": "hd95_mm", "val_surface_dice": "surface_dice"}
    found = {f"final/{name}": trial_value(result, metric) for name, metric in metrics.items()}
    for side, scores in (("train", result.train), ("val", result.val)):
        found |= _of_classes(side, scores, unit)
    return _known(found)


def _of_classes(side: str, scores: SetScores, unit: str) -> dict[str, float | None]:
    """The scores of single classes; of the training subjects only the Dice is known."""
    measures = {
        "dice": scores.dice_per_class,
        f"hd95_{unit}": scores.hd95_mm_per_class,
        "surface_dice": scores.surface_dice_per_class,
    }
    return {
        f"final_of_class/{side}_{measure}/{name}": value
        for measure, by_class in measures.items()
        for name, value in (by_class or {}).items()
    }


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and isfinite(value)}


def hyperparameters(
    header: StudyHeader, settings: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, dict[str, Hyperparameter]]:
    """Trial id -> what tells it from the other trials of its study: variant, seed, fold, and its place on each axis.

    An axis that is not a single setting (a table of settings, axes that go together) is not enough to filter by: then
    the settings in which trials differ are there too, as far as `settings`, the resolved ones by trial id, are known.
    """
    keys = {setting.key for setting in setting_fields()}
    is_plain = all(axis in keys for axis in header.axes)
    values = {variant.label: variant.values for variant in header.variants}
    differing = {} if is_plain else _differing(header, settings)
    return {
        entry.trial: differing.get(entry.trial, {})
        | {axis: as_hyperparameter(values[entry.label].get(axis)) for axis in header.axes}
        | {"variant": entry.label, "seed": entry.seed, **({} if entry.fold is None else {"fold": entry.fold})}
        for entry in header.trials
    }


def _differing(
    header: StudyHeader, settings: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, dict[str, Hyperparameter]]:
    """Trial id -> the settings in which not all trials agree."""
    flat = {
        entry.trial: {k: as_hyperparameter(v) for k, v in flattened(table).items() if not k.startswith(KNOWN_OTHERWISE)}
        for entry in header.trials
        if (table := settings.get(entry.trial)) is not None
    }
    keys = dict.fromkeys(key for table in flat.values() for key in table)
    unlike = [key for key in keys if len({table.get(key) for table in flat.values()}) > 1]
    return {trial: {key: table[key] for key in unlike if key in table} for trial, table in flat.items()}


def as_hyperparameter(value: Any) -> Hyperparameter:
    """A number or a truth value as it is, everything else as text."""
    return value if isinstance(value, bool | int | float) else spell_setting(value)
