"""A study's table on the terminal: a row a variant, the verdicts, and below them what they rest on."""

from collections.abc import Sequence

from dlx.report.claims import LATE, ClaimOutcome
from dlx.report.grid import Column, Grid, Line, Row, Styled, Trimmed
from dlx.report.summary import Summary, classes_of
from dlx.report.table import class_spread, signed, spell_effect, spell_interval, spell_seeds_needed, spell_spread
from dlx.report.variants import VariantSummary
from dlx.settings.text import counted
from dlx.study.metrics import largest_difference

LONG_MARK = 40  # letters
STYLES = {"better": "bold green", "worse": "bold red", "collapsed": "bold red"}


def study_table(summary: Summary, *, per_class: bool = False) -> Trimmed:
    """Mean and spread over seeds of every variant, its paired difference with the control, and the verdict.

    With `per_class` also the validation Dice of each class.

    In 80 columns each spread stands below its mean; in fewer, each variant is a list of its figures.
    """
    header = summary.header
    parts: list[Line | Grid] = [Line(), Line(header.question or header.name, "bold")]
    if summary.num_done < len(header.trials):
        parts.append(Line(f"{summary.num_done} of {len(header.trials)} trials have ended", "yellow"))
    parts.append(figures_table(summary))
    if per_class and classes_of(summary):
        parts.append(classes_table(summary))
    for variant in summary.variants:
        bad = (*variant.unfinished, *filter(None, [variant.collapse.describe()]))
        parts += [Line(f"{variant.label}: {line}", "red") for line in bad]
        parts += [Line(f"{variant.label}: {warning}", "bold red") for warning in variant.warnings]
    if header.control is not None and len(summary.variants) > 1:
        parts += [verdict_table(summary), *map(Line, foot_lines(summary))]
    if summary.claims:
        parts += [Line(), claims_table(summary.claims)]
    return Trimmed(tuple(parts))


def figures_table(summary: Summary) -> Grid:
    """What each variant reached: mean ± standard deviation over its seeds."""
    titles = ("train Dice", "val Dice", "gap", "jitter", "best*")
    rows = []
    for variant in summary.variants:
        spreads = [
            spell_spread(variant.figures[metric], is_mixed=bool(variant.collapse), has_sign=metric == "gap")
            for metric in ("train_dice", "val_dice", "gap", "jitter", "best_val_dice")
        ]
        label = variant.label + " (control)" * variant.is_control
        rows.append(Row((label, str(variant.figures["val_dice"].n), *spreads)))
    columns = (Column(title, is_number=True, may_stack=True) for title in titles)
    return Grid((Column("variant"), Column("n", is_number=True), *columns), tuple(rows))


def classes_table(summary: Summary) -> Grid:
    """The validation Dice of each class after the last epoch; a column a class."""
    shown = classes_of(summary)
    rows = [
        Row((v.label + " (control)" * v.is_control, *(class_spread(v, name) for name in shown)))
        for v in summary.variants
    ]
    columns = (Column(name, is_number=True, may_stack=True) for name in shown)
    return Grid((Column("variant"), *columns), tuple(rows), title="validation Dice of each class")


def verdict_table(summary: Summary) -> Grid:
    """The paired differences with the control, and what can be said of them."""
    columns = (
        Column("variant"),
        Column("difference", is_number=True),
        Column("95 % interval", is_number=True),
        Column("verdict"),
        Column(("seeds", "needed"), is_number=True),
    )
    shared = shared_marks(summary)
    rows = []
    for variant in summary.variants:
        if variant.comparison is None:
            continue
        row = variant.comparison
        numbers = "".join(f" ({shared.index(mark) + 1})" for mark in variant.marks if mark in shared)
        style = STYLES.get(row.verdict, "bold red" if is_idle(variant) else "")
        verdict = [Styled(f"{row.verdict}{numbers}", style)]
        verdict += [Styled(mark, "dim") for mark in variant.marks if mark not in shared]
        rows.append(
            Row(
                (
                    variant.label,
                    signed(row.difference),
                    spell_interval(row.interval),
                    verdict,
                    spell_seeds_needed(row),
                )
            )
        )
    title = f"difference in {summary.metric_title} ({summary.direction} is better), paired by seed"
    return Grid(columns, tuple(rows), title=title)


def shared_marks(summary: Summary) -> list[str]:
    """Long marks that several verdicts have: said once, below the table, and numbered in it."""
    marks = [mark for variant in summary.variants for mark in variant.marks]
    return [mark for mark in dict.fromkeys(marks) if marks.count(mark) > 1 and len(mark) > LONG_MARK]


def claims_table(claims: Sequence[ClaimOutcome]) -> Grid:
    """The claims declared before the study ran, with what was measured for them."""
    some = ", unless marked" * any(outcome.is_late for outcome in claims)
    rows = []
    for outcome in claims:
        verdict = outcome.verdict
        estimate, interval = spell_effect(verdict.estimate, verdict.interval)
        within = f" ({interval})" if verdict.interval else ""
        measured = f"{outcome.measured}: {estimate}{within}, n = {verdict.n}"
        said = filter(None, [verdict.verdict, verdict.reason, LATE * outcome.is_late])
        rows.append(Row((outcome.claim.text, measured, [Styled(text) for text in said])))
    columns = (Column("claim"), Column("measured (95 % interval)"), Column("verdict"))
    return Grid(columns, tuple(rows), title=f"claims declared before the start{some}")


def foot_lines(summary: Summary) -> list[str]:
    """The noise, the test and its assumptions, and what the columns mean."""
    header = summary.header
    variants = counted(len(summary.variants) - 1, "variant")
    return [
        *(f"({number}) {mark}" for number, mark in enumerate(shared_marks(summary), 1)),
        f"±: standard deviation over seeds; where runs collapsed, lowest to highest. {floor_line(summary)}",
        f"Verdicts: paired t over {len(header.seeds)} seeds (differences roughly normal), Holm-corrected for "
        f"{variants} at 5 %; 'no difference' by two one-sided tests against "
        f"±{header.smallest_effect:g}, the smallest effect declared. Intervals are not corrected.",
        f"Seeds needed, where there is no verdict yet: to find a difference of {header.smallest_effect:g} with 80 % "
        "power, from the measured spread.",
        "*best: the best epoch's validation Dice, selected on the validation data.",
        *summary.remarks,
    ]


def floor_line(summary: Summary) -> str:
    """The control's own spread, and the smallest difference that this study could have found."""
    floor, collapsed = summary.noise_floor, summary.control_collapse.describe(" of the control")
    if floor is None or floor.control_spread is None:
        line = "Noise floor: not known from fewer than two seeds of the control."
    else:
        line = f"Noise floor (the control alone, {floor.n} seeds): {floor.control_spread:.4f}."
        largest = largest_difference(summary.header.metric)
        if floor.detectable_effect is not None and floor.detectable_effect > largest:
            line += (
                f" These seeds can detect nothing: even a true difference of {largest:g}, the largest possible, would "
                "not have been found with 80 % power."
            )
        elif floor.detectable_effect is not None:
            line += f" A true difference of {floor.detectable_effect:.3f} would have been found with 80 % power."
    return f"{line} Left out: {collapsed}." if collapsed else line


def is_idle(variant: VariantSummary) -> bool:
    """True where the variant's setting changed nothing at all."""
    return variant.comparison is not None and variant.comparison.verdict.startswith("no effect")
