"""The cross-validation of one network in words."""

from dlx.report.findings.cross_validation import CrossValidation
from dlx.report.wording.formatting import spell
from dlx.settings.text import counted


def foot_lines(found: CrossValidation) -> list[str]:
    """The mean over all cases and the interval for new training sets, or how many runs are missing."""
    header = found.header
    lines = ["sd: standard deviation over folds, in each the mean over its seeds"] if len(header.seeds) > 1 else []
    if found.over_cases is not None:
        times = "each validated once" + " by each seed" * (len(header.seeds) > 1)
        what = counted(found.num_cases or 0, "case")
        lines.append(f"mean over all {what}, {times}: val Dice {spell(found.over_cases)}")
    if found.interval is not None:
        low, high = (spell(end) for end in found.interval)
        mean = spell(found.over_folds("val_dice").mean)
        lines.append(f"mean over folds: val Dice {mean}, for new training sets {low} to {high} (95 %)")
    done = sum(record.result is not None for record in found.records.values())
    if done < len(header.runs):
        lines.append(f"finished runs: {done} of {len(header.runs)}; the mean over all cases and the interval need all")
    return lines
