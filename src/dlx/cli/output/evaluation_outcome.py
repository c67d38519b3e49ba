"""What `dlx evaluate` prints: what is measured, tables with remarks, or one JSON document."""

from collections.abc import Sequence

from dlx.api.evaluations import EvaluatedPredictions
from dlx.cli.output.console import notes, output, print_json
from dlx.cli.output.head import print_indented
from dlx.data.layouts.listing import list_some
from dlx.evaluation.labels import LabelTable
from dlx.evaluation.pairs import PredictionFiles, Truths
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


def print_evaluation(found: EvaluatedPredictions, *, as_json: bool, per_case: bool) -> None:
    """Prints tables, with the remarks below them, or the JSON document, which contains them."""
    if as_json:
        print_json(found.document)
        return
    for table in found.tables(per_case=per_case):
        output().show(table)
