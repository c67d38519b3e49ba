"""The tables that show a study at its end: of one trial, of folds, or of variants beside a control."""

from io import StringIO

from rich.console import Console, RenderableType

from dlx.records.archive import StudyRecords, finished
from dlx.report.findings.cross_validation import cross_validate
from dlx.report.findings.summary import Summary
from dlx.report.terminal.folds_table import folds_table
from dlx.report.terminal.grid import Trimmed
from dlx.report.terminal.study_table import cases_tables, study_table
from dlx.report.terminal.trial_tables import trial_table

TEXT_WIDTH = 100  # columns of what `str` of an object of the Python interface gives


def tables_of(
    summary: Summary, records: StudyRecords, *, per_class: bool = False, per_case: bool = False
) -> list[RenderableType]:
    """The tables that fit a study: that of its only trial by class, of the folds of its only variant, or of all
    variants; `per_case` adds the hardest validation cases.
    """
    done = finished(records.trials)
    hardest: list[RenderableType] = [Trimmed(tuple(cases_tables(summary)))] if per_case else []
    if len(records.trials) == 1 and done and done[0].result is not None:
        return [trial_table(done[0]), *hardest]
    if records.header.folds and len(records.header.variants) == 1 and done:
        return [folds_table(cross_validate(records)), *hardest]
    return [study_table(summary, per_class=per_class, per_case=per_case)]


def as_text(tables: list[RenderableType], width: int) -> str:
    """What a terminal of `width` columns would show, without colours."""
    file = StringIO()
    console = Console(
        file=file,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
    )
    for table in tables:
        console.print(table, crop=False)
    return file.getvalue()
