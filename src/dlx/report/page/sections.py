"""The sections of a study's page: verdicts, the scores behind them, and what was run where.

Made from records alone, so that the same records give the same page. Markdown and HTML show the same sections.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from dlx.records.archive import StudyRecords, finished
from dlx.report.findings.levels import PROBES, by_level, deepest_to_first, is_probed, levels_of
from dlx.report.findings.pairing import have_same_augmentation, have_same_weights, saw_same_patches
from dlx.report.findings.summary import Summary
from dlx.report.wording import rows
from dlx.report.wording.content import (
    Block,
    Bullets,
    Code,
    Folded,
    Given,
    Paragraph,
    Section,
    Strong,
    Table,
    Words,
    given,
    joined,
    plain,
    words,
)
from dlx.report.wording.formatting import spell, spell_seconds
from dlx.report.wording.plans import plan_lines
from dlx.report.wording.verdicts import FOR, GROUNDS
from dlx.settings.text import counted
from dlx.statistics.correction import MIN_VARIANTS
from dlx.statistics.verdict import Verdict

MODERATED = " with variances moderated over the variants"
BOLD = (Verdict.BETTER, Verdict.WORSE, Verdict.COLLAPSED, Verdict.NO_EFFECT)
MAX_TEXT_COLUMNS = 3  # of verdicts and claims, beside their numbers


@dataclass(frozen=True)
class PageContent:
    """What a study's pages show, put together once for markdown and HTML; sections without content are None."""

    summary: Summary
    records: StudyRecords
    head: Section
    verdicts: Section | None
    scores: Section
    claims: Section | None
    notes: Section | None
    classes: Section | None
    spreads: Section
    hardest_cases: Section | None
    levels: Section | None
    failures: Section | None
    settings: Section
    environment: Section | None


def page_content(summary: Summary, records: StudyRecords) -> PageContent:
    """The content of the pages of a study, finished or running.

    What belongs to one machine (the command, paths in the settings) is taken from `records`.
    """
    return PageContent(
        summary=summary,
        records=records,
        head=head_section(summary, records),
        verdicts=verdicts_section(summary),
        scores=scores_section(summary),
        claims=claims_section(summary),
        notes=notes_section(summary, records),
        classes=classes_section(summary),
        spreads=spreads_section(summary),
        hardest_cases=hardest_cases_section(summary),
        levels=levels_section(summary),
        failures=failures_section(records),
        settings=settings_section(records),
        environment=environment_section(records),
    )


def head_section(summary: Summary, records: StudyRecords) -> Section:
    """The name of the study, its question, how far it is, and its command."""
    header = records.header
    blocks: list[Block] = [Paragraph((Given(header.question),))] if header.question else []
    blocks += [Paragraph((Strong((line,)),)) for line in progress_lines(summary, records)]
    blocks += [Paragraph((line,)) for line in subject_lines(records)]
    return Section((Given(header.name),), (*blocks, Code(header.command, "sh")))


def progress_lines(summary: Summary, records: StudyRecords) -> list[str]:
    """What of a study is missing: trials that did not end, or that failed."""
    total = len(records.header.trials)
    broken, lines = sum(record.status != "done" for record in finished(records.trials)), []
    if summary.num_done < total:
        lines.append(f"{summary.num_done - broken} of {total} trials done; the study still runs, or was stopped.")
    if broken:
        lines.append(f"{broken} of {total} trials diverged or failed; they are listed below.")
    return lines


def subject_lines(records: StudyRecords) -> list[str]:
    """The numbers of training and validation subjects; empty until a trial has ended."""
    splits = [record.settings.get("split", {}) for record in finished(records.trials)]
    train, val = ({len(s[side]) for s in splits if s.get(side)} for side in ("train", "val"))
    if not train or not val:
        return []
    fold = f" in each of {len(records.header.folds)} folds" if records.header.folds else ""
    return [f"{_range(train)} training and {_range(val)} validation subject{'s' * (val != {1})}{fold}."]


