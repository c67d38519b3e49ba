"""A study on the terminal: a table of scores, a table of verdicts, and notes on how they were made."""

from collections.abc import Sequence

from dlx.report.findings.summary import Summary
from dlx.report.terminal.grid import Column, Grid, Line, Row, Styled, Trimmed
from dlx.report.wording.plans import plan_lines
from dlx.report.wording.rows import (
    VerdictRow,
    claim_rows,
    class_rows,
    classes_of,
    hard_case_rows,
    hard_case_titles,
    noise_floor_line,
    score_rows,
    verdict_rows,
)
from dlx.report.wording.verdicts import FOR, GROUNDS, spell_collapse
from dlx.settings.text import counted
from dlx.statistics.verdict import Verdict

LONG_REASON = 40  # characters: a longer one would make the column of verdicts wider than all others
STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.COLLAPSED: "bold red",
    Verdict.NO_EFFECT: "bold red",
}


def study_table(summary: Summary, *, per_class: bool = False, per_case: bool = False) -> Trimmed:
    """Mean and spread over seeds of every variant, its paired difference from the control, and the verdict.

    With `per_class` also the validation Dice of each class, with `per_case` that of the hardest cases. In a terminal
    of 80 columns each spread is below its mean; in a narrower one each variant is a list of scores. If no trial has
    ended, there are no tables.
    """
    header = summary.header
    parts: list[Line | Grid] = [Line(header.question or header.name, "bold")]
    if summary.num_done < len(header.trials):
        parts.append(Line(f"{summary.num_done} of {len(header.trials)} trials have ended", "yellow"))
    if summary.num_done == 0:  # tables would have no numbers
        return Trimmed(tuple(parts))
    parts.append(scores_table(summary))
    if per_class and classes_of(summary):
        parts.append(classes_table(summary))
    if per_case:
        parts += cases_tables(summary)
    num_tables = len(parts)
    for variant in summary.variants:
        bad = (*variant.unfinished, *filter(None, [spell_collapse(variant.collapse)]))
        parts += [Line(f"{variant.label}: {line}", "red") for line in bad]
        parts += [Line(f"{variant.label}: {warning}", "bold red") for warning in variant.warnings]
    has_notes = len(parts) > num_tables
    if header.control is not None and len(summary.variants) > 1:
        rows = verdict_rows(summary)
        footnotes = shared_reasons(rows)
        parts += [Line()] * has_notes
        parts += [verdict_table(summary, rows, footnotes), *map(Line, foot_lines(summary, footnotes))]
    if summary.claims:
        parts += [Line(), claims_table(summary)]
    return Trimmed(tuple(parts))


def scores_table(summary: Summary) -> Grid:
    """What each variant reached: mean ± standard deviation over its seeds."""
    titles = ("train Dice", "val Dice", "gap", "jitter", "best*")
    rows = [Row((row.name, str(row.n), *row.spreads)) for row in score_rows(summary)]
    columns = (Column(title, is_number=True, may_stack=True) for title in titles)
    return Grid((Column("variant"), Column("n", is_number=True), *columns), tuple(rows))


def classes_table(summary: Summary) -> Grid:
    """The validation Dice of each class after the last epoch; a column a class."""
    rows = [Row((row.name, *row.spreads)) for row in class_rows(summary)]
    columns = (Column(name, is_number=True, may_stack=True) for name in classes_of(summary))
    return Grid((Column("variant"), *columns), tuple(rows), title="validation Dice of each class")


def cases_tables(summary: Summary) -> list[Grid]:
    """The table of the hardest validation cases; none if there are fewer than two cases."""
    rows = [Row((row.name, row.mean, *row.spreads)) for row in hard_case_rows(summary)]
    titles = ("mean of all variants", *hard_case_titles(summary))
    columns = (Column(title, is_number=True, may_stack=True) for title in titles)
    title = "validation Dice of the hardest cases, mean over classes"
    return [Grid((Column("case"), *columns), tuple(rows), title=title)] if rows else []


def verdict_table(summary: Summary, rows: Sequence[VerdictRow], footnotes: Sequence[str]) -> Grid:
    """The paired differences from the control and their verdicts; reasons among the footnotes are numbers here."""
    columns = (
        Column("variant"),
        Column("difference", is_number=True),
        Column(("95 % interval", *(FOR[scope] for scope in summary.scopes)), is_number=True, has_parts=True),
        Column("verdict"),
        Column("needed"),
    )
    shown = []
    for row in rows:
        numbers = "".join(f" ({footnotes.index(reason) + 1})" for reason in row.reasons if reason in footnotes)
        headline, *narrower = row.intervals
        intervals = [Styled(headline), *(Styled(ends, "dim") for ends in narrower)]
        verdict = [Styled(f"{row.words}{numbers}", STYLES.get(row.verdict, ""))]
        verdict += [Styled(reason, "dim") for reason in row.reasons if reason not in footnotes]
        shown.append(Row((row.name, row.difference, intervals, verdict, row.needed)))
    title = f"difference in {summary.metric_title} ({summary.direction} is better), paired by {summary.unit_of_runs}"
    return Grid(columns, tuple(shown), title=title)


def shared_reasons(rows: Sequence[VerdictRow]) -> list[str]:
    """Long reasons that several verdicts share; each is shown once, as a footnote."""
    reasons = [reason for row in rows for reason in row.reasons]
    return [reason for reason in dict.fromkeys(reasons) if reasons.count(reason) > 1 and len(reason) > LONG_REASON]


def claims_table(summary: Summary) -> Grid:
    """The claims declared before the study ran, with what was measured for them."""
    some = ", unless marked" * any(outcome.is_late for outcome in summary.claims)
    rows = []
    for row in claim_rows(summary):
        within = "" if row.interval == "-" else f" ({row.interval})"
        measured = f"{row.measured}: {row.estimate}{within}, n = {row.n}"
        rows.append(Row((row.text, measured, [Styled(text) for text in (row.words, *row.reasons)])))
    columns = (Column("claim"), Column("measured (95 % interval)"), Column("verdict"))
    return Grid(columns, tuple(rows), title=f"claims declared before the start{some}")


def foot_lines(summary: Summary, footnotes: Sequence[str]) -> list[str]:
    """The footnotes, the noise floor, the test with its assumptions, and the meaning of the columns."""
    header = summary.header
    variants = counted(len(summary.variants) - 1, "variant")
    return [
        *(f"({number}) {reason}" for number, reason in enumerate(footnotes, 1)),
        f"±: standard deviation over {summary.name_of_runs}; where runs collapsed, lowest to highest. "
        f"{noise_floor_line(summary)}",
        f"Verdicts hold {FOR[summary.scope]} ({summary.why_scope}); {GROUNDS[summary.scope]}, Holm-corrected "
        f"for {variants} at 5 %; 'no difference' by two one-sided tests against ±{header.smallest_effect:g}, the "
        "smallest effect of interest. Intervals are not corrected.",
        *plan_lines(summary),
        "*best: the best epoch's validation Dice, selected on the validation data.",
        *summary.remarks,
    ]
