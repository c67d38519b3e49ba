"""The rows of a study's tables, built once from its summary; the terminal and markdown pages show them.

Cells are plain text; the code that shows them escapes it.
"""

from dataclasses import dataclass

from dlx.report.findings.hardest_cases import hardest_cases, shown_variants
from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary, dice_of_classes
from dlx.report.wording.formatting import signed, spell, spell_effect, spell_interval, spell_spread
from dlx.report.wording.plans import spell_needed
from dlx.report.wording.verdicts import LATE, spell_collapse, spell_reasons, spell_scoped_verdict
from dlx.statistics.claims import Estimate
from dlx.statistics.verdict import Verdict
from dlx.study.metrics import largest_difference

SCORES = ("train_dice", "val_dice", "gap", "jitter", "best_val_dice")  # what tables of scores show, in this order


@dataclass(frozen=True)
class ScoreRow:
    """What a variant reached after the last epoch, over its n seeds."""

    name: str
    n: int
    spreads: tuple[str, ...]  # of each metric or class


@dataclass(frozen=True)
class VerdictRow:
    """A variant's paired difference from the control."""

    name: str
    verdict: Verdict
    words: str
    reasons: tuple[str, ...]
    difference: str
    intervals: tuple[str, ...]  # in the order of `Summary.scopes`
    num_pairs: int
    needed: str


@dataclass(frozen=True)
class ClaimRow:
    """A claim with what was measured for it."""

    text: str
    measured: str
    words: str
    reasons: tuple[str, ...]
    estimate: str
    interval: str
    n: int


@dataclass(frozen=True)
class HardCaseRow:
    """A validation case of low Dice."""

    name: str
    mean: str  # over the variants
    spreads: tuple[str, ...]  # in the order of `hard_case_titles`


def score_rows(summary: Summary, metrics: tuple[str, ...] = SCORES) -> list[ScoreRow]:
    """A row a variant: its number of seeds, and the mean and spread of these metrics."""
    rows = []
    for variant in summary.variants:
        estimates, is_mixed = variant.estimates, bool(variant.collapse)
        spreads = [spell_spread(estimates[m], is_mixed=is_mixed, has_sign=m == "gap") for m in metrics]
        rows.append(ScoreRow(variant.name, estimates["val_dice"].n, tuple(spreads)))
    return rows


def classes_of(summary: Summary) -> list[str]:
    """The classes by which the finished trials were scored, in the data's order, without background."""
    scored = [record.result.val for v in summary.variants for record in v.records.values() if record.result]
    return list(dict.fromkeys(name for scores in scored for name in scores.dice_per_class))


def class_rows(summary: Summary) -> list[ScoreRow]:
    """A row a variant: the validation Dice of each class, in the order of `classes_of`."""
    names = classes_of(summary)
    return [
        ScoreRow(v.name, v.estimates["val_dice"].n, tuple(_class_spread(v, name) for name in names))
        for v in summary.variants
    ]


def _class_spread(variant: VariantSummary, name: str) -> str:
    by_run = dice_of_classes(variant.records).get(name, {})
    return spell_spread(Estimate.of(by_run.values()), is_mixed=bool(variant.collapse.of_metric(f"val_dice:{name}")))


def verdict_rows(summary: Summary) -> list[VerdictRow]:
    """A row for each variant that is compared with the control."""
    return [
        VerdictRow(
            name=variant.label,
            verdict=compared.verdict,
            words=spell_scoped_verdict(compared),
            reasons=tuple(filter(None, [spell_reasons(compared)])),
            difference=signed(compared.difference),
            intervals=tuple(spell_interval(compared.scopes[scope].interval) for scope in summary.scopes),
            num_pairs=compared.num_pairs,
            needed=spell_needed(compared),
        )
        for variant in summary.variants
        if (compared := variant.comparison) is not None
    ]


def claim_rows(summary: Summary) -> list[ClaimRow]:
    """A row a claim."""
    rows = []
    for outcome in summary.claims:
        result = outcome.result
        reasons = tuple(filter(None, [spell_reasons(result), LATE * outcome.is_late]))
        effect = spell_effect(result.estimate, result.interval)
        rows.append(
            ClaimRow(outcome.claim.text, outcome.measured, spell_scoped_verdict(result), reasons, *effect, result.n)
        )
    return rows


def hard_case_titles(summary: Summary) -> list[str]:
    """The variants whose Dice of the hardest cases are shown."""
    mark = " (highest of the others)" if summary.header.control is not None else ""
    return [v.name if v.is_control else f"{v.label}{mark}" for v in shown_variants(summary)]


def hard_case_rows(summary: Summary) -> list[HardCaseRow]:
    """A row for each of the hardest cases, the hardest first."""
    mixed = [bool(variant.collapse) for variant in shown_variants(summary)]
    return [
        HardCaseRow(
            found.case,
            spell(found.mean),
            tuple(spell_spread(e, is_mixed=m) for e, m in zip(found.of_variants, mixed, strict=True)),
        )
        for found in hardest_cases(summary)
    ]


def warnings_of(variant: VariantSummary) -> tuple[str, ...]:
    """What a reader must know before the scores: runs that collapsed, and evaluation that differs from training."""
    return (*filter(None, [spell_collapse(variant.collapse)]), *variant.warnings)


def noise_floor_line(summary: Summary) -> str:
    """The control's own spread, and the smallest difference that this study could have found."""
    floor, collapsed = summary.noise_floor, spell_collapse(summary.control_collapse, " of the control")
    if floor is None or floor.control_spread is None:
        line = "Noise floor: not known from fewer than two seeds of the control."
    else:
        line = f"Noise floor (the control alone, {floor.n} runs): {floor.control_spread:.4f}."
        largest = largest_difference(summary.header.metric)
        if floor.detectable_effect is not None and floor.detectable_effect > largest:
            line += (
                f" These runs are too few to detect any difference: even a true one of {largest:g}, the largest "
                "possible, would not have been found with 80 % power."
            )
        elif floor.detectable_effect is not None:
            line += f" A true difference of {floor.detectable_effect:.3f} would have been found with 80 % power."
    return f"{line} Left out: {collapsed}." if collapsed else line
