"""Tables for the terminal: the scores of predictions, and sets of them against the first."""

from collections.abc import Mapping, Sequence

from dlx.data.layouts.listing import list_some
from dlx.evaluation.evaluate import EvaluatedSet, Evaluation
from dlx.report.predictions.comparison import MetricComparison, PairedMeans, SetComparison
from dlx.report.predictions.rows import CaseRow, ClassRow, Spread, case_rows, class_rows, hardest
from dlx.report.terminal.grid import Cell, Column, Grid, Line, Row, Styled, Trimmed
from dlx.report.terminal.study_table import STYLES
from dlx.report.terminal.trial_tables import name_of_mean
from dlx.report.wording.formatting import signed, spell, spell_interval
from dlx.report.wording.plans import spell_needed
from dlx.report.wording.verdicts import GROUNDS_OF_PREDICTIONS, spell_reasons, spell_scoped_verdict
from dlx.settings.text import counted
from dlx.statistics.verdict import Verdict
from dlx.study.metrics import direction_of

NUM_HARDEST = 5  # cases that are shown unless all are asked for
MAX_CLASSES = 8  # in a line
MAX_LABEL = 14  # characters of a set's name in the title of a column


def evaluation_tables(
    evaluation: Evaluation,
    compared: Sequence[SetComparison],
    remarks: Sequence[str],
    persons: Mapping[str, str],
    smallest_effect: float,
    *,
    per_case: bool = False,
) -> list[Trimmed]:
    """The scores of all sets, their comparisons, and lines with the grounds of the verdicts and with remarks."""
    tables = [scores_tables(evaluation, one, with_cases=not compared, per_case=per_case) for one in evaluation.sets]
    tables += [comparison_tables(evaluation, found, per_case=per_case) for found in compared]
    lines = []
    if compared:
        num_patients = len({persons.get(case, case) for case in evaluation.cases})
        lines += ground_lines(evaluation, num_patients, smallest_effect)
    lines += [f"note: {remark}" for remark in remarks]
    return [*tables, Trimmed(tuple(map(Line, lines)))] if lines else tables


def scores_tables(
    evaluation: Evaluation, one: EvaluatedSet, *, with_cases: bool = True, per_case: bool = False
) -> Trimmed:
    """The scores of one set of predictions: a row a class, then the hardest cases, or all of them in their order."""
    unit, num_cases = evaluation.unit, len(evaluation.cases)
    titles: tuple[str | tuple[str, ...], ...] = ("Dice", ("HD95", unit), _surface_title(evaluation))
    classes = class_rows(one.scores)
    rows = [_class_row(row, [*one.scores.dice_per_class]) for row in classes]
    grid = Grid(
        (
            Column("class"),
            Column("cases", is_number=True),
            *(Column(title, is_number=True, may_stack=True) for title in titles),
            Column("lowest Dice"),
        ),
        tuple(rows),
        title=f"{one.predictions.label}: {counted(num_cases, 'case')}, mean ± standard deviation over cases",
    )
    parts: list[Grid | Line] = [grid, *map(Line, _without_distance(classes))]
    cases = case_rows(one.scores)
    shown = cases if per_case else hardest(cases, NUM_HARDEST)
    if per_case or (with_cases and len(cases) > 1):
        title = "cases, mean over classes" if per_case else "hardest cases, mean over classes"
        parts += [*[Line()] * (len(parts) > 1), _cases_grid(shown, titles, title)]
    return Trimmed(tuple(parts))


def _surface_title(evaluation: Evaluation) -> tuple[str, str]:
    return "surface Dice", f"{evaluation.tolerance_mm:g} {evaluation.unit}"


def _class_row(row: ClassRow, names: Sequence[str]) -> Row:
    worst: Cell = "-" if row.worst is None else [Styled(spell(row.worst[1])), Styled(row.worst[0], "dim")]
    cells = (str(row.num_cases), _spell(row.dice), _spell(row.hd95, 2), _spell(row.surface_dice), worst)
    if row.name is None:
        return Row((name_of_mean(names), *cells), style="bold", starts_section=True)
    return Row((row.name, *cells))


def _spell(of: Spread, digits: int = 3) -> str:
    """`0.861 ± 0.031`."""
    if of.mean is None or of.sd is None:
        return spell(of.mean, digits)
    return f"{spell(of.mean, digits)} ± {spell(of.sd, digits)}"


def _without_distance(rows: Sequence[ClassRow]) -> list[str]:
    """A line on the classes with cases that have a Dice and no HD95."""
    lacking = [(row.name, row.num_cases - row.hd95.n, row.num_cases) for row in rows if row.name is not None]
    found = [f"{name} in {number} of {counted(cases, 'case')}" for name, number, cases in lacking if number]
    if not found:
        return []
    return [f"no HD95 where one of the two masks lacks the class, whose Dice is 0: {list_some(found, MAX_CLASSES)}"]


def _cases_grid(rows: Sequence[CaseRow], titles: Sequence[str | tuple[str, ...]], title: str) -> Grid:
    shown = []
    for row in rows:
        lowest = "-" if row.lowest is None else f"{spell(row.lowest[1])} {row.lowest[0]}"
        shown.append(Row((row.case, spell(row.dice), spell(row.hd95, 2), spell(row.surface_dice), lowest)))
    columns = (Column("case"), *(Column(name, is_number=True) for name in titles), Column("lowest class"))
    return Grid(columns, tuple(shown), title=title)