def _range(counts: set[int]) -> str:
    return str(*counts) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def verdicts_section(summary: Summary) -> Section | None:
    """The differences from the control; None without a comparison."""
    found = rows.verdict_rows(summary)
    if not found:
        return None
    cells = []
    for row in found:
        verdict: Words = (Strong((row.words,)),) if row.verdict in BOLD else (row.words,)
        reasons = joined("; ", given(*row.reasons))
        text = joined(": ", [part for part in (verdict, reasons) if part])
        cells.append(((Given(row.name),), text, *plain(row.needed, row.difference, *row.intervals, f"{row.num_pairs}")))
    intervals = (f"95 % interval {FOR[scope]}" for scope in summary.scopes)
    titles = plain("variant", "verdict", "needed", "difference", *intervals, "pairs")
    title = words(
        "Difference from the control (",
        Given(summary.header.control),
        ") in ",
        Given(summary.metric_title),
        f": {summary.direction} is better",
    )
    return Section(title, (Table(titles, tuple(cells), MAX_TEXT_COLUMNS), _grounds(summary, len(found))))


def _in_common(summary: Summary) -> str:
    """` (same initial weights, data order and augmentation)`, of these what trials of one seed have in common."""
    same = {
        "initial weights": have_same_weights(summary),
        "data order": saw_same_patches(summary),
        "augmentation": have_same_augmentation(summary),
    }
    *others, last = [name for name, is_same in same.items() if is_same] or [""]
    return f" (same {' and '.join(filter(None, (', '.join(others), last)))})" if last else ""


def _grounds(summary: Summary, num_variants: int) -> Bullets:
    header = summary.header
    effect, seeds = f"{header.smallest_effect:g}", ", ".join(map(str, header.seeds))
    return Bullets(
        (
            (
                f"Difference: variant minus control after the last epoch, paired by {summary.unit_of_runs}"
                f"{_in_common(summary)}; the mean over the pairs.",
            ),
            (
                f"Verdicts hold {FOR[summary.scope]} (",
                Given(summary.why_scope),
                f"): {GROUNDS[summary.scope]} (differences independent and roughly normal), corrected for "
                f"{num_variants} variant{'s' * (num_variants > 1)} by Holm's method"
                f"{MODERATED * (num_variants >= MIN_VARIANTS)}, 5 % for the whole study. They bind at the "
                f"{counted(len(header.seeds), 'declared seed')} ({seeds}). Intervals are of one variant each and not "
                "corrected. What each scope means: docs/studies.md.",
            ),
            (
                f'"No difference larger than {effect}": shown by two one-sided tests against ±{effect}, the smallest '
                'effect of interest. "Cannot tell" does not mean that they are equal.',
            ),
            (
                "Collapsed: some run diverged, failed, ended below half of the validation Dice of the variant's best "
                "run, or never learned a class that the other runs learn; then no interval is given.",
            ),
            (
                "Needed, where there is no verdict yet: the seeds (with these patients) or the patients (with these "
                f"seeds) that find a true difference of {effect} with 80 % power, from the measured variances.",
            ),
            *given(*plan_lines(summary)),
            (rows.noise_floor_line(summary),),
            *given(*summary.remarks),
        )
    )


def scores_section(summary: Summary) -> Section:
    """What each variant reached; the study's metric has its own column unless it is one of these."""
    own = () if summary.header.metric in rows.SCORES else (summary.header.metric,)
    titles = (
        *plain("variant", "n"),
        *given(*(summary.metric_title for _ in own)),
        *plain(
            "train Dice",
            "validation Dice",
            "gap",
            "jitter",
            "best epoch's validation Dice (selected on validation data)",
        ),
    )
    cells = tuple(
        ((Given(row.name),), *plain(f"{row.n}", *row.spreads)) for row in rows.score_rows(summary, (*own, *rows.SCORES))
    )
    warnings: tuple[Words, ...] = tuple(
        (Strong((Given(variant.name), ": ", Given(text), ".")),)
        for variant in summary.variants
        for text in rows.warnings_of(variant)
    )
    runs = "runs, a fold and seed each" if summary.header.folds else "seeds"
    note = Paragraph(
        (
            f"Mean ± standard deviation over n {runs}; where runs collapsed, from the lowest to the highest. Dice of "
            "whole volumes, 0 to 1. Gap: train minus validation Dice. Jitter: standard deviation of validation Dice "
            "over the last quarter of the epochs, but at least three, around its straight line.",
        )
    )
    blocks: list[Block] = [Table(titles, cells), note, *([Bullets(warnings)] if warnings else [])]
    return Section(("After the last epoch",), tuple(blocks))


