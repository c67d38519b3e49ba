"""The validation cases with the lowest Dice over all runs of all variants."""

from dataclasses import dataclass
from statistics import mean

from dlx.report.findings.patients import case_values, common_classes
from dlx.report.findings.summary import Summary
from dlx.report.findings.variants import VariantSummary
from dlx.statistics.claims import Estimate

NUM_SHOWN = 10  # as many as fit a page beside the other tables


@dataclass(frozen=True)
class HardCase:
    """A case: its mean Dice over the variants, and its Dice over the runs of each variant that is shown."""

    case: str
    mean: float
    of_variants: tuple[Estimate, ...]  # in the order of `shown_variants`


def shown_variants(summary: Summary) -> list[VariantSummary]:
    """The control, and of the others the variant with the highest mean validation Dice."""
    control = [variant for variant in summary.variants if variant.is_control]
    means = {variant.label: variant.estimates["val_dice"].mean for variant in summary.variants}
    others = [v for v in summary.variants if not v.is_control and means[v.label] is not None]
    return control + sorted(others, key=lambda variant: means[variant.label] or 0.0, reverse=True)[:1]


def hardest_cases(summary: Summary) -> list[HardCase]:
    """The cases of the lowest Dice, the lowest first; none if there are fewer than two cases.

    A case's Dice in a run is the mean over the classes that have a value in all runs of all variants; a case without
    any is left out. The mean over variants is that of each variant's mean over its runs, so that a variant with fewer
    finished runs counts as much as the others.
    """
    by_variant = _dice_of_cases(summary)
    shown = [by_variant[variant.label] for variant in shown_variants(summary)]
    cases = list(dict.fromkeys(case for found in by_variant.values() for case in found))
    if len(cases) < 2:
        return []
    means = {case: mean(mean(found[case]) for found in by_variant.values() if case in found) for case in cases}
    return [
        HardCase(case, means[case], tuple(Estimate.of(found.get(case, ())) for found in shown))
        for case in sorted(cases, key=means.__getitem__)[:NUM_SHOWN]
    ]


def _dice_of_cases(summary: Summary) -> dict[str, dict[str, list[float]]]:
    """Variant -> case -> its Dice in each finished run that validates it."""
    runs = {
        variant.label: [case_values(r.result, "val_dice") for r in variant.records.values() if r.result is not None]
        for variant in summary.variants
    }
    classes = common_classes(cases for of_variant in runs.values() for cases in of_variant)
    found: dict[str, dict[str, list[float]]] = {}
    for label, of_variant in runs.items():
        dice = found.setdefault(label, {})
        for cases in of_variant:
            for case, scores in cases.items():
                if classes[case]:
                    dice.setdefault(case, []).append(mean(scores[name] for name in classes[case]))
    return found
