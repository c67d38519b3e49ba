"""A study's report as a markdown page: verdicts first, then what they rest on, and all it takes to run it again.

Made from records alone, so that the same records give the same page.
"""

import json
import re
from collections.abc import Iterable, Sequence
from statistics import mean

from dlx.archive import StudyRecords, finished
from dlx.report.study_table import floor_line, is_idle, spell_spread
from dlx.report.summary import Summary, VariantSummary
from dlx.report.table import signed, spell, spell_seconds

Lines = list[str]


def make_page(summary: Summary, records: StudyRecords, figure_name: str | None) -> str:
    """The page of a study, finished or running; `figure_name` is the picture's path relative to the page."""
    sections = [
        _head(summary, records),
        [f"![Dice over epochs, after the last epoch, and the differences]({figure_name})"] if figure_name else [],
        _verdicts(summary),
        _figures(summary),
        _claims(summary),
        _marks(summary, records),
        _classes(summary, records),
        _spreads(summary),
        _failures(records),
        _settings(summary),
        _environment(records),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def escape(text: object) -> str:
    """Text that markdown takes as it is, also in a cell of a table and beside dollars."""
    return re.sub(r"([\\`*_<>|$\[\]~])", r"\\\1", " ".join(str(text).split()))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], num_text: int = 1) -> Lines:
    """A table whose first `num_text` columns are words and the others numbers; cells are markdown already."""
    rule = ["---"] * num_text + ["---:"] * (len(titles) - num_text)
    return [f"| {' | '.join(row)} |" for row in (titles, rule, *rows)]


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
    return [*lines, "", "```sh", header.command, "```"]


def _name(variant: VariantSummary) -> str:
    return escape(variant.label) + (" (control)" if variant.is_control else "")


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
        cells = (_name(variant), ": ".join([verdict, "; ".join(reasons)] if reasons else [verdict]))
        needed = "-" if row.seeds_needed is None else f"{row.seeds_needed}"
        rows.append((*cells, signed(row.difference), _interval(row.interval), f"{row.n}", needed))
    titles = ("variant", "verdict", "difference", "95 % interval", "pairs", "seeds needed")
    control = escape(summary.header.control)
    title = f"## Difference from the control ({control}) in {summary.metric_title}"
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
        'of interest, declared before the start. "Cannot tell" is no sign of equality.',
        "- Collapsed: some run diverged, failed or ended below half of the validation Dice of the variant's best run; "
        "then no interval is given.",
        f"- Seeds needed: to find a true difference of {effect} with 80 % power, from the measured spread.",
        f"- {floor_line(summary.noise_floor)}",
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
                _name(variant),
                f"{figures['val_dice'].n}",
                *(spell_spread(figures[metric]) for metric in (*own, "train_dice", "val_dice")),
                signed(figures["gap"].mean),
                spell(figures["jitter"].mean),
                spell(figures["best_val_dice"].mean),
            )
        )
    titles = ("variant", "n", *(summary.metric_title for _ in own), "train Dice", "validation Dice", "gap", "jitter")
    return [
        "## After the last epoch",
        "",
        *table((*titles, "best epoch's validation Dice (selected on validation data)"), rows),
        "",
        "Mean ± standard deviation over n seeds. Dice of whole volumes, 0 to 1. Gap: train minus validation Dice. "
        "Jitter: standard deviation of validation Dice over the last quarter of the epochs, around its straight line.",
    ]


def _claims(summary: Summary) -> Lines:
    rows = [
        (
            escape(outcome.claim.text),
            escape(outcome.measured),
            ": ".join(filter(None, [outcome.verdict.verdict, escape(outcome.verdict.reason)])),
            signed(outcome.verdict.estimate),
            _interval(outcome.verdict.interval),
            f"{outcome.verdict.n}",
        )
        for outcome in summary.claims
    ]
    if not rows:
        return []
    titles = ("claim", "what was measured", "verdict", "estimate", "95 % interval", "n")
    note = "Declared before the start; each is one test at 5 %, not corrected for the others. n: seeds."
    return ["## Claims", "", *table(titles, rows, num_text=3), "", note]


