"""Sections that only the HTML page has: the runs and classes of one network, and what each variant changes."""

from dlx.records.archive import StudyRecords, finished
from dlx.report.findings.cross_validation import cross_validate
from dlx.report.findings.differing_settings import differing_settings
from dlx.report.findings.summary import Summary
from dlx.report.wording.content import Block, Bullets, Given, Paragraph, Section, Table, Words, given, plain
from dlx.report.wording.folds import foot_lines
from dlx.report.wording.formatting import signed, spell, spell_spread
from dlx.report.wording.rows import classes_of
from dlx.settings.flat import spell_setting
from dlx.settings.text import shorten
from dlx.statistics.claims import Estimate
from dlx.study.metrics import trial_value
from dlx.study.run_id import spell_run

DICE = ("train_dice", "val_dice", "gap")
MAX_CHANGES = 600  # letters; a variant with other training subjects differs in hundreds of names


def runs_section(summary: Summary, records: StudyRecords) -> Section | None:
    """Each run of a study of one variant, and of cross-validation the means; None before two runs have ended."""
    variant = summary.variants[0]
    if len(summary.variants) > 1 or len(variant.records) < 2:
        return None
    cells = []
    for run, record in variant.records.items():
        result = record.result
        train, val, gap = (trial_value(result, metric) for metric in DICE)
        best = f"{spell(result.best_val_dice)} ({result.best_epoch})" if result else "-"
        cells.append(
            ((spell_run(run),), *plain(spell(train), spell(val), signed(gap), best, f"{record.run.seconds:.0f}"))
        )
    titles = plain("run", "train Dice", "validation Dice", "gap", "best validation Dice (epoch)", "seconds")
    blocks: list[Block] = [Table(titles, tuple(cells))]
    if summary.header.folds and finished(records.trials):
        blocks.append(Bullets(plain(*foot_lines(cross_validate(records)))))
    return Section(("Each run",), tuple(blocks))


def class_scores_section(summary: Summary) -> Section | None:
    """All scores of each class of a study of one variant, the mean over its runs; None before a run has finished."""
    (variant, *others), names = summary.variants, classes_of(summary)
    results = [record.result for record in variant.records.values() if record.result is not None]
    if others or not names:
        return None
    unit = results[0].distance_unit
    metrics = {"train_dice": "train Dice", "val_dice": "validation Dice", "gap": "gap"}
    metrics |= {"hd95_mm": f"HD95 ({unit})", "surface_dice": "surface Dice"}
    cells = []
    for name in (*names, None):
        row: list[Words] = [(Given(name),) if name is not None else ("mean of all",)]
        is_mixed = bool(variant.collapse.of_metric("val_dice" if name is None else f"val_dice:{name}"))
        for metric in metrics:
            asked = metric if name is None else f"{metric}:{name}"
            known = Estimate.of(trial_value(result, asked) for result in results)
            row.append((spell_spread(known, is_mixed=is_mixed, has_sign=metric == "gap"),))
        cells.append(tuple(row))
    note = (
        "After the last epoch; with several runs mean ± standard deviation, where runs collapsed from the lowest to "
        "the highest. HD95: 95th percentile of the distances between the surfaces. A dash: no case has the class in "
        "both masks."
    )
    titles = plain("class", *metrics.values())
    return Section(("Scores of each class",), (Table(titles, tuple(cells)), Paragraph((note,))))


def changes_section(summary: Summary) -> Section | None:
    """The settings in which each variant differs from the control (without one, from the first variant)."""
    first = {v.label: record for v in summary.variants for record in [*v.records.values()][:1]}
    base = first.get(summary.header.control or summary.variants[0].label)
    if base is None or len(first) < 2:
        return None
    cells = []
    for label, record in first.items():
        if record is not base:
            theirs, ours = (
                {key: value for key, value in one.settings.items() if key not in ("seed", "compute")}
                for one in (base, record)
            )
            changes = "; ".join(
                f"{key}: {spell_setting(before)} -> {spell_setting(after)}"
                for key, after, before in differing_settings(theirs, ours)
            )
            cells.append(given(label, shorten(changes or "nothing", MAX_CHANGES)))
    titles = plain("variant", "settings, from those of the control to its own")
    return Section(("What the variants change",), (Table(titles, tuple(cells), 2),))
