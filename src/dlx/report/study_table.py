"""A study's table on the terminal: a row a variant, the verdicts, and below them what they rest on."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlx.report.claims import LATE, ClaimOutcome
from dlx.report.summary import Summary
from dlx.report.table import Fitted, signed, spell_effect, spell_interval, spell_spread
from dlx.report.variants import VariantSummary
from dlx.spelling import counted

LONG_MARK = 40  # letters
STYLES = {"better": "bold green", "worse": "bold red", "collapsed": "bold red"}


def study_table(summary: Summary) -> Fitted:
    """Mean and spread over seeds of every variant, its paired difference with the control, and the verdict.

    Fits 80 columns: there each spread stands below its mean, and what the verdicts rest on in lines below the table.
    """
    return Fitted(lambda width: _whole(summary, width))


def _whole(summary: Summary, width: int) -> Group:
    header = summary.header
    title = header.question or header.name
    parts: list[RenderableType] = [Text(), Text(title, style="bold")]
    if summary.num_done < len(header.trials):
        parts.append(Text(f"{summary.num_done} of {len(header.trials)} trials have ended", style="yellow"))
    parts.append(figures_table(summary, width))
    for variant in summary.variants:
        bad = (*variant.unfinished, *filter(None, [variant.collapse.describe()]))
        parts += [Text(f"{variant.label}: {line}", style="red") for line in bad]
        parts += [Text(f"{variant.label}: {warning}", style="bold red") for warning in variant.warnings]
    if header.control is not None and len(summary.variants) > 1:
        parts.append(verdict_table(summary))
        parts += [Text(line) for line in foot_lines(summary)]
    if summary.claims:
        parts.append(claims_table(summary.claims))
    return Group(*parts)


def figures_table(summary: Summary, width: int) -> Table:
    """What each variant reached: mean ± standard deviation over its seeds, in one line where there is room."""
    titles = ("variant", "n", "train Dice", "val Dice", "gap", "jitter", "best*")
    rows: list[tuple[str, ...]] = [titles]
    for variant in summary.variants:
        spreads = [
            spell_spread(variant.figures[metric], is_mixed=bool(variant.collapse), has_sign=metric == "gap")
            for metric in ("train_dice", "val_dice", "gap", "jitter", "best_val_dice")
        ]
        label = variant.label + " (control)" * variant.is_control
        rows.append((label, str(variant.figures["val_dice"].n), *spreads))
    needed = sum(max(map(len, column)) + 3 for column in zip(*rows, strict=True)) + 1  # three blanks part columns
    table = Table(box=SIMPLE_HEAD)
    table.add_column(titles[0], overflow="fold", ratio=1)
    for title in titles[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    for label, *cells in rows[1:]:
        if needed > width:
            cells = [cell.replace(" ", "\n", 1) for cell in cells]  # the spread below its mean
        table.add_row(Text(label), *cells)
    return table


def verdict_table(summary: Summary) -> Table:
    """The paired differences with the control, and what can be said of them."""
    title = f"difference in {summary.metric_title} ({summary.direction} is better), paired by seed"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("variant", overflow="fold", ratio=2)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("verdict", ratio=3)
    table.add_column("seeds\nneeded", justify="right", no_wrap=True)
    shared = shared_marks(summary)
    for variant in summary.variants:
        if variant.comparison is None:
            continue
        row = variant.comparison
        verdict = Text(row.verdict, style=STYLES.get(row.verdict, "bold red" if is_idle(variant) else ""))
        for mark in variant.marks:
            verdict.append(f" ({shared.index(mark) + 1})" if mark in shared else f"\n{mark}", style="dim")
        table.add_row(
            Text(variant.label),
            signed(row.difference),
            spell_interval(row.interval),
            verdict,
            "-" if row.seeds_needed is None else str(row.seeds_needed),
        )
    return table


def shared_marks(summary: Summary) -> list[str]:
    """Long marks that several verdicts have: said once, below the table, and numbered in it."""
    marks = [mark for variant in summary.variants for mark in variant.marks]
    return [mark for mark in dict.fromkeys(marks) if marks.count(mark) > 1 and len(mark) > LONG_MARK]


def claims_table(claims: Sequence[ClaimOutcome]) -> Table:
    """The claims declared before the study ran, with what was measured for them."""
    some = ", unless marked" * any(outcome.is_late for outcome in claims)
    table = Table(box=SIMPLE_HEAD, title=f"claims declared before the start{some}", title_justify="left")
    table.add_column("claim", ratio=3)
    table.add_column("measured (95 % interval)", ratio=3)
    table.add_column("verdict", ratio=2)
    for outcome in claims:
        verdict = outcome.verdict
        estimate, interval = spell_effect(verdict.estimate, verdict.interval)
        within = f" ({interval})" if verdict.interval else ""
        measured = f"{outcome.measured}: {estimate}{within}, n = {verdict.n}"
        said = filter(None, [verdict.verdict, verdict.reason, LATE * outcome.is_late])
        table.add_row(Text(outcome.claim.text), Text(measured), Text("\n".join(said)))
    return table


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
        f"Seeds needed: to find a difference of {header.smallest_effect:g} with 80 % power, from the measured spread.",
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
        if floor.detectable_effect is not None:
            line += f" A true difference of {floor.detectable_effect:.3f} would have been found with 80 % power."
    return f"{line} Left out: {collapsed}." if collapsed else line


def is_idle(variant: VariantSummary) -> bool:
    """True where the variant's setting changed nothing at all."""
    return variant.comparison is not None and variant.comparison.verdict.startswith("no effect")
