"""Tests the claims of a study on its records: each is about a contrast of variants, which `dlx.statistics` judges."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean

import numpy as np

from dlx.records.schema import StudyHeader
from dlx.report.findings.patients import patient_values
from dlx.report.findings.variants import VariantSummary, on_one_device
from dlx.statistics import reasons as why
from dlx.statistics.claims import (
    ClaimResult,
    Quantity,
    judge_best,
    judge_greater,
    judge_less,
    judge_within,
    trend_weights,
)
from dlx.statistics.comparison import Pairs
from dlx.statistics.looks import cost_of_looks
from dlx.statistics.verdict import Verdict
from dlx.study.claims import Claim
from dlx.study.metrics import direction_of, epoch_value, find_metric, spell_window, split_metric
from dlx.study.results import EpochResult
from dlx.study.run_id import RunId
from dlx.study.scope import Scope

Contrast = Mapping[str, float]  # label -> weight: the claim is about the weighted sum of the variants' metric


@dataclass(frozen=True)
class ClaimOutcome:
    """A claim, what was measured for it in words, and its result."""

    claim: Claim
    measured: str  # what the estimate is of
    result: ClaimResult
    is_late: bool  # declared after results existed, so that it does not test an expectation


@dataclass(frozen=True)
class Ground:
    """What claims are tested on: the study, its variants, and the scope of its headline verdicts.

    `test_to_train` is given for cross-validation. `looks` are the numbers of runs at which verdicts were shown before.
    """

    header: StudyHeader
    variants: Mapping[str, VariantSummary]
    scope: Scope
    test_to_train: float | None
    looks: Sequence[int]


def judge_claims(ground: Ground) -> tuple[ClaimOutcome, ...]:
    """Tests every claim of the header over the declared runs that have its metric, in the scope of the headline.

    A claim whose metric has no value for each patient holds for new seeds, if the headline is about new patients.
    Until all runs have the metric the verdict is INCOMPLETE, without an interval. Trials on unlike devices are not
    paired.
    """
    return tuple(_judge(Claim.model_validate(claim), ground) for claim in ground.header.claims)


def _judge(claim: Claim, ground: Ground) -> ClaimOutcome:
    header, variants = ground.header, ground.variants
    concerned = [variants[label] for label in claim.concerns(list(variants), header.control)]
    alike = on_one_device(concerned, header.runs)
    subject, result = _measure(claim, ground, alike)
    collapses = [(v.label, v.collapse.of_metric(claim.metric)) for v in concerned]
    collapsed = tuple((label, collapse) for label, collapse in collapses if collapse)
    lacks = [
        f"{v.label}: {lack}" for v in concerned for w in claim.windows or (None,) if (lack := v.lacks(claim.metric, w))
    ]
    if collapsed and find_metric(claim.metric)[0].depends_on_learning:
        result = _untested(result, Verdict.CANNOT_TELL, why.CollapsedVariants(collapsed))
    elif lacks:
        result = _untested(result, Verdict.NOT_MEASURED, why.NotMeasured(lacks[0]))
    elif result.num_runs < len(header.runs):
        missing = why.MissingRuns(result.num_runs, len(header.runs), len(header.runs) - len(alike))
        result = _untested(result, Verdict.INCOMPLETE, missing)
    elif result.verdict is not Verdict.CANNOT_TELL:
        # the rate of false alarms is known only for a claim that is one t test
        num_tests = None if claim.kind in ("best", "within") else 1
        cost = cost_of_looks(ground.looks, header.runs, num_tests, result.scope)
        result = replace(result, reasons=(*result.reasons, *cost))
    return ClaimOutcome(claim, f"{subject}, {_what(claim)}", result, is_late=claim.text in header.declared_late)


def _measure(claim: Claim, ground: Ground, runs: Sequence[RunId]) -> tuple[str, ClaimResult]:
    """What has the claim's metric, in words, and the result over the runs that have a value."""
    quantity = partial(_quantity, claim, ground, runs)
    if claim.kind == "best":
        assert claim.variant is not None
        others = claim.among or tuple(ground.variants)
        sign = 1.0 if direction_of(claim.metric) == "higher" else -1.0
        rivals = [label for label in dict.fromkeys(others) if label != claim.variant]
        advantages = {rival: quantity({claim.variant: sign, rival: -sign}) for rival in rivals}
        result = judge_best(advantages)
        # a claim is complete only if every rival has all runs, not just the closest
        fewest = min(advantage.num_runs for advantage in advantages.values())
        return f"advantage of {claim.variant} over its closest rival", replace(result, num_runs=fewest)
    subject, contrast = _contrast(claim, ground.header)
    if claim.kind == "within":
        return subject, judge_within(quantity(contrast), claim.margin)
    judge = judge_greater if claim.kind in ("greater", "rises") else judge_less
    return subject, judge(quantity(contrast), claim.margin)


def _contrast(claim: Claim, header: StudyHeader) -> tuple[str, Contrast]:
    """What is tested, in words and as weights of the variants."""
    if claim.kind in ("rises", "falls"):
        axis = claim.axis or header.axes[0]
        chosen = [v for v in header.variants if claim.among is None or v.label in claim.among]
        weights = trend_weights([float(variant.values[axis]) for variant in chosen])
        return f"slope over {axis}", {v.label: weight for v, weight in zip(chosen, weights, strict=True)}
    assert claim.variant is not None
    other = claim.than or (header.control if claim.than_window is None else None)
    if other is None:
        return claim.variant, {claim.variant: 1.0}
    return f"{claim.variant} minus {other}", {claim.variant: 1.0, other: -1.0}


def _quantity(claim: Claim, ground: Ground, runs: Sequence[RunId], contrast: Contrast) -> Quantity:
    """The weighted sum of the variants' metric, with the error of the widest scope that it has."""
    values = {label: _values(claim, ground.variants[label], runs) for label in contrast}
    shared = [run for run in runs if all(run in known for known in values.values())]
    sums = {run: sum(weight * values[label][run] for label, weight in contrast.items()) for run in shared}
    tables = None
    if claim.window is None and ground.scope is Scope.PATIENTS:
        concerned = [ground.variants[label] for label in contrast]
        tables = patient_values(concerned, claim.metric, shared, ground.header.persons)
    scope = Scope.SEEDS if ground.scope is Scope.PATIENTS and tables is None else ground.scope
    by_patient = None if tables is None else np.tensordot([*contrast.values()], np.array(tables), axes=1)
    pairs = Pairs(sums, by_patient)
    return Quantity(scope, len(sums), pairs.size(scope), pairs.estimate(scope, ground.test_to_train))


def _values(claim: Claim, variant: VariantSummary, runs: Iterable[RunId]) -> dict[RunId, float]:
    """The claim's metric of one variant, by run; the runs that lack it are left out."""
    found: dict[RunId, float | None] = {}
    for run in runs:
        epochs = variant.epochs.get(run, ())
        if claim.window is None and claim.metric in variant.by_run:
            found[run] = variant.by_run[claim.metric].get(run)
        elif claim.window is None:  # the last epoch that has it, of a trial that ran through
            known = [v for e in epochs if (v := epoch_value(e, claim.metric)) is not None]
            found[run] = known[-1] if known and variant.by_run["val_dice"].get(run) is not None else None
        else:
            now = _in_window(epochs, claim.window, claim.metric)
            before = 0.0 if claim.than_window is None else _in_window(epochs, claim.than_window, claim.metric)
            found[run] = None if now is None or before is None else now - before
    return {run: value for run, value in found.items() if value is not None}


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