def claims_section(summary: Summary) -> Section | None:
    """The claims that were declared, with their verdicts."""
    cells = tuple(
        (
            (Given(row.text),),
            (Given(row.measured),),
            joined(": ", [(row.words,), *given(*row.reasons)]),
            *plain(row.estimate, row.interval, f"{row.n}"),
        )
        for row in rows.claim_rows(summary)
    )
    if not cells:
        return None
    titles = plain("claim", "what was measured", "verdict", "estimate", "95 % interval", "n")
    some = " unless marked" * any(outcome.is_late for outcome in summary.claims)
    note = (
        f"Declared before the start{some}; each is one test at 5 %, not corrected for the others. n: the seeds, "
        "patients or runs of cross-validation behind the estimate."
    )
    return Section(("Claims",), (Table(titles, cells, MAX_TEXT_COLUMNS), Paragraph((note,))))


def notes_section(summary: Summary, records: StudyRecords) -> Section | None:
    """Settings without any effect, each look at the verdicts, and variants that were added after the first one."""
    unreached = [row for row in rows.verdict_rows(summary) if row.verdict is Verdict.NO_EFFECT]
    lines: list[Words] = [(Strong((Given(row.name), ": ", Given("; ".join(row.reasons)), ".")),) for row in unreached]
    looks: list[Words] = [
        (f"{look.shown_utc} at {counted(look.num_seeds, 'seed')} (", Given(look.metric), ")") for look in records.looks
    ]
    if looks:
        lines.append(("Verdicts were shown: ", *joined("; ", looks), "."))
        seen = {*min(records.looks, key=lambda look: look.shown_utc).variants, summary.header.control}
        added = given(*(variant.label for variant in summary.variants if variant.label not in seen))
        if added and len(seen) > 1:  # the looks of old records do not name variants
            lines.append(("Added after the first of these: ", *joined("; ", added), "."))
    return Section(("Notes",), (Bullets(tuple(lines)),)) if lines else None


def classes_section(summary: Summary) -> Section | None:
    """The validation Dice of each class; None until a trial is scored."""
    names = rows.classes_of(summary)
    if not names:
        return None
    cells = tuple(((Given(row.name),), *plain(*row.spreads)) for row in rows.class_rows(summary))
    table = Table((("variant",), *given(*names)), cells)
    return Section(("Validation Dice of each class",), (table, Paragraph(("After the last epoch, as above.",))))


def spreads_section(summary: Summary) -> Section:
    """The spread over seeds beside that over cases."""
    cells = tuple(
        (
            (Given(variant.name),),
            *plain(
                "collapsed" if variant.collapse else spell(variant.estimates["val_dice"].sd), spell(variant.case_sd)
            ),
        )
        for variant in summary.variants
    )
    note = (
        f"Standard deviations, kept apart: over {summary.name_of_runs} (of the mean over cases), and over "
        "validation cases (of each case's mean over seeds), which shows how much subjects differ."
    )
    table = Table(plain("variant", f"over {summary.name_of_runs}", "over cases"), cells)
    return Section(("Spread of validation Dice",), (table, Paragraph((note,))))


