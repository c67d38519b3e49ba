"""What `dlx evaluate` prints: what is measured, remarks, tables, or one JSON document."""

from collections.abc import Mapping, Sequence

from dlx.cli.output.console import notes, output, print_json
from dlx.cli.output.head import print_indented
from dlx.data.layouts.listing import list_some, name_some
from dlx.evaluation.evaluate import EvaluatedSet, Evaluation
from dlx.evaluation.labels import LabelTable
from dlx.evaluation.pairs import PredictionFiles, Truths
from dlx.evaluation.persons import remark_on_scans
from dlx.report.predictions.comparison import SetComparison
from dlx.report.predictions.document import evaluation_document
from dlx.report.terminal.grid import Line, Trimmed
from dlx.report.terminal.predictions_tables import comparison_tables, ground_lines, scores_tables
from dlx.settings.text import counted

MAX_LABELS = 8  # in a line of the head


def print_evaluation_head(truths: Truths, sets: Sequence[PredictionFiles], table: LabelTable) -> None:
    """Prints on stderr which files and which labels are measured."""
    console = notes()
    print_indented(f"truth    {truths.path}: {counted(len(truths.files), 'true mask')}", console)
    for one in sets:
        print_indented(f"measured {one.label}: {counted(len(one.files), 'prediction')} in {one.path}", console)
    classes = [
        one.name if one.name == _values(one.values) else f"{one.name} ({_values(one.values)})"
        for one in table.classes or ()
    ]
    ignored = "" if table.ignored_value is None else f"; {table.ignored_value} is ignored"
    named = f"{list_some(classes, MAX_LABELS)}, from {table.source}" if classes else table.source
    print_indented(f"labels   {named}{ignored}", console)
    console.print()


def _values(values: Sequence[int]) -> str:
    return "+".join(map(str, values))


def remarks_on(evaluation: Evaluation, persons: Mapping[str, str]) -> tuple[str, ...]:
    """What a reader of the scores must know: cases and values that are left out, and headers that differ."""
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


def print_evaluation(
    evaluation: Evaluation,
    compared: Sequence[SetComparison],
    remarks: Sequence[str],
    persons: Mapping[str, str],
    smallest_effect: float,
    *,
    as_json: bool,
    per_case: bool,
) -> None:
    """Prints tables, with the remarks below them, or the JSON document, which contains them."""
    if as_json:
        print_json(evaluation_document(evaluation, compared, remarks))
        return
    console = output()
    for one in evaluation.sets:
        console.show(scores_tables(evaluation, one, with_cases=not compared, per_case=per_case))
    for found in compared:
        console.show(comparison_tables(evaluation, found, per_case=per_case))
    lines = []
    if compared:
        num_patients = len({persons.get(case, case) for case in evaluation.cases})
        lines += ground_lines(evaluation, num_patients, smallest_effect)
    lines += [f"note: {remark}" for remark in remarks]
    if lines:
        console.show(Trimmed(tuple(map(Line, lines))))
