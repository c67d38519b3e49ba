"""Trains a finished run longer: its trials go on, after their last epoch, under the schedule of a longer run.

If that schedule would have set the same rates in the epochs that are over (`constant`, `step:step_size=4`), the longer
trial is the one that a run of that length makes from the start, bit for bit on a CPU, and has its id. Otherwise, as
with `cosine`, which ends at 0 and is now stretched, it is another trial: its id contains the trial that it continues.

Nothing of the earlier run is changed. The longer trial gets a folder of its own, and in it a checkpoint at the epoch
where it begins, which is then resumed like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlx.engine import checkpoint
from dlx.engine.checkpoint import Checkpoint
from dlx.execution.planning.plan import Plan, load_study
from dlx.execution.trials.trial import Task
from dlx.records.archive import TrialHistory, read_study
from dlx.records.schema import EpochRecord
from dlx.settings.layers import make_spec, settings_differences
from dlx.settings.spec import Spec
from dlx.study.continued import Continued, ContinuedTrial
from dlx.study.run_id import RunId, spell_run
from dlx.study.study import Study
from dlx.system.errors import DataError, SettingError
from dlx.training.schedules import Replayed, replay

VALIDATION = ("val_dice", "val_dice_per_class", "val_soft_dice", "train_dice_subset")  # of an epoch's result


@dataclass(frozen=True)
class LongerStudy:
    """A study whose trials continue those of a finished run, and what the user is told of that."""

    study: Study
    earlier: dict[RunId, TrialHistory]
    epoch: int  # the last one of the earlier run
    remark: str


def lengthen(folder: Path, epochs: int) -> LongerStudy:
    """The study of a run's folder with more epochs; SettingError or DataError if its trials cannot go on."""
    study = load_study(folder)
    before = study.base.train.epochs
    if epochs <= before:
        raise SettingError(f"--epochs {epochs}: {folder} was trained for {before} epochs; give a larger number")
    records = read_study(folder)
    earlier = {trial.entry.run: trial for trial in records.trials}
    for trial in earlier.values():
        _check_finished(folder, trial, before)
    spec = _longer_spec(folder, study.base, list(earlier.values()), epochs)
    replayed = [_replay(spec, trial.epochs) for trial in earlier.values()]
    obstacle = _why_another_trial(study, spec, list(earlier.values()), replayed)
    continued = None if obstacle is None else _continued(records.trials, before)
    variant = study.variants[0].model_copy(update={"spec": spec})
    study = study.model_copy(update={"variants": (variant,), "continued": continued})
    return LongerStudy(study, earlier, before, _remark(folder, before, epochs, spec, obstacle))


def begin(plan: Plan, longer: LongerStudy) -> None:
    """Gives each trial of the plan its folder with the checkpoint from which it goes on; trials that have one, or a
    result, are left alone. SettingError if a trial would go on with other settings than it began with.
    """
    for task in plan.trials:
        _check_settings(task, longer.earlier[task.trial.run])
    for task in plan.trials:
        with task.folder.locked():
            if task.folder.result() is None and not task.folder.last.exists():
                _plant(task, longer.earlier[task.trial.run], longer)


def _check_finished(folder: Path, trial: TrialHistory, epochs: int) -> None:
    """Refuses a trial that did not train to its end, or whose checkpoint is gone."""
    name, record = f"{trial.entry.label}, {spell_run(trial.entry.run)}", trial.record
    if record is None:
        raise SettingError(f"{folder}: {name} has not finished; finish it first: dlx train --resume {folder}")
    if record.result is None:
        raise SettingError(f"{folder}: {name} {record.status} and cannot be trained longer: {record.cause}")
    if record.result.epochs < epochs:
        raise SettingError(
            f"{folder}: {name} stopped in epoch {record.result.epochs} of {epochs} because its validation Dice rose no "
            "more (train.patience), so more epochs would not be trained; start anew with another --patience"
        )
    last = _folder_of(trial) / "last.safetensors"
    if len(trial.epochs) != epochs:
        raise DataError(f"{last.parent}: holds the records of {len(trial.epochs)} epochs of {epochs}")
    if not last.exists():
        raise DataError(f"{last}: missing, and without it {name} cannot be trained longer")


def _folder_of(trial: TrialHistory) -> Path:
    assert trial.folder is not None  # the records are those of a folder
    return trial.folder


def _longer_spec(folder: Path, spec: Spec, trials: Sequence[TrialHistory], epochs: int) -> Spec:
    """The settings with more epochs, and with the interval of validation and the size of its batches as they were
    chosen for the earlier run: by default they depend on the number of epochs.
    """
    chosen: dict[str, Any] = {}
    for key in ("every", "batch_size"):
        values = {trial.record.settings["evaluate"][key] for trial in trials if trial.record is not None}
        if len(values) > 1:
            raise SettingError(
                f"{folder}: evaluate.{key} is not the same in all folds ({', '.join(map(str, sorted(values)))}); start "
                f"anew with --set evaluate.{key}=N"
            )
        chosen[key] = values.pop()
    settings = spec.model_dump(mode="json")
    settings["train"]["epochs"] = epochs
    settings["evaluate"] |= chosen
    return make_spec(settings)


