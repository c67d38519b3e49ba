"""The claims a study declared, tested on its records: each gives one value a seed, judged by `dlx.statistics`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from dlx.records import EpochResult, StudyHeader
from dlx.statistics import ClaimVerdict, collapsed_seeds, judge_best, judge_greater, judge_within, trend_slopes
from dlx.studies import LOWER_IS_BETTER, Claim

Figures = Mapping[str, Mapping[str, Mapping[int, float | None]]]  # label -> metric -> seed -> figure
Epochs = Mapping[str, Mapping[int, Sequence[EpochResult]]]  # label -> seed -> epochs


@dataclass(frozen=True)
class ClaimOutcome:
    """A claim, what was measured for it in words, and its verdict."""

    claim: Claim
    measured: str  # what the estimate is of
    verdict: ClaimVerdict


def judge_claims(header: StudyHeader, figures: Figures, epochs: Epochs) -> tuple[ClaimOutcome, ...]:
    """Every claim of the header, over the seeds that the header declares and that have what it needs.

    Until all of them have it a claim's verdict is `incomplete`.
    """
    return tuple(_judge(Claim.model_validate(claim), header, figures, epochs) for claim in header.claims)


def _judge(claim: Claim, header: StudyHeader, figures: Figures, epochs: Epochs) -> ClaimOutcome:
    def values(label: str) -> dict[int, float]:
        return _values(claim, label, header.seeds, figures, epochs)

    verdict: ClaimVerdict
    if claim.kind in ("rises", "falls"):
        measured, verdict = _judge_trend(claim, header, values)
    elif claim.kind == "best":
        assert claim.variant is not None
        others = claim.among or tuple(variant.label for variant in header.variants)
        rivals = {label: values(label) for label in dict.fromkeys((claim.variant, *others))}
        measured = f"advantage of {claim.variant} over its closest rival, {_what(claim)}"
        verdict = judge_best(rivals, claim.variant, higher_is_better=claim.metric not in LOWER_IS_BETTER)
        verdict = _unless_incomplete(verdict, min(map(len, rivals.values())), header)
    else:
        measured, verdict = _judge_contrast(claim, header, values)
    collapsed = _collapsed(claim, header, figures)
    if collapsed:
        verdict = ClaimVerdict("cannot tell", verdict.estimate, None, verdict.n, f"runs collapsed: {collapsed}")
    return ClaimOutcome(claim, measured, verdict)


def _collapsed(claim: Claim, header: StudyHeader, figures: Figures) -> str:
    """The variants that the claim speaks of whose runs collapsed on some seeds only: no mean describes those."""
    named = {claim.variant, claim.than, *(claim.among or ())} - {None}
    if claim.kind in ("rises", "falls", "best") and claim.among is None:
        named = set(figures)
    elif claim.than is None and claim.than_window is None and claim.kind in ("greater", "less", "within"):
        named.add(header.control)
    control = figures[header.control]["val_dice"].values() if header.control is not None else ()
    reference = max((value for value in control if value is not None), default=0.0)
    found = {label: collapsed_seeds(figures[label]["val_dice"], reference) for label in figures if label in named}
    return "; ".join(f"{label} (seed {', '.join(map(str, seeds))})" for label, seeds in found.items() if seeds)


def _judge_contrast(claim: Claim, header: StudyHeader, values: Any) -> tuple[str, ClaimVerdict]:
    assert claim.variant is not None
    other = claim.than or (header.control if claim.than_window is None else None)
    mine = values(claim.variant)
    theirs = values(other) if other is not None else dict.fromkeys(mine, 0.0)
    differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    measured = f"{claim.variant} minus {other}, {_what(claim)}" if other else f"{claim.variant}, {_what(claim)}"
    if claim.kind == "within":
        verdict = judge_within(differences, claim.margin)
    elif claim.kind == "greater":
        verdict = judge_greater(differences, claim.margin)
    else:
        verdict = _mirrored(judge_greater([-value for value in differences], claim.margin))
    return measured, _unless_incomplete(verdict, len(differences), header)


def _judge_trend(claim: Claim, header: StudyHeader, values: Any) -> tuple[str, ClaimVerdict]:
    axis = claim.axis or header.axes[0]
    chosen = [v for v in header.variants if claim.among is None or v.label in claim.among]
    by_label = [values(variant.label) for variant in chosen]
    seeds = [seed for seed in header.seeds if all(seed in known for known in by_label)]
    table = np.array([[known[seed] for known in by_label] for seed in seeds]).reshape(len(seeds), len(chosen))
    slopes = trend_slopes([float(variant.values[axis]) for variant in chosen], table).tolist()
    measured = f"slope over {axis}, {_what(claim)}"
    if claim.kind == "rises":
        return measured, _unless_incomplete(judge_greater(slopes, claim.margin), len(seeds), header)
    falling = _mirrored(judge_greater([-slope for slope in slopes], claim.margin))
    return measured, _unless_incomplete(falling, len(seeds), header)


def _values(claim: Claim, label: str, seeds: Iterable[int], figures: Figures, epochs: Epochs) -> dict[int, float]:
    """The claim's figure for one variant, by seed; the seeds that lack it are left out."""
    found: dict[int, float | None] = {}
    for seed in seeds:
        if claim.window is None and claim.metric in figures[label]:
            found[seed] = figures[label][claim.metric].get(seed)
            continue
        if claim.window is None:  # the last epoch that has it
            known = [v for e in epochs[label].get(seed, ()) if (v := _of_epoch(e, claim.metric)) is not None]
            found[seed] = known[-1] if known and figures[label]["train_dice"].get(seed) is not None else None
            continue
        found[seed] = _in_window(epochs[label].get(seed, ()), claim.window, claim.metric)
        if claim.than_window is not None and found[seed] is not None:
            before = _in_window(epochs[label].get(seed, ()), claim.than_window, claim.metric)
            found[seed] = None if before is None else found[seed] - before  # type: ignore[operator]
    return {seed: value for seed, value in found.items() if value is not None}


