"""Remarks on evaluated predictions: what a reader of the scores must know."""

from collections.abc import Mapping

from dlx.data.layouts.listing import list_some, name_some
from dlx.evaluation.evaluate import EvaluatedSet, Evaluation
from dlx.evaluation.persons import remark_on_scans
from dlx.settings.text import counted


def remarks_on(evaluation: Evaluation, persons: Mapping[str, str]) -> tuple[str, ...]:
    """Cases and values that are left out, and headers that differ."""
    num_all, num_cases = len(evaluation.truths.files), len(evaluation.cases)
    remarks = []
    if evaluation.left_out:
        remarks.append(
            f"measured {num_cases} of {counted(num_all, 'true mask')}: no prediction of "
            f"{name_some(evaluation.left_out)}{' in some set' * (len(evaluation.sets) > 1)}"
        )
    for one in evaluation.sets:
        remarks += _remarks_on_set(one)
    if len(evaluation.sets) > 1 and not persons:
        remarks += remark_on_scans(evaluation.cases)
    of_listing = evaluation.truths.listing.remarks if evaluation.truths.listing is not None else ()
    return (*remarks, *of_listing, *evaluation.remarks)


def _remarks_on_set(one: EvaluatedSet) -> list[str]:
    remarks, label = [], one.predictions.label
    if one.predictions.extra:
        names = name_some(one.predictions.extra)
        remarks.append(f"{label}: {counted(len(one.predictions.extra), 'file')} without a true mask: {names}")
    if one.unknown_values:
        values = [f"{value} ({counted(number, 'file')})" for value, number in one.unknown_values.items()]
        what = "a value" if len(values) == 1 else f"{len(values)} values"
        remarks.append(
            f"{label}: predictions have {what} that no true mask has and no class; counted as background: "
            f"{list_some(values, 5)}"
        )
    return remarks