def _replay(spec: Spec, epochs: Sequence[EpochRecord], groups: Sequence[str] = ()) -> Replayed:
    """The schedule of the longer run at the end of the earlier one. `groups`: the names of the optimizer's, by default
    those in the records.
    """
    first = spec.optimizer.lr
    named = [(name, spec.optimizer.group_lr.get(name, first)) for name in groups or epochs[0].result.lr]
    dice = [epoch.result.val_dice for epoch in epochs]
    return replay(spec.scheduler.name, spec.scheduler.args, named, spec.train.epochs, dice)


def _why_another_trial(
    study: Study, spec: Spec, trials: Sequence[TrialHistory], replayed: Sequence[Replayed]
) -> str | None:
    """Why the longer trials differ from those of a run of that length from the start; None if they do not."""
    for trial, schedule in zip(trials, replayed, strict=True):
        rates = [epoch.result.lr for epoch in trial.epochs]
        if schedule.rates[:-1] != rates:
            last, then = (_spell_rates(one) for one in (rates[-1], schedule.rates[-1]))
            epoch = len(rates)
            return (
                f"the schedule '{spec.scheduler}' is stretched to {spec.train.epochs} epochs, so the learning rate "
                f"goes from {last} in epoch {epoch} to {then} in epoch {epoch + 1}"
            )
        if not _is_validated(spec, len(rates)) and _best_epoch(trial) == len(rates):
            return (
                f"epoch {len(rates)} has the best validation Dice, but a run of {spec.train.epochs} epochs would not "
                f"validate it (evaluate.every={spec.evaluate.every})"
            )
    return None if study.continued is None else "they continue another run"


def _spell_rates(rates: dict[str, float]) -> str:
    return " / ".join(f"{rate:.3g}" for rate in dict.fromkeys(rates.values()))


def _is_validated(spec: Spec, epoch: int) -> bool:
    """Whether an epoch that is not the last one is validated."""
    return epoch % (spec.evaluate.every or 1) == 0


def _best_epoch(trial: TrialHistory) -> int | None:
    return None if trial.record is None or trial.record.result is None else trial.record.result.best_epoch


def _continued(trials: Sequence[TrialHistory], epoch: int) -> Continued:
    entries = [trial.entry for trial in trials]
    return Continued(
        epoch=epoch,
        trials=tuple(ContinuedTrial(seed=entry.seed, fold=entry.fold, trial=entry.trial) for entry in entries),
    )


def _remark(folder: Path, before: int, epochs: int, spec: Spec, obstacle: str | None) -> str:
    start = f"continues {folder} after epoch {before}"
    if obstacle is None:
        return (
            f"{start}: the schedule '{spec.scheduler}' sets the same rates in a run of {epochs} epochs, so this is the "
            f"run of {epochs} epochs from the start"
        )
    return (
        f"{start}: {obstacle}. This is not the run of {epochs} epochs from the start, and is recorded as one that "
        "continues another (train.continue_from)"
    )


def _check_settings(task: Task, trial: TrialHistory) -> None:
    """Refuses to go on with other data, another device or another version's numbers than those of the first epochs."""
    assert trial.record is not None
    kept = [
        line
        for line in settings_differences(trial.record.settings, task.settings)
        if line.partition(":")[0] not in ("train.epochs", "train.continue_from")
        and not line.startswith("train.continue_from.")
    ]
    if kept:
        raise SettingError(
            f"{task.trial.name}: cannot be trained longer here, as its first epochs were trained with other settings: "
            f"{'; '.join(kept[:4])}"
        )


def _plant(task: Task, trial: TrialHistory, longer: LongerStudy) -> None:
    """Writes the records and checkpoints with which the trial begins; the last file is the one that it resumes from."""
    spec, last = task.resolved.spec, _folder_of(trial) / "last.safetensors"
    saved = checkpoint.read(last)
    progress = saved.header.get("progress", {})
    if saved.header.get("trial") != trial.entry.trial or progress.get("epoch") != longer.epoch:
        raise DataError(f"{last}: is not the checkpoint of epoch {longer.epoch} of this trial")
    records = list(trial.epochs)
    schedule = _replay(spec, records, checkpoint.group_names(saved))
    if task.resolved.continued is None and not _is_validated(spec, longer.epoch):
        unmeasured = records[-1].result.model_copy(update=dict.fromkeys(VALIDATION))
        records[-1] = records[-1].model_copy(update={"result": unmeasured})
    epochs = [record.model_dump(mode="json") for record in records]
    own = {"trial": task.trial_id, "settings": task.settings, "epochs": epochs}
    task.folder.clear()
    task.folder.begin(task.settings)
    task.folder.restore(records)
    if (path := last.with_name("best.safetensors")).exists():
        best = checkpoint.read(path)
        num_epochs = best.header["progress"]["epoch"]
        checkpoint.write(task.folder.best, _with(best, own | {"epochs": epochs[:num_epochs]}))
    changed = checkpoint.with_schedule(saved, schedule.next_rates, schedule.state)
    checkpoint.write(task.folder.last, _with(changed, own))


def _with(saved: Checkpoint, header: dict[str, Any]) -> Checkpoint:
    return replace(saved, header=saved.header | header)
