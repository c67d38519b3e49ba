"""A study's report as a markdown page: verdicts first, then the scores behind them, and how to run it again.

Made from records alone, so that the same records give the same page.
"""

import json
from collections.abc import Iterable

from dlx.records.archive import StudyRecords, finished
from dlx.report import rows
from dlx.report.formatting import spell, spell_seconds
from dlx.report.levels import PROBES, by_level, deepest_to_first, is_probed, levels_of
from dlx.report.page.markdown import Lines, code_block, escape, link_target, table
from dlx.report.plan_words import plan_lines
from dlx.report.summary import Summary
from dlx.report.words import FOR, GROUNDS
from dlx.settings.text import counted
from dlx.statistics.correction import MIN_VARIANTS
from dlx.statistics.verdict import Verdict

MODERATED = " with variances moderated over the variants"
BOLD = (Verdict.BETTER, Verdict.WORSE, Verdict.COLLAPSED, Verdict.NO_EFFECT)


def make_page(summary: Summary, records: StudyRecords, figure_name: str | None, levels_name: str | None = None) -> str:
    """The page of a study, finished or running; the names are the figures' paths relative to the page.

    What belongs to one machine (the command, paths in the settings) is taken from `records`.
    """
    sections = [
        _head(summary, records),
        [f"![Dice over epochs, after the last epoch, and the differences]({link_target(figure_name)})"]
        if figure_name
        else [],
        _verdicts(summary),
        _scores(summary),
        _claims(summary),
        _notes(summary, records),
        _classes(summary),
        _spreads(summary),
        _hardest_cases(summary),
        _levels(summary, levels_name),
        _failures(records),
        _settings(records),
        _environment(records),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head(summary: Summary, records: StudyRecords) -> Lines:
    header = records.header
    lines = [f"# {escape(header.name)}"]
    if header.question:
        lines += ["", escape(header.question)]
    total, broken = len(header.trials), sum(record.status != "done" for record in finished(records.trials))
    if summary.num_done < total:
        lines += ["", f"**{summary.num_done - broken} of {total} trials done; the study still runs, or was stopped.**"]
    if broken:
        lines += ["", f"**{broken} of {total} trials diverged or failed; they are listed below.**"]
    lines += ["", *subjects] if (subjects := _subjects(records)) else []
    return [*lines, "", *code_block(header.command, "sh")]


def _subjects(records: StudyRecords) -> Lines:
    """The numbers of training and validation subjects; empty until a trial has ended."""
    splits = [record.settings.get("split", {}) for record in finished(records.trials)]
    train, val = ({len(s[side]) for s in splits if s.get(side)} for side in ("train", "val"))
    if not train or not val:
        return []
    return [f"{_range(train)} training and {_range(val)} validation subject{'s' * (val != {1})}."]


def _range(counts: set[int]) -> str:
    return str(*counts) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _verdicts(summary: Summary) -> Lines:
    found = rows.verdict_rows(summary)
    if not found:
        return []
    cells = []
    for row in found:
        verdict = f"**{row.words}**" if row.verdict in BOLD else row.words
        words = ": ".join(filter(None, [verdict, "; ".join(map(escape, row.reasons))]))
        cells.append((escape(row.name), words, row.needed, row.difference, *row.intervals, f"{row.num_pairs}"))
    intervals = (f"95 % interval {FOR[scope]}" for scope in rows.scopes_of(summary))
    titles = ("variant", "verdict", "needed", "difference", *intervals, "pairs")
    control = escape(summary.header.control)
    title = (
        f"## Difference from the control ({control}) in {escape(summary.metric_title)}: {summary.direction} is better"
    )
    return [title, "", *table(titles, cells, num_text=3), "", *_grounds(summary, len(found))]


def _grounds(summary: Summary, num_variants: int) -> Lines:
    header = summary.header
    effect, seeds = f"{header.smallest_effect:g}", ", ".join(map(str, header.seeds))
    return [
        f"- Difference: variant minus control after the last epoch, paired by {summary.unit_of_runs} (same initial "
        "weights, data order and augmentation); the mean over the pairs.",
        f"- Verdicts hold {FOR[summary.scope]} ({escape(summary.why_scope)}): {GROUNDS[summary.scope]} (differences "
        f"independent and roughly normal), corrected for {num_variants} variant{'s' * (num_variants > 1)} by Holm's "
        f"method{MODERATED * (num_variants >= MIN_VARIANTS)}, 5 % for the whole study. They bind at the "
        f"{counted(len(header.seeds), 'declared seed')} ({seeds}). Intervals are of one variant each and not "
        "corrected. What each scope means: docs/studies.md.",
        f'- "No difference larger than {effect}": shown by two one-sided tests against ±{effect}, the smallest effect '
        'of interest. "Cannot tell" does not mean that they are equal.',
        "- Collapsed: some run diverged, failed, ended below half of the validation Dice of the variant's best run, or "
        "never learned a class that the other runs learn; then no interval is given.",
        f"- Needed, where there is no verdict yet: the seeds (with these patients) or the patients (with these seeds) "
        f"that find a true difference of {effect} with 80 % power, from the measured variances.",
        *(f"- {escape(line)}" for line in plan_lines(summary)),
        f"- {rows.noise_floor_line(summary)}",
        *(f"- {escape(remark)}" for remark in summary.remarks),
    ]


def _scores(summary: Summary) -> Lines:
    """What each variant reached; the study's metric has its own column unless it is one of these."""
    own = () if summary.header.metric in rows.SCORES else (summary.header.metric,)
    titles = (
        "variant",
        "n",
        *(escape(summary.metric_title) for _ in own),
        "train Dice",
        "validation Dice",
        "gap",
        "jitter",
        "best epoch's validation Dice (selected on validation data)",
    )
    cells = [(escape(row.name), f"{row.n}", *row.spreads) for row in rows.score_rows(summary, (*own, *rows.SCORES))]
    warnings = [
        f"- **{escape(rows.name_of(variant))}: {escape(text)}.**"
        for variant in summary.variants
        for text in rows.warnings_of(variant)
    ]
    return [
        "## After the last epoch",
        "",
        *table(titles, cells),
        "",
        "Mean ± standard deviation over n seeds; where runs collapsed, from the lowest to the highest. Dice of whole "
        "volumes, 0 to 1. Gap: train minus validation Dice. Jitter: standard deviation of validation Dice over the "
        "last quarter of the epochs, around its straight line.",
        *(["", *warnings] if warnings else []),
    ]


def _claims(summary: Summary) -> Lines:
    cells = [
        (
            escape(row.text),
            escape(row.measured),
            ": ".join((row.words, *map(escape, row.reasons))),
            row.estimate,
            row.interval,
            f"{row.n}",
        )
        for row in rows.claim_rows(summary)
    ]
    if not cells:
        return []
    titles = ("claim", "what was measured", "verdict", "estimate", "95 % interval", "n")
    some = " unless marked" * any(outcome.is_late for outcome in summary.claims)
    note = (
        f"Declared before the start{some}; each is one test at 5 %, not corrected for the others. n: the seeds, "
        "patients or runs of cross-validation behind the estimate."
    )
    return ["## Claims", "", *table(titles, cells, num_text=3), "", note]


def _notes(summary: Summary, records: StudyRecords) -> Lines:
    """Settings without any effect, each look at the verdicts, and variants that were added after the first one."""
    unreached = [row for row in rows.verdict_rows(summary) if row.verdict is Verdict.NO_EFFECT]
    lines = [f"- **{escape(row.name)}: {escape('; '.join(row.reasons))}.**" for row in unreached]
    looks = [f"{look.shown_utc} at {counted(look.num_seeds, 'seed')} ({escape(look.metric)})" for look in records.looks]
    if looks:
        lines.append(f"- Verdicts were shown: {'; '.join(looks)}.")
        seen = {*min(records.looks, key=lambda look: look.shown_utc).variants, summary.header.control}
        added = [escape(variant.label) for variant in summary.variants if variant.label not in seen]
        if added and len(seen) > 1:  # the looks of old records do not name variants
            lines.append(f"- Added after the first of these: {'; '.join(added)}.")
    return ["## Notes", "", *lines] if lines else []


def _classes(summary: Summary) -> Lines:
    names = rows.classes_of(summary)
    if not names:
        return []
    cells = [(escape(row.name), *row.spreads) for row in rows.class_rows(summary)]
    return [
        "## Validation Dice of each class",
        "",
        *table(("variant", *map(escape, names)), cells),
        "",
        "After the last epoch, as above.",
    ]


def _spreads(summary: Summary) -> Lines:
    cells = [
        (
            escape(rows.name_of(variant)),
            "collapsed" if variant.collapse else spell(variant.estimates["val_dice"].sd),
            spell(variant.case_sd),
        )
        for variant in summary.variants
    ]
    return [
        "## Spread of validation Dice",
        "",
        *table(("variant", f"over {summary.name_of_runs}", "over cases"), cells),
        "",
        f"Standard deviations, kept apart: over {summary.name_of_runs} (of the mean over cases), and over "
        "validation cases (of each case's mean over seeds), which shows how much subjects differ.",
    ]


def _hardest_cases(summary: Summary) -> Lines:
    cells = [(escape(row.name), row.mean, *row.spreads) for row in rows.hard_case_rows(summary)]
    if not cells:
        return []
    return [
        "## Hardest validation cases",
        "",
        *table(("case", "mean of all variants", *map(escape, rows.hard_case_titles(summary))), cells),
        "",
        "Dice after the last epoch, the lowest first; a case's mean over the classes that have a value in every run. "
        f"Mean ± standard deviation over {summary.name_of_runs}; where runs collapsed, from the lowest to the highest. "
        "The cases are chosen by these very Dice, so the table describes them and is no test.",
    ]


def _levels(summary: Summary, figure_name: str | None) -> Lines:
    """One table a probe, of the first weights and of the last epoch."""
    if not is_probed(summary):
        return []
    lines = ["## Levels of the network", ""]
    lines += [f"![Features, gradients and weights by level]({link_target(figure_name)})", ""] if figure_name else []
    levels = levels_of(summary)
    for field, (title, _) in PROBES.items():
        cells = []
        has_ratio = field == "mean_abs"
        for variant in summary.variants:
            first, last = (by_level(variant, last=late, field=field) for late in (False, True))
            values = [f"{first[level]:.3g} → {last[level]:.3g}" if level in first else "-" for level in levels]
            ratios = [deepest_to_first(variant, last=late) for late in (False, True)] if has_ratio else []
            spelled = ["-" if ratio is None else f"{ratio:.3g}" for ratio in ratios]
            cells.append((escape(rows.name_of(variant)), *values, *([" → ".join(spelled)] if has_ratio else [])))
        titles = ("variant", *map(escape, levels), *(["deepest / first of the encoder"] if has_ratio else []))
        lines += [f"**{title[0].upper()}{title[1:]}**", "", *table(titles, cells), ""]
    lines += [
        "Measured in the first training step of the first epoch (the first weights) → of the last epoch; mean over "
        "seeds. Features: of a level's last block, after its ReLU. Dead: 0 in the whole batch. Weights: as they are "
        "after the step.",
    ]
    return lines


def _failures(records: StudyRecords) -> Lines:
    cells = [
        (escape(record.label), escape(f"{record.status}: {record.cause or 'cause unknown'}"), f"{record.seed}")
        for record in finished(records.trials)
        if record.status != "done"
    ]
    return ["## Trials that did not finish", "", *table(("variant", "cause", "seed"), cells, 2)] if cells else []


def _settings(records: StudyRecords) -> Lines:
    header = records.header
    lines = ["## Settings", ""]
    for axis in header.axes:
        values = dict.fromkeys(escape(variant.values.get(axis)) for variant in header.variants)
        separator = "; " if any("," in value for value in values) else ", "
        lines.append(f"- {escape(axis)}: {separator.join(values)}")
    lines += [f"- epochs: {_epochs(records)}", f"- seeds: {', '.join(map(str, header.seeds))}", ""]
    whose = "the control" if header.control is not None else "the first variant"
    text = json.dumps(header.settings, indent=2, ensure_ascii=False)
    return [
        *lines,
        "<details>",
        f"<summary>All settings of {whose}</summary>",
        "",
        *code_block(text, "json"),
        "",
        "</details>",
    ]


def _epochs(records: StudyRecords) -> str:
    """`20`; `10 to 20` if trials end after unlike numbers of epochs. Trials without a result count with the most."""
    results = [trial.record.result if trial.record else None for trial in records.trials]
    counts = {result.epochs if result else records.header.epochs for result in results} or {records.header.epochs}
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"


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
