"""What one network reached in cross-validation: over folds, over all cases, and for new training sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

import numpy as np

from dlx.records.archive import StudyRecords
from dlx.records.schema import StudyHeader, TrialRecord
from dlx.report.findings.patients import patient_values
from dlx.report.findings.scope import test_to_train
from dlx.report.findings.variants import describe_variant, place
from dlx.statistics.claims import Estimate, interval_of
from dlx.statistics.estimate import over_runs
from dlx.study.metrics import trial_value
from dlx.study.run_id import RunId


@dataclass(frozen=True)
class CrossValidation:
    """The runs that ended, and, where no run is missing, the validation Dice over cases and for new training sets.

    `over_cases` is the mean over the cases, each validated once by each seed. `interval` is the 95 % interval of the
    mean over runs, for new training sets, seeds and patients.
    """

    header: StudyHeader
    label: str
    records: Mapping[RunId, TrialRecord]
    over_cases: float | None
    num_cases: int | None
    interval: tuple[float, float] | None

    def over_folds(self, metric: str) -> Estimate:
        """The metric over the folds, in each the mean over its seeds."""
        by_fold: dict[int, list[float]] = {}
        for run, record in self.records.items():
            value = trial_value(record.result, metric)
            if value is not None and not isinstance(run, int):
                by_fold.setdefault(run[0], []).append(value)
        return Estimate.of(mean(values) for values in by_fold.values())


def cross_validate(records: StudyRecords) -> CrossValidation:
    """The cross-validation of the first variant of a study."""
    header = records.header
    variant = describe_variant(header.variants[0], place(records.trials, header), header)
    dice = [variant.by_run["val_dice"].get(run) for run in header.runs]
    known = np.array([value for value in dice if value is not None], dtype=np.float64)
    ratio = test_to_train(header, [variant])
    tables = patient_values([variant], "val_dice", header.runs, {})  # each case for itself, whoever it is of
    is_complete = len(known) == len(header.runs)
    return CrossValidation(
        header=header,
        label=variant.label,
        records=variant.records,
        over_cases=float(tables[0].mean()) if tables and tables[0].size else None,
        num_cases=tables[0].shape[-1] if tables else None,
        interval=interval_of(over_runs(known, ratio)) if is_complete and ratio is not None else None,
    )
