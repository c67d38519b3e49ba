"""Evaluated predictions as documents for other programs: `summary.json`, the CSV table, and what `--json` prints."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlx.evaluation.evaluate import EvaluatedSet, Evaluation
from dlx.report.files.csv_tables import Cell, ValueTable
from dlx.report.files.summary_json import case_metrics, label_key, summary_document
from dlx.report.predictions.comparison import MetricComparison, PairedMeans, SetComparison
from dlx.report.wording.verdicts import spell_reasons, spell_verdict

NAMES = {"val_dice": "dice", "hd95_mm": "hd95", "surface_dice": "surface_dice"}  # as in cases.csv
COLUMNS = (
    *("predictions", "case", "person", "class", "label", "dice", "hd95", "distance_unit", "surface_dice", "iou"),
    *("tp", "fp", "fn", "tn", "n_pred", "n_ref", "prediction_file", "reference_file"),
)


def set_summary(evaluation: Evaluation, one: EvaluatedSet) -> dict[str, Any]:
    """The document of `summary.json` for one set of predictions; it names what it leaves out."""
    files = {case: (str(one.predictions.files[case]), str(evaluation.truths.files[case])) for case in evaluation.cases}
    return summary_document(
        one.scores,
        {of.name: label_key(of.values) for of in evaluation.classes},
        files=files,
        distance_unit=evaluation.unit,
        tolerance=evaluation.tolerance_mm,
        num_references=len(evaluation.truths.files),
        references_left_out=list(evaluation.left_out),
        predictions_left_out=list(one.predictions.extra),
        unknown_values={str(value): number for value, number in one.unknown_values.items()},
        ignored_label=evaluation.table.ignored_value,
    )


def scores_table(evaluation: Evaluation, sets: Sequence[EvaluatedSet], persons: Mapping[str, str]) -> ValueTable:
    """A row for each class of each case of these sets."""
    return ValueTable(COLUMNS, tuple(row for one in sets for row in _rows(evaluation, one, persons)))


def _rows(evaluation: Evaluation, one: EvaluatedSet, persons: Mapping[str, str]) -> Iterator[tuple[Cell, ...]]:
    for case, scores in one.scores.cases.items():
        for of in evaluation.classes:
            metrics = case_metrics(scores, of.name)
            yield (
                one.predictions.label,
                case,
                persons.get(case, case),
                of.name,
                label_key(of.values),
                metrics["Dice"],
                metrics["HD95"],
                evaluation.unit,
                metrics["surface_Dice"],
                metrics["IoU"],
                *(metrics[name] for name in ("TP", "FP", "FN", "TN", "n_pred", "n_ref")),
                str(one.predictions.files[case]),
                str(evaluation.truths.files[case]),
            )


def evaluation_document(
    evaluation: Evaluation, compared: Sequence[SetComparison], remarks: Sequence[str]
) -> dict[str, Any]:
    """What `dlx evaluate --json` prints."""
    return {
        "truth": str(evaluation.truths.path),
        "labels_from": evaluation.table.source,
        "predictions": [
            {
                "label": one.predictions.label,
                "path": str(one.predictions.path),
                "summary": set_summary(evaluation, one),
            }
            for one in evaluation.sets
        ],
        "comparisons": [comparison_entry(evaluation, found) for found in compared],
        "remarks": list(remarks),
    }


def comparison_entry(evaluation: Evaluation, found: SetComparison) -> dict[str, Any]:
    """A set against the first one; `difference` is the set's value minus that of the first one, the reference."""
    return {
        "reference": evaluation.sets[0].predictions.label,
        "label": found.label,
        "metrics": {NAMES[name]: _metric_entry(of) for name, of in found.metrics.items()},
        "cases": [
            {"case": of.case, "reference": of.first, "value": of.second, "difference": of.difference}
            for of in found.cases
        ],
    }


def _metric_entry(found: MetricComparison) -> dict[str, Any]:
    judged = found.judged
    return {
        **_paired_entry(found.overall),
        "p": judged.p,
        "equivalence_p": judged.headline.equivalence_p,
        "smallest_effect": judged.smallest_effect,
        "scope": judged.scope.value,
        "verdict": spell_verdict(judged),
        "reason": spell_reasons(judged),
        "patients_needed": judged.needed.patients if judged.needed else None,
        "per_class": {name: _paired_entry(of) for name, of in found.classes.items()},
        "structures": found.num_structures,
        "structures_missed": {"reference": found.num_missed[0], "value": found.num_missed[1]},
        "structures_alone": {"reference": found.num_alone[0], "value": found.num_alone[1]},
    }


def _paired_entry(of: PairedMeans) -> dict[str, Any]:
    return {
        "patients": of.n,
        "reference": of.first,
        "value": of.second,
        "difference": of.difference,
        "interval": of.interval,
    }