def _marks(summary: Summary, records: StudyRecords) -> Lines:
    """Settings that reached nothing, and each look at the verdicts."""
    idle = [f"- **{_name(v)}: {escape('; '.join(v.marks))}.**" for v in summary.variants if is_idle(v)]
    looks = [f"{look.shown_utc} at {look.num_seeds} seeds ({escape(look.metric)})" for look in records.looks]
    if looks:
        idle.append(f"- The verdicts were looked at: {'; '.join(looks)}.")
    return ["## To be known", "", *idle] if idle else []


def _classes(summary: Summary, records: StudyRecords) -> Lines:
    found: dict[str, dict[str, list[float]]] = {variant.label: {} for variant in summary.variants}
    for trial in records.trials:
        result = trial.record.result if trial.record is not None else None
        for name, dice in (result.val.dice_per_class if result else {}).items():
            if dice is not None:
                found[trial.entry.label].setdefault(name, []).append(dice)
    names = list(dict.fromkeys(name for by_class in found.values() for name in by_class))
    if not names:
        return []
    rows = [(_name(v), *(spell(_mean(found[v.label].get(name, []))) for name in names)) for v in summary.variants]
    return [
        "## Validation Dice of each class",
        "",
        *table(("variant", *map(escape, names)), rows),
        "",
        "After the last epoch, mean over seeds.",
    ]


def _spreads(summary: Summary) -> Lines:
    rows = [(_name(v), spell(v.figures["val_dice"].sd), spell(v.case_sd)) for v in summary.variants]
    return [
        "## Spread of validation Dice",
        "",
        *table(("variant", "over seeds", "over cases"), rows),
        "",
        "Standard deviations, kept apart: over seeds (of the mean over cases), which the tests use, and over "
        "validation cases (of each case's mean over seeds), which says how unlike the subjects are.",
    ]


def _failures(records: StudyRecords) -> Lines:
    rows = [
        (escape(record.label), f"{record.status}: {escape(record.cause or 'cause unknown')}", f"{record.seed}")
        for record in finished(records.trials)
        if record.status != "done"
    ]
    return ["## Trials that did not run through", "", *table(("variant", "cause", "seed"), rows, 2)] if rows else []


def _settings(summary: Summary) -> Lines:
    header = summary.header
    lines = ["## Settings", ""]
    for axis in header.axes:
        values = dict.fromkeys(escape(variant.values.get(axis)) for variant in header.variants)
        lines.append(f"- {escape(axis)}: {', '.join(values)}")
    lines += [f"- epochs: {header.epochs}", f"- seeds: {', '.join(map(str, header.seeds))}", ""]
    whose = "the control" if header.control is not None else "the first variant"
    text = json.dumps(header.settings, indent=2, ensure_ascii=False)
    return [
        *lines,
        "<details>",
        f"<summary>All settings of {whose}</summary>",
        "",
        "```json",
        text,
        "```",
        "",
        "</details>",
    ]


def _environment(records: StudyRecords) -> Lines:
    known = finished(records.trials)
    if not known:
        return []
    versions: dict[str, dict[str, None]] = {}
    for record in known:
        for name, version in record.run.versions.items():
            versions.setdefault(name, {})[version] = None
    compute = [record.settings.get("compute", {}) for record in known]
    facts = {
        "device": _distinct(record.run.device for record in known),
        "precision": _distinct(c.get("precision") for c in compute),
        "threads of each trial": _distinct(c.get("threads") for c in compute),
        "versions": ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items()),
        "commit": _distinct(record.run.commit for record in known),
        "parameters": _distinct(f"{record.parameters:,}" for record in known),
        "training time, all trials": spell_seconds(sum(record.run.seconds for record in known)),
        "trials done": f"{sum(record.status == 'done' for record in known)} of {len(records.header.trials)}",
    }
    return ["## Where it ran", "", *(f"- {name}: {escape(fact)}" for name, fact in facts.items() if fact)]


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
