"""The JSON documents that commands print: made from records, one entry a trial and one a variant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlx.records.archive import StudyRecords
from dlx.records.schema import TrialRecord
from dlx.report.findings.cross_validation import CrossValidation, cross_validate
from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary, dice_of_classes
from dlx.report.wording.rows import SCORES
from dlx.report.wording.verdicts import VERDICTS, spell_reasons, spell_verdict
from dlx.statistics.claims import Estimate
from dlx.statistics.comparison import Comparison
from dlx.statistics.power import PowerDesign, SeedDesign
from dlx.study.metrics import trial_value
from dlx.study.run_id import RunId
from dlx.study.scope import Scope


def trial_entry(record: TrialRecord, folder: Path | None, fold: int | None = None) -> dict[str, Any]:
    """One trial after its last epoch; metrics are null if the trial did not finish. `fold` is in it if there is one."""
    result = record.result
    return {
        "label": record.label,
        "seed": record.seed,
        **({} if fold is None else {"fold": fold}),
        "status": record.status,
        "cause": record.cause,
        "parameters": record.parameters,
        "epochs": result.epochs if result else None,
        "train_dice": result.train.dice if result else None,
        "val_dice": result.val.dice if result else None,
        "val_dice_per_class": result.val.dice_per_class if result else None,
        "gap": trial_value(result, "gap"),
        "best_epoch": result.best_epoch if result else None,
        "best_val_dice": result.best_val_dice if result else None,
        "hd95_mm_per_class": result.val.hd95_mm_per_class if result else None,
        "distance_unit": result.distance_unit if result else None,
        "surface_dice_per_class": result.val.surface_dice_per_class if result else None,
        "seconds": record.run.seconds,
        "folder": None if folder is None else str(folder),
    }


def records_document(summary: Summary, records: StudyRecords) -> dict[str, Any]:
    """A study with all that its records hold: as `study_document`, and the folds of one network if there are any."""
    entries = [
        trial_entry(trial.record, trial.folder, trial.entry.fold) | {"label": trial.entry.label}
        for trial in records.trials
        if trial.record is not None
    ]
    document = study_document(summary, entries)
    if records.header.folds and len(records.header.variants) == 1 and entries:
        document |= {"cross_validation": cross_validation_entry(cross_validate(records))}
    return document


def study_document(summary: Summary, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """A study with its trials (entries as `trial_entry` makes them), variants and claims."""
    header, floor = summary.header, summary.noise_floor
    return {
        "study": header.model_dump(mode="json", exclude={"trials", "variants", "claims"}),
        "control": header.control,
        "scope": summary.scope.value,
        "scope_reason": summary.why_scope,
        "noise_floor": None if floor is None else floor.control_spread,
        "detectable_effect": None if floor is None else floor.detectable_effect,
        "trials": trials,
        "variants": [variant_entry(variant) for variant in summary.variants],
        "claims": [
            {
                "text": outcome.claim.text,
                "measured": outcome.measured,
                "estimate": outcome.result.estimate,
                "interval": outcome.result.interval,
                "n": outcome.result.n,
                "scope": outcome.result.scope.value,
                "verdict": spell_verdict(outcome.result),
                "reason": spell_reasons(outcome.result),
            }
            for outcome in summary.claims
        ],
    }


def cross_validation_entry(found: CrossValidation) -> dict[str, Any]:
    """One network in cross-validation; null where runs are missing."""
    over_folds = {metric: found.over_folds(metric) for metric in ("train_dice", "val_dice", "gap")}
    return {
        "folds": list(found.header.folds),
        "seeds": list(found.header.seeds),
        "mean": {metric: estimate.mean for metric, estimate in over_folds.items()},
        "spread": {metric: estimate.sd for metric, estimate in over_folds.items()},  # over the folds
        "val_dice_over_cases": found.over_cases,
        "cases": found.num_cases,
        "val_dice_interval": found.interval,  # for new training sets
    }


def variant_entry(variant: VariantSummary) -> dict[str, Any]:
    """One variant: means over its seeds, their spread, and its comparison with the control (null for the control)."""
    row = variant.comparison
    estimates = variant.estimates
    return {
        "label": variant.label,
        "values": variant.values,
        "n": estimates["val_dice"].n,
        **{name: estimates[name].mean for name in SCORES},
        "spread": {name: spread.sd for name, spread in estimates.items()},
        "case_spread": variant.case_sd,
        "difference": row.difference if row else None,
        "interval": row.interval if row else None,
        "p": row.p if row else None,
        "verdict": spell_verdict(row) if row else None,
        "reason": spell_reasons(row) if row else None,
        "scopes": {scope.value: scope_entry(row, scope) for scope in Scope} if row else None,
        "collapsed_runs": [run_entry(run) for run in variant.collapse.runs],
        "lost_classes": {name: [run_entry(run) for run in runs] for name, runs in variant.collapse.lost},
        "val_dice_per_class": {name: class_entry(values) for name, values in dice_of_classes(variant.records).items()},
        "warnings": variant.warnings,
        "variances": variances_entry(row.design) if row and row.design else None,
        "seeds_needed": row.needed.seeds if row and row.needed else None,
        "patients_needed": row.needed.patients if row and row.needed else None,
    }


def run_entry(run: RunId) -> dict[str, int]:
    """A run of a variant as it is in the entry of its trial."""
    return {"seed": run} if isinstance(run, int) else {"seed": run[1], "fold": run[0]}


def scope_entry(row: Comparison, scope: Scope) -> dict[str, Any] | None:
    """The comparison in one scope; None if the design does not have it."""
    result = row.scopes.get(scope)
    if result is None:
        return None
    verdict = VERDICTS[result.verdict].format(smallest_effect=row.smallest_effect, unit="")
    return {
        "n": result.n,
        "difference": result.difference,
        "interval": result.interval,
        "p": result.p,
        "verdict": verdict,
    }


def variances_entry(design: PowerDesign) -> dict[str, float]:
    """The variance components of the paired differences, in the headline's scope."""
    if isinstance(design, SeedDesign):
        return {"seed": design.variance}
    return {name: float(value) for name, value in design.parts._asdict().items()}


def class_entry(by_run: Mapping[RunId, float | None]) -> dict[str, Any]:
    """The validation Dice of a class over the runs that have one."""
    known = Estimate.of(by_run.values())
    return {"mean": known.mean, "spread": known.sd, "n": known.n}