def comparison_tables(evaluation: Evaluation, found: SetComparison, *, per_case: bool = False) -> Trimmed:
    """A set against the first one: a table and a verdict for each metric, and the cases with the largest difference."""
    first, label = evaluation.sets[0].predictions.label, found.label
    parts: list[Grid | Line] = []
    for metric in found.metrics.values():
        parts += [
            _metric_grid(evaluation, metric, first, label),
            _verdict_line(metric, evaluation.unit if metric.metric == "hd95_mm" else ""),
        ]
        parts += [*map(Line, _left_out(metric, first, label)), Line()]
    if found.is_equal:
        parts.append(Line(f"All scores of {label} equal those of {first}: are these the same predictions?", "yellow"))
    cases = list(found.cases) if per_case else found.by_size[:NUM_HARDEST]
    rows = [Row((of.case, spell(of.first), spell(of.second), signed(of.difference))) for of in cases]
    names = (*_column_titles(first, label), "difference")
    columns = (Column("case"), *(Column(name, is_number=True) for name in names))
    which = "cases" if per_case else "cases with the largest difference"
    parts.append(Grid(columns, tuple(rows), title=f"{which}: Dice, mean over the classes that both have"))
    return Trimmed(tuple(parts))


def _metric_grid(evaluation: Evaluation, found: MetricComparison, first: str, label: str) -> Grid:
    digits = 2 if found.metric == "hd95_mm" else 3
    rows = [Row((name, *_paired_cells(of, digits))) for name, of in found.classes.items()]
    mean = (name_of_mean(found.classes), *_paired_cells(found.overall, digits))
    columns = (
        Column("class"),
        Column("patients", is_number=True),
        *(Column(name, is_number=True) for name in _column_titles(first, label)),
        Column("difference", is_number=True),
        Column("95 % interval", is_number=True),
    )
    better = f"({direction_of(found.metric)} is better)"
    title = f"{title_of_metric(found.metric, evaluation)} {better}: {label} minus {first}"
    return Grid(columns, (*rows, Row(mean, style="bold", starts_section=True)), title=title)


def _verdict_line(found: MetricComparison, unit: str) -> Line:
    """`mean: better for new patients (p 0.012; but by less than 0.01)`; `unit` is the metric's, or empty."""
    judged = found.judged
    p = "" if judged.p is None else "p below 0.001" if judged.p < 0.001 else f"p {judged.p:.3f}"
    needed = spell_needed(judged)
    is_open = judged.verdict is Verdict.CANNOT_TELL and needed != "-"
    wanted = f"a difference of {judged.smallest_effect:g}{unit and f' {unit}'} takes {needed}" if is_open else ""
    grounds = "; ".join(filter(None, (p, spell_reasons(judged), wanted)))
    words = f"{name_of_mean(found.classes)}: {spell_scoped_verdict(judged, unit)}"
    return Line(f"{words} ({grounds})" if grounds else words, STYLES.get(judged.verdict, "bold"))


def title_of_metric(metric: str, evaluation: Evaluation) -> str:
    """`Dice`, `HD95 (mm)`, `surface Dice within 1 mm`."""
    unit, tolerance = evaluation.unit, evaluation.tolerance_mm
    return {"hd95_mm": f"HD95 ({unit})", "surface_dice": f"surface Dice within {tolerance:g} {unit}"}.get(
        metric, "Dice"
    )


def _paired_cells(of: PairedMeans, digits: int) -> tuple[str, ...]:
    means = (spell(of.first, digits), spell(of.second, digits))
    return str(of.n), *means, signed(of.difference, digits), spell_interval(of.interval, digits)


def _left_out(found: MetricComparison, first: str, label: str) -> list[str]:
    """A line on structures that have no pair of values: without them a set may look better than it is."""
    lines = []
    total = f"of {counted(found.num_structures, 'structure')} (a class in a case)"
    if any(found.num_missed):
        a, b = found.num_missed
        lines.append(
            f"left out where one mask lacks the class, so that its Dice is 0: {total} {a} of {first}, {b} of {label}"
        )
    if found.metric == "val_dice" and any(found.num_alone):
        a, b = found.num_alone
        lines.append(
            f"left out where one set alone predicts a class that the true mask lacks, so that its Dice is 0: {total} "
            f"{a} of {first}, {b} of {label}"
        )
    return lines


def _column_titles(first: str, label: str) -> tuple[str, str]:
    """The two sets as titles of columns: their names, unless one is too long; the table's title has both in full."""
    is_short = max(len(first), len(label)) <= MAX_LABEL
    return (first, label) if is_short else ("first", "compared")


def ground_lines(evaluation: Evaluation, num_patients: int, smallest_effect: float) -> list[str]:
    """How the verdicts were made, for the foot of the comparisons."""
    num_sets = len(evaluation.sets) - 1
    corrected = f", Holm-corrected for {num_sets} sets" if num_sets > 1 else ""
    of_whom = counted(num_patients, "patient")
    cases = counted(len(evaluation.cases), "case")
    limits = f"±{smallest_effect:g}, for HD95 ±{evaluation.tolerance_mm:g} {evaluation.unit} (the tolerance)"
    return [
        f"Verdicts are for new patients: {GROUNDS_OF_PREDICTIONS}. {cases} of {of_whom}{corrected}, at 5 %; 'no "
        f"difference' by two one-sided tests against {limits}.",
        "Each metric is tested by itself: decide before which one counts. Intervals are not corrected.",
    ]
