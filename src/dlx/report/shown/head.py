"""The head of a run from its records: data, split, network, training, device, notes, variants, as it printed them."""

from collections.abc import Mapping, Sequence
from typing import Any

from dlx.records.archive import StudyRecords, TrialHistory
from dlx.records.schema import StudyHeader
from dlx.report.shown.recorded_settings import RecordedSettings, read_settings
from dlx.report.wording import head_lines as lines
from dlx.settings.part import Part


def recorded_head(records: StudyRecords) -> list[str]:
    """A line each for what the records know; only notes and variants if no trial has begun."""
    header = records.header
    found = trial_head(header, _of_control(records), num_folds=len(header.folds))
    found += [f"note     {remark}" for remark in header.remarks]
    if len(header.variants) > 1:
        labels = [variant.label for variant in header.variants]
        ended = f"{sum(trial.record is not None for trial in records.trials)} ended"
        found += lines.variant_lines(labels, header.control, header.seeds, len(header.folds), ended)
    return found


def _of_control(records: StudyRecords) -> list[TrialHistory]:
    """The control's trials of the first seed, one for each fold; of the first variant without a control."""
    header = records.header
    label = header.control or header.variants[0].label
    return [trial for trial in records.trials if (trial.entry.label, trial.entry.seed) == (label, header.seeds[0])]


def trial_head(header: StudyHeader | None, trials: Sequence[TrialHistory], num_folds: int = 0) -> list[str]:
    """The lines about data, split, network, training and device of these trials, which differ in the fold alone.

    Without a header, which alone names the data's folder and the persons, these are not known. `num_folds` is named if
    the trials are those of a cross-validation.
    """
    settings = [read_settings(known) for trial in trials if (known := trial.settings()) is not None]
    if not settings:
        return []
    persons = header.persons if header is not None else {}
    record = next((trial.record for trial in trials if trial.record is not None), None)
    first = settings[0]
    source = _source(header.settings) if header is not None else "unknown"
    is_known = header is not None or bool(first.channels)
    found = [lines.data_line(source, first.channels, first.classes[1:])] if is_known else []
    if first.split.train:
        found.append(lines.split_line([_sizes(one, persons) for one in settings], num_folds))
    if first.model is not None:
        parts = [str(part.name) for part in (first.optimizer.name, first.scheduler) if part is not None]
        losses = [part.name for part in first.loss]
        num_parameters = record.parameters if record is not None else None
        found.append(lines.network_line(first.model, num_parameters, losses, parts))
    return [*found, *_training(first), *_device(first, record.run.device if record is not None else "")]


def _training(settings: RecordedSettings) -> list[str]:
    train, batch, evaluate = settings.train, settings.batch, settings.evaluate
    if train.epochs is None or train.steps_per_epoch is None or batch.size is None:
        return []
    subset = lines.subset_words(evaluate.train_subset, len(settings.split.train))
    length, patches = (train.epochs, train.steps_per_epoch), batch.patch_size_px or ()
    return [lines.training_line(*length, batch.size, batch.kind, patches, evaluate.every or 1, subset)]


def _device(settings: RecordedSettings, name: str) -> list[str]:
    compute = settings.compute
    if compute.device is None:
        return []
    return [lines.device_line(compute.device, compute.precision, compute.threads, name=name)]


def _source(settings: Mapping[str, Any]) -> str:
    """The data as the user named them: the last part of a folder's path, or a generated source."""
    data = settings.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    if not isinstance(source, Mapping) or not isinstance(source.get("args"), Mapping):
        return "unknown"
    path = source["args"].get("path")
    return (
        lines.source_name(path)
        if isinstance(path, str)
        else str(Part(name=str(source.get("name")), args=source["args"]))
    )


def _sizes(settings: RecordedSettings, persons: Mapping[str, str]) -> str:
    train, val = settings.split.train, settings.split.val
    num_train, num_val = (len({persons.get(case, case) for case in side}) for side in (train, val))
    return lines.split_sizes(len(train), len(val), (num_train, num_val) if persons else None)