def _in_window(epochs: Sequence[EpochResult], window: tuple[int, int], metric: str) -> float | None:
    """The mean of an epoch's figure over a window; None before its last epoch is there."""
    if not epochs or epochs[-1].epoch < window[1]:
        return None
    known = [v for e in epochs if window[0] <= e.epoch <= window[1] and (v := _of_epoch(e, metric)) is not None]
    return mean(known) if known else None


def _of_epoch(epoch: EpochResult, metric: str) -> float | None:
    if metric == "gap_subset":
        train, val = epoch.train_dice_subset, epoch.val_dice
        return None if train is None or val is None else train - val
    value: float | None = getattr(epoch, metric, None)
    return value


def _what(claim: Claim) -> str:
    what = claim.metric.replace("_", " ").replace("dice", "Dice")
    if claim.window is None:
        return what
    text = f"{what} in epochs {claim.window[0]}-{claim.window[1]}"
    return f"{text} minus {claim.than_window[0]}-{claim.than_window[1]}" if claim.than_window else text


def _mirrored(verdict: ClaimVerdict) -> ClaimVerdict:
    """The verdict on what was judged with its sign turned, in the sign of the measurement."""
    interval = None if verdict.interval is None else (0.0 - verdict.interval[1], 0.0 - verdict.interval[0])
    estimate = None if verdict.estimate is None else 0.0 - verdict.estimate  # of 0 no -0
    return ClaimVerdict(verdict.verdict, estimate, interval, verdict.n, "")


def _unless_incomplete(verdict: ClaimVerdict, n: int, header: StudyHeader) -> ClaimVerdict:
    if n >= len(header.seeds):
        return verdict
    reason = f"{n} of {len(header.seeds)} seeds"
    return ClaimVerdict("incomplete", verdict.estimate, verdict.interval, verdict.n, reason)
