"""A study's report as a markdown page: verdicts first, then what they rest on, and all it takes to run it again.

Made from records alone, so that the same records give the same page.
"""

from dlx.records.archive import StudyRecords, finished
from dlx.report import page_facts, page_levels
from dlx.report.claims import LATE
from dlx.report.markdown import Lines, code_block, escape, link_target, name_of, table
from dlx.report.study_table import floor_line, is_idle
from dlx.report.summary import Summary
from dlx.report.table import signed, spell_effect, spell_interval, spell_seeds_needed, spell_spread


def make_page(summary: Summary, records: StudyRecords, figure_name: str | None, levels_name: str | None = None) -> str:
    """The page of a study, finished or running; the names are the pictures' paths relative to the page."""
    sections = [
        _head(summary, records),
        [f"![Dice over epochs, after the last epoch, and the differences]({link_target(figure_name)})"]
        if figure_name
        else [],
        _verdicts(summary),
        _figures(summary),
        _claims(summary),
        _marks(summary, records),
        page_facts.classes(summary),
        page_facts.spreads(summary),
        page_levels.describe_levels(summary, levels_name),
        page_facts.failures(records),
        page_facts.settings(summary),
        page_facts.environment(records),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head(summary: Summary, records: StudyRecords) -> Lines:
    header = summary.header
    lines = [f"# {escape(header.name)}"]
    if header.question:
        lines += ["", escape(header.question)]
    total, broken = len(header.trials), sum(record.status != "done" for record in finished(records.trials))
    if summary.num_done < total:
        lines += ["", f"**{summary.num_done - broken} of {total} trials done; the study still runs, or was stopped.**"]
    if broken:
        lines += ["", f"**{broken} of {total} trials diverged or failed; they are listed below.**"]
    lines += ["", *subjects] if (subjects := _subjects(summary)) else []
    return [*lines, "", *code_block(header.command, "sh")]


def _subjects(summary: Summary) -> Lines:
    """How many subjects trained and validated; empty where no trial has ended."""
    splits = [record.settings.get("split", {}) for v in summary.variants for record in v.records.values()]
    train, val = ({len(s[side]) for s in splits if s.get(side)} for side in ("train", "val"))
    if not train or not val:
        return []
    return [f"{_range(train)} training and {_range(val)} validation subject{'s' * (val != {1})}."]


def _range(counts: set[int]) -> str:
    return str(*counts) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _verdicts(summary: Summary) -> Lines:
    compared = [(v, v.comparison) for v in summary.variants if v.comparison is not None]
    if not compared:
        return []
    rows = []
    for variant, row in compared:
        verdict = (
            f"**{row.verdict}**" if row.verdict in ("better", "worse", "collapsed") or is_idle(variant) else row.verdict
        )
        reasons = [escape(mark) for mark in variant.marks]
        cells = (name_of(variant), ": ".join([verdict, "; ".join(reasons)] if reasons else [verdict]))
        rows.append((*cells, signed(row.difference), spell_interval(row.interval), f"{row.n}", spell_seeds_needed(row)))
    titles = ("variant", "verdict", "difference", "95 % interval", "pairs", "seeds needed")
    control = escape(summary.header.control)
    title = (
        f"## Difference from the control ({control}) in {escape(summary.metric_title)}: {summary.direction} is better"
    )
    return [title, "", *table(titles, rows, num_text=2), "", *_grounds(summary, len(compared))]


def _grounds(summary: Summary, num_variants: int) -> Lines:
    header = summary.header
    effect, seeds = f"{header.smallest_effect:g}", ", ".join(map(str, header.seeds))
    return [
        "- Difference: variant minus control after the last epoch, paired by seed (same initial weights, data order "
        "and augmentation); the mean over the pairs.",
        "- Verdicts: paired t test over seeds (it assumes that differences are independent and roughly normal), "
        f"corrected for {num_variants} variant{'s' * (num_variants > 1)} by Holm's method, 5 % for the whole study. "
        f"They bind at the {len(header.seeds)} declared seeds ({seeds}). Intervals are of one variant each and not "
        "corrected.",
        f'- "No difference larger than {effect}": shown by two one-sided tests against ±{effect}, the smallest effect '
        'of interest as declared. "Cannot tell" is no sign of equality.',
        "- Collapsed: some run diverged, failed, ended below half of the validation Dice of the variant's best run, or "
        "never learned a class that the other seeds learn; then no interval is given.",
        f"- Seeds needed, where there is no verdict yet: to find a true difference of {effect} with 80 % power, from "
        "the measured spread.",
        f"- {floor_line(summary)}",
        *(f"- {escape(remark)}" for remark in summary.remarks),
    ]


def _figures(summary: Summary) -> Lines:
    """What each variant reached; the metric has a column of its own where the others do not show it."""
    shown = ("train_dice", "val_dice", "gap", "jitter", "best_val_dice")
    own = () if summary.header.metric in shown else (summary.header.metric,)
    rows = []
    for variant in summary.variants:
        figures = variant.figures
        rows.append(
            (
                name_of(variant),
                f"{figures['val_dice'].n}",
                *(
                    spell_spread(figures[metric], is_mixed=bool(variant.collapse), has_sign=metric == "gap")
                    for metric in (*own, *shown)
                ),
            )
        )
    titles = (
        "variant",
        "n",
        *(escape(summary.metric_title) for _ in own),
        "train Dice",
        "validation Dice",
        "gap",
        "jitter",
    )
    return [
        "## After the last epoch",
        "",
        *table((*titles, "best epoch's validation Dice (selected on validation data)"), rows),
        "",
        "Mean ± standard deviation over n seeds; where runs collapsed, from the lowest to the highest. Dice of whole "
        "volumes, 0 to 1. Gap: train minus validation Dice. Jitter: standard deviation of validation Dice over the "
        "last quarter of the epochs, around its straight line.",
        *_aloud(summary),
    ]


def _aloud(summary: Summary) -> Lines:
    """What must be known before the figures are read: collapsed runs, and evaluation unlike training."""
    lines = []
    for variant in summary.variants:
        said = (*filter(None, [variant.collapse.describe()]), *variant.warnings)
        lines += [f"- **{name_of(variant)}: {escape(text)}.**" for text in said]
    return ["", *lines] if lines else []


def _claims(summary: Summary) -> Lines:
    rows = [
        (
            escape(outcome.claim.text),
            escape(outcome.measured),
            ": ".join(filter(None, [outcome.verdict.verdict, escape(outcome.verdict.reason), LATE * outcome.is_late])),
            *spell_effect(outcome.verdict.estimate, outcome.verdict.interval),
            f"{outcome.verdict.n}",
        )
        for outcome in summary.claims
    ]
    if not rows:
        return []
    titles = ("claim", "what was measured", "verdict", "estimate", "95 % interval", "n")
    some = " unless marked" * any(outcome.is_late for outcome in summary.claims)
    note = f"Declared before the start{some}; each is one test at 5 %, not corrected for the others. n: seeds."
    return ["## Claims", "", *table(titles, rows, num_text=3), "", note]


def _marks(summary: Summary, records: StudyRecords) -> Lines:
    """Settings that reached nothing, and each look at the verdicts."""
    idle = [f"- **{name_of(v)}: {escape('; '.join(v.marks))}.**" for v in summary.variants if is_idle(v)]
    looks = [f"{look.shown_utc} at {look.num_seeds} seeds ({escape(look.metric)})" for look in records.looks]
    if looks:
        idle.append(f"- The verdicts were looked at: {'; '.join(looks)}.")
    return ["## To be known", "", *idle] if idle else []
