"""What a study or a run found, in one sentence with its scope."""

from collections.abc import Sequence

from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.report.wording.formatting import signed, spell_interval, spell_spread
from dlx.report.wording.verdicts import FOR
from dlx.settings.text import counted
from dlx.statistics.comparison import Comparison
from dlx.statistics.verdict import Verdict

MAX_NAMED = 3  # variants of one verdict; of more, the number is given

# verdicts on variants, in the order of a headline -> how many of them are what
SAID = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.NO_DIFFERENCE: "shown to differ by no more than {effect:g}",
    Verdict.CANNOT_TELL: "undecided",
    Verdict.COLLAPSED: "not comparable, as runs collapsed",
    Verdict.NO_EFFECT: "without any effect of the setting",
    Verdict.NOT_MEASURED: "not measured",
    Verdict.INCOMPLETE: "incomplete",
}
DIFFERING = (Verdict.BETTER, Verdict.WORSE)


def headline(summary: Summary) -> str:
    """One sentence: what was found and for whom it holds; of a run without a control, its Dice."""
    compared = [variant for variant in summary.variants if variant.comparison is not None]
    if summary.num_done == 0:
        return f"Nothing can be said yet: no trial of {len(summary.header.trials)} has ended."
    if not compared:
        return " ".join(map(_reached, summary.variants)) if len(summary.variants) == 1 else _highest(summary)
    return _of_one(summary, compared[0]) if len(compared) == 1 else _of_several(summary, compared)


def _of_one(summary: Summary, variant: VariantSummary) -> str:
    """`p=0.1 is better than the control (p=0) for new patients: validation Dice +0.018 (95 % interval ...).`"""
    row = variant.comparison
    assert row is not None
    control, scope, metric = f"the control ({summary.header.control})", FOR[summary.scope], summary.metric_title
    match row.verdict:
        case Verdict.BETTER | Verdict.WORSE as verdict:
            said = f"{variant.label} is {verdict.name.lower()} than {control} {scope}"
        case Verdict.NO_DIFFERENCE:
            said = f"{variant.label} differs from {control} by no more than {row.smallest_effect:g} {scope}"
        case Verdict.CANNOT_TELL:
            said = f"Whether {variant.label} is better or worse than {control} {scope} cannot be told"
        case Verdict.COLLAPSED:
            return f"{variant.label} cannot be compared with {control}: runs collapsed."
        case Verdict.NO_EFFECT:
            return f"The setting of {variant.label} had no effect: its records equal those of {control}."
        case Verdict.NOT_MEASURED:
            return f"{variant.label} cannot be compared with {control}: {metric} was not measured."
        case _:
            runs = f"{row.num_pairs} of {len(summary.header.runs)} pairs of runs have ended"
            return f"No verdict on {variant.label} against {control} yet: {runs}."
    return f"{said}: {metric} {_effect(row)}."


def _effect(row: Comparison) -> str:
    interval = f" (95 % interval {spell_interval(row.interval)})" if row.interval is not None else ""
    return f"{signed(row.difference)}{interval}"


def _of_several(summary: Summary, compared: Sequence[VariantSummary]) -> str:
    """`Of 8 variants, 1 is better than the control (p=0) in validation Dice for new patients: p=0.1 (+0.02); 7 are
    undecided.` The control, the metric and the scope stand beside what is said first.
    """
    groups = {verdict: [v for v in compared if v.comparison and v.comparison.verdict is verdict] for verdict in SAID}
    beside = f" than the control ({summary.header.control}) in {summary.metric_title} {FOR[summary.scope]}"
    parts = []
    if not any(groups[verdict] for verdict in DIFFERING):
        parts.append(f"none is shown to be better or worse{beside}")
    for verdict, words in SAID.items():
        if found := groups[verdict]:
            said = f"{len(found)} {'is' if len(found) == 1 else 'are'} "
            said += words.format(effect=summary.header.smallest_effect) + beside * (not parts)
            parts.append(f"{said}{_named(found, is_told=verdict in DIFFERING)}")
    return f"Of {counted(len(compared), 'variant')}, {'; '.join(parts)}."


def _named(variants: Sequence[VariantSummary], *, is_told: bool) -> str:
    """`: p=0.1 (+0.020), p=0.2 (+0.010) and 2 more`; without differences, empty if there are more than MAX_NAMED."""
    if not is_told and len(variants) > MAX_NAMED:
        return ""
    names = [
        _quoted(v.label) + (f" ({signed(v.comparison.difference)})" if is_told and v.comparison else "")
        for v in variants[:MAX_NAMED]
    ]
    more = f" and {len(variants) - MAX_NAMED} more" if len(variants) > MAX_NAMED else ""
    return f": {', '.join(names)}{more}"


def _quoted(label: str) -> str:
    """The label, in quotes if it would look like several in a list."""
    return f"'{label}'" if "," in label else label


def _reached(variant: VariantSummary) -> str:
    """`unet2 reaches a validation Dice of 0.812 ± 0.004 and a training Dice of ...`"""
    estimates, is_mixed = variant.estimates, bool(variant.collapse)
    val = estimates["val_dice"]
    if not val.n:
        return f"{variant.label} reached no validation Dice: no trial of it finished."
    dice, train, gap = (
        spell_spread(estimates[metric], is_mixed=is_mixed, has_sign=metric == "gap")
        for metric in ("val_dice", "train_dice", "gap")
    )
    runs = f"over {val.n} runs " if val.n > 1 else ""
    return (
        f"{variant.label} reaches a validation Dice of {dice} {runs}after the last epoch; training Dice is {train}, "
        f"the gap {gap}."
    )


def _highest(summary: Summary) -> str:
    """Of variants without a control."""
    metric = summary.header.metric
    known = [(v, v.estimates[metric].mean) for v in summary.variants if v.estimates[metric].mean is not None]
    if not known:
        return "No variant has a result yet."
    sign = 1 if summary.direction == "higher" else -1
    best = max(known, key=lambda pair: sign * (pair[1] or 0.0))[0]
    spread = spell_spread(best.estimates[metric], is_mixed=bool(best.collapse))
    return (
        f"Nothing was compared, as the study has no control; {best.label} has the {summary.direction.rstrip('er')}est "
        f"{summary.metric_title}, {spread}."
    )
