"""Tests the claims of a study on its records: each claim gives one value per seed, which `dlx.statistics` judges."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

import numpy as np

from dlx.records.schema import StudyHeader
from dlx.report.variants import VariantSummary, on_one_device
from dlx.statistics import reasons as why
from dlx.statistics.claims import ClaimResult, Estimate, judge_best, judge_greater, judge_within, trend_slopes
from dlx.statistics.looks import cost_of_looks
from dlx.statistics.verdict import Verdict
from dlx.study.claims import Claim
from dlx.study.metrics import direction_of, epoch_value, find_metric, spell_window, split_metric
from dlx.study.results import EpochResult

ValuesOf = Callable[[str], dict[int, float]]  # label -> seed -> the claim's metric


@dataclass(frozen=True)
class ClaimOutcome:
    """A claim, what was measured for it in words, and its result."""

    claim: Claim
    measured: str  # what the estimate is of
    result: ClaimResult
    is_late: bool  # declared after results existed, so that it does not test an expectation


def judge_claims(
    header: StudyHeader, variants: Mapping[str, VariantSummary], looks: Sequence[int]
) -> tuple[ClaimOutcome, ...]:
    """Tests every claim of the header over the declared seeds that have its metric.

    Until all seeds have it the verdict is INCOMPLETE, without an interval. Trials on unlike devices are not paired.
    `looks` are the numbers of seeds at which verdicts were shown before.
    """
    return tuple(_judge(Claim.model_validate(claim), header, variants, looks) for claim in header.claims)


def _judge(
    claim: Claim, header: StudyHeader, variants: Mapping[str, VariantSummary], looks: Sequence[int]
) -> ClaimOutcome:
    concerned = [variants[label] for label in claim.concerns(list(variants), header.control)]
    alike = on_one_device(concerned, header.seeds)

    def values(label: str) -> dict[int, float]:
        return _values(claim, variants[label], alike)

    subject, result = _measure(claim, header, values)
    collapses = [(v.label, v.collapse.of_metric(claim.metric)) for v in concerned]
    collapsed = tuple((label, collapse) for label, collapse in collapses if collapse)
    lacks = [
        f"{v.label}: {lack}" for v in concerned for w in claim.windows or (None,) if (lack := v.lacks(claim.metric, w))
    ]
    if collapsed and find_metric(claim.metric)[0].depends_on_learning:
        result = _untested(result, Verdict.CANNOT_TELL, why.CollapsedVariants(collapsed))
    elif lacks:
        result = _untested(result, Verdict.NOT_MEASURED, why.NotMeasured(lacks[0]))
    elif result.n < len(header.seeds):
        missing = why.MissingSeeds(result.n, len(header.seeds), len(header.seeds) - len(alike))
        result = _untested(result, Verdict.INCOMPLETE, missing)
    elif result.verdict is not Verdict.CANNOT_TELL:
        # the rate of false alarms is known only for a claim that is one t test
        cost = cost_of_looks(looks, result.n, None if claim.kind in ("best", "within") else 1)
        result = replace(result, reasons=(*result.reasons, *cost))
    return ClaimOutcome(claim, f"{subject}, {_what(claim)}", result, is_late=claim.text in header.declared_late)


def _measure(claim: Claim, header: StudyHeader, values: ValuesOf) -> tuple[str, ClaimResult]:
    """What has the claim's metric, in words, and the result over the seeds that have a value."""
    if claim.kind in ("rises", "falls"):
        return _judge_trend(claim, header, values)
    if claim.kind != "best":
        return _judge_contrast(claim, header, values)
    assert claim.variant is not None
    others = claim.among or tuple(variant.label for variant in header.variants)
    rivals = {label: values(label) for label in dict.fromkeys((claim.variant, *others))}
    result = judge_best(rivals, claim.variant, higher_is_better=direction_of(claim.metric) == "higher")
    # a claim is complete only if every rival has all seeds, not just the closest
    result = replace(result, n=min(result.n, *map(len, rivals.values())))
    return f"advantage of {claim.variant} over its closest rival", result


def _judge_contrast(claim: Claim, header: StudyHeader, values: ValuesOf) -> tuple[str, ClaimResult]:
    assert claim.variant is not None
    other = claim.than or (header.control if claim.than_window is None else None)
    mine = values(claim.variant)
    theirs = values(other) if other is not None else dict.fromkeys(mine, 0.0)
    differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    subject = f"{claim.variant} minus {other}" if other else claim.variant
    if claim.kind == "within":
        return subject, judge_within(differences, claim.margin)
    return subject, _judge_sign(claim, differences)


def _judge_trend(claim: Claim, header: StudyHeader, values: ValuesOf) -> tuple[str, ClaimResult]:
    axis = claim.axis or header.axes[0]
    chosen = [v for v in header.variants if claim.among is None or v.label in claim.among]
    by_label = [values(variant.label) for variant in chosen]
    seeds = [seed for seed in header.seeds if all(seed in known for known in by_label)]
    table = np.array([[known[seed] for known in by_label] for seed in seeds]).reshape(len(seeds), len(chosen))
    slopes = trend_slopes([float(variant.values[axis]) for variant in chosen], table).tolist()
    return f"slope over {axis}", _judge_sign(claim, slopes)


def _judge_sign(claim: Claim, values: Sequence[float]) -> ClaimResult:
    """The result of a claim `greater` or `rises`, or of its opposite `less` or `falls`."""
    if claim.kind in ("greater", "rises"):
        return judge_greater(values, claim.margin)
    verdict = judge_greater([-value for value in values], claim.margin).verdict
    estimate = Estimate(tuple(values))
    return ClaimResult(verdict, estimate.mean, estimate.interval, estimate.n)


def _values(claim: Claim, variant: VariantSummary, seeds: Iterable[int]) -> dict[int, float]:
    """The claim's metric of one variant, by seed; the seeds that lack it are left out."""
    found: dict[int, float | None] = {}
    for seed in seeds:
        epochs = variant.epochs.get(seed, ())
        if claim.window is None and claim.metric in variant.by_seed:
            found[seed] = variant.by_seed[claim.metric].get(seed)
        elif claim.window is None:  # the last epoch that has it, of a trial that ran through
            known = [v for e in epochs if (v := epoch_value(e, claim.metric)) is not None]
            found[seed] = known[-1] if known and variant.by_seed["val_dice"].get(seed) is not None else None
        else:
            now = _in_window(epochs, claim.window, claim.metric)
            before = 0.0 if claim.than_window is None else _in_window(epochs, claim.than_window, claim.metric)
            found[seed] = None if now is None or before is None else now - before
    return {seed: value for seed, value in found.items() if value is not None}


def _in_window(epochs: Sequence[EpochResult], window: tuple[int, int], metric: str) -> float | None:
    """The mean of an epoch's metric over a window; None before its last epoch is there."""
    if not epochs or epochs[-1].epoch < window[1]:
        return None
    known = [v for e in epochs if window[0] <= e.epoch <= window[1] and (v := epoch_value(e, metric)) is not None]
    return mean(known) if known else None


def _what(claim: Claim) -> str:
    name, class_name = split_metric(claim.metric)
    what = name.replace("_", " ").replace("dice", "Dice") + (f" of {class_name}" if class_name is not None else "")
    if claim.window is None:
        return what
    text = f"{what} in {spell_window(claim.window)}"
    return f"{text} minus {spell_window(claim.than_window)}" if claim.than_window else text


def _untested(result: ClaimResult, verdict: Verdict, reason: why.Reason) -> ClaimResult:
    """The result without its interval and with another verdict."""
    return replace(result, verdict=verdict, interval=None, reasons=(reason,))
