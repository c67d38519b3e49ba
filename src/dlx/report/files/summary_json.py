"""The document of `summary.json`: scores of cases under the keys of nnU-Net's evaluation, for tools that read those.

nnU-Net (its evaluate_predictions.py) has `metric_per_case`, `mean` for each label and `foreground_mean`, with Dice,
IoU, TP, FP, FN, TN, n_pred and n_ref. Here a value that does not exist is null, where nnU-Net writes NaN, which is not
JSON; it is left out of means. HD95 and surface Dice are added, and keys beside these three. `foreground_mean` is the
mean of the labels' means, without labels that no mask has; it has no HD95 if a label that a mask has lacks one in all
cases.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dlx
from dlx.records.archive import StudyRecords
from dlx.report.findings.variants import place
from dlx.scoring.counts import iou
from dlx.scoring.means import class_means, mean_of_classes, set_scores
from dlx.study.results import CaseScores, SetScores, TrialResult

OF_COUNTS = ("TP", "FP", "FN", "TN", "n_pred", "n_ref")
METRIC_NAMES = ("Dice", "IoU", *OF_COUNTS, "HD95", "surface_Dice")

Metrics = dict[str, float | None]  # counts are whole numbers


def label_key(values: Sequence[int]) -> str:
    """The key of a class in `summary.json`: `2`, or `(1, 2, 3)` for a region, as nnU-Net writes them."""
    return str(values[0]) if len(values) == 1 else str(tuple(values))


def summary_document(
    scores: SetScores,
    keys: Mapping[str, str],
    *,
    files: Mapping[str, tuple[str, str]] | None = None,
    distance_unit: str = "mm",
    **more: Any,
) -> dict[str, Any]:
    """The document for a set of cases. `keys` are those of the classes in `mean` and `metrics`, by the class's name.

    `files` are the prediction and the true mask of each case, null without. `more` is added as it is.
    """
    per_case = {case: {name: case_metrics(of, name) for name in keys} for case, of in scores.cases.items()}
    means = {name: _means([per_case[case][name] for case in per_case]) for name in keys}
    metrics = next(iter(means.values()), {})
    dice = {name: of["Dice"] for name, of in means.items()}
    return {
        "foreground_mean": {m: mean_of_classes({name: of[m] for name, of in means.items()}, dice) for m in metrics},
        "mean": {keys[name]: means[name] for name in keys},
        "labels": {key: name for name, key in keys.items()},
        "num_cases": len(per_case),
        "distance_unit": distance_unit,
        **more,
        "metric_per_case": [
            {
                "case": case,
                "metrics": {keys[name]: metrics[name] for name in keys},
                "prediction_file": (files or {}).get(case, (None, None))[0],
                "reference_file": (files or {}).get(case, (None, None))[1],
            }
            for case, metrics in per_case.items()
        ],
        "written_by": f"dlx {dlx.__version__}",
    }


def case_metrics(scores: CaseScores, name: str) -> Metrics:
    """The metrics of a class in a case; the counts are missing where records do not have them."""
    dice = scores.dice[name]
    values: Metrics = {"Dice": dice, "IoU": None if dice is None else dice / (2.0 - dice)}
    if scores.counts is not None and scores.num_voxels is not None:
        counts = scores.counts[name]
        either = counts.predicted + counts.true - counts.overlap
        values["IoU"] = None if either == 0 else float(iou(counts.overlap, counts.predicted, counts.true))
        numbers = (
            *(counts.overlap, counts.predicted - counts.overlap, counts.true - counts.overlap),
            *(scores.num_voxels - either, counts.predicted, counts.true),
        )
        values |= dict(zip(OF_COUNTS, numbers, strict=True))
    values["HD95"] = (scores.hd95_mm or {}).get(name)
    values["surface_Dice"] = (scores.surface_dice or {}).get(name)
    return values


def _means(rows: Sequence[Metrics]) -> dict[str, float | None]:
    """The mean of each metric over the rows that have a value."""
    return class_means(rows, [*rows[0]] if rows else [])


def trial_summary(result: TrialResult, **more: Any) -> dict[str, Any]:
    """The document for the validation cases of a finished trial; no files are named, as records have none."""
    return summary_document(result.val, _keys(result), distance_unit=result.distance_unit, **more)


def _keys(result: TrialResult) -> dict[str, str]:
    """The keys of a trial's classes; their names in records without label values."""
    values = result.label_values or {}
    return {name: label_key(values[name]) if name in values else name for name in result.val.dice_per_class}


def study_summary(records: StudyRecords) -> dict[str, Any] | None:
    """The document for a study of one network that predicts each validation case once: one run, or all its folds.

    None for several variants or seeds: a case then has several predictions, each of another network, and belongs to the
    summaries of their trials. None too until all runs have finished, and if two folds validate one case.
    """
    header = records.header
    if len(header.variants) != 1 or len(header.seeds) != 1:
        return None
    trials = place(records.trials, header)[header.variants[0].label]
    results = {run: trial.record.result for run, trial in trials.items() if trial.record and trial.record.result}
    if set(results) != set(header.runs):
        return None
    first, *others = results.values()
    if not others:
        return trial_summary(first, seed=header.seeds[0])
    cases = [item for result in results.values() for item in result.val.cases.items()]
    if len({case for case, _ in cases}) < len(cases):
        return None
    pooled = first.model_copy(update={"val": set_scores(dict(cases), [*first.val.dice_per_class])})
    return trial_summary(pooled, seed=header.seeds[0], folds=list(header.folds))