def hardest_cases_section(summary: Summary) -> Section | None:
    """The validation cases of the lowest Dice over all runs; None with fewer than two cases."""
    cells = tuple(((Given(row.name),), *plain(row.mean, *row.spreads)) for row in rows.hard_case_rows(summary))
    if not cells:
        return None
    titles = (*plain("case", "mean of all variants"), *given(*rows.hard_case_titles(summary)))
    note = (
        "Dice after the last epoch, the lowest first; a case's mean over the classes that have a value in every run. "
        f"Mean ± standard deviation over {summary.name_of_runs}; where runs collapsed, from the lowest to the highest. "
        "The cases are chosen by these very Dice, so the table describes them and is no test."
    )
    return Section(("Hardest validation cases",), (Table(titles, cells), Paragraph((note,))))


def levels_section(summary: Summary) -> Section | None:
    """One table a probe, of the first weights and of the last epoch; None if the network was not probed."""
    if not is_probed(summary):
        return None
    blocks: list[Block] = []
    levels = levels_of(summary)
    for field, (title, _) in PROBES.items():
        cells = []
        has_ratio = field == "mean_abs"
        for variant in summary.variants:
            first, last = (by_level(variant, last=late, field=field) for late in (False, True))
            values = [f"{first[level]:.3g} → {last[level]:.3g}" if level in first else "-" for level in levels]
            ratios = [deepest_to_first(variant, last=late) for late in (False, True)] if has_ratio else []
            spelled = ["-" if ratio is None else f"{ratio:.3g}" for ratio in ratios]
            cells.append(((Given(variant.name),), *plain(*values, *([" → ".join(spelled)] if has_ratio else []))))
        titles = (("variant",), *given(*levels), *plain(*["deepest / first of the encoder"] * has_ratio))
        blocks += [Paragraph((Strong((f"{title[0].upper()}{title[1:]}",)),)), Table(titles, tuple(cells))]
    note = (
        "Measured in the first training step of the first epoch (the first weights) → of the last epoch; mean over "
        "seeds. Features: of a level's last block, after its ReLU. Dead: 0 in the whole batch. Weights: as they are "
        "after the step."
    )
    return Section(("Levels of the network",), (*blocks, Paragraph((note,))))


def failures_section(records: StudyRecords) -> Section | None:
    """The trials that diverged or failed, with their causes."""
    cells = tuple(
        (*given(record.label, f"{record.status}: {record.cause or 'cause unknown'}"), (f"{record.seed}",))
        for record in finished(records.trials)
        if record.status != "done"
    )
    if not cells:
        return None
    return Section(("Trials that did not finish",), (Table(plain("variant", "cause", "seed"), cells, 2),))


def settings_section(records: StudyRecords) -> Section:
    """The axes of the study, its epochs and seeds, and all settings of the control."""
    header = records.header
    lines: list[Words] = []
    for axis in header.axes:
        values = [*dict.fromkeys(str(variant.values.get(axis)) for variant in header.variants)]
        separator = "; " if any("," in value for value in values) else ", "
        lines.append((Given(axis), ": ", *joined(separator, given(*values))))
    lines += plain(f"epochs: {_epochs(records)}", f"seeds: {', '.join(map(str, header.seeds))}")
    whose = "the control" if header.control is not None else "the first variant"
    text = json.dumps(header.settings, indent=2, ensure_ascii=False)
    return Section(("Settings",), (Bullets(tuple(lines)), Folded(f"All settings of {whose}", Code(text, "json"))))


def _epochs(records: StudyRecords) -> str:
    """`20`; `10 to 20` if trials end after unlike numbers of epochs. Trials without a result count with the most."""
    results = [trial.record.result if trial.record else None for trial in records.trials]
    counts = {result.epochs if result else records.header.epochs for result in results} or {records.header.epochs}
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"


def environment_section(records: StudyRecords) -> Section | None:
    """Device, versions, commit and time of the trials; None until one has ended."""
    known = finished(records.trials)
    if not known:
        return None
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
    lines = tuple((f"{name}: ", Given(fact)) for name, fact in facts.items() if fact)
    return Section(("Where it ran",), (Bullets(lines),))


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))
