"""What would settle an open verdict: the parts of the variance in words, and the seeds or patients that suffice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from dlx.report.formatting import spell_seconds
from dlx.report.summary import Summary
from dlx.settings.text import counted
from dlx.statistics.comparison import Comparison
from dlx.statistics.decision import ALPHA
from dlx.statistics.estimate import Components
from dlx.statistics.power import Needed, needed_for_patients
from dlx.study.scope import Scope


def spell_needed(row: Comparison) -> str:
    """`12 seeds`, `9 seeds or 144 patients`; a dash if the verdict is settled or the variance unknown."""
    if row.verdict.is_settled or row.needed is None:
        return "-"
    return spell_numbers(row.needed, in_each_fold=row.scope is Scope.PROCEDURE) or "no number"


def spell_numbers(needed: Needed, *, in_each_fold: bool = False) -> str:
    """`9 seeds or 144 patients`; empty if no number of either suffices."""
    seeds = "" if needed.seeds is None else counted(needed.seeds, "seed") + " a fold" * in_each_fold
    patients = "" if needed.patients is None else counted(needed.patients, "patient")
    return " or ".join(filter(None, (seeds, patients)))


def plan_lines(summary: Summary) -> list[str]:
    """What the verdicts depend on, and the designs that find the smallest effect of interest; empty if none is open.

    The variances are the medians over the open comparisons.
    """
    rows = [v.comparison for v in summary.variants if v.comparison is not None]
    open_rows = [row for row in rows if row.needed is not None and not row.verdict.is_settled]
    if not open_rows:
        return []
    effect, alpha = f"{summary.header.smallest_effect:g}", ALPHA / len(rows)
    of_parts = [row.parts for row in open_rows if row.parts is not None]
    num_seeds, num_patients = len(summary.header.seeds), open_rows[0].headline.n
    if summary.scope is not Scope.PATIENTS or not of_parts:
        return [f"To find a difference of {effect} with 80 % power: {_range_of_needed(open_rows)}."]
    parts = _median_parts(open_rows)
    needed = _needed_by_median(open_rows, summary, alpha)
    with_patients, with_seeds = f"these {num_patients} patients", f"these {num_seeds} seeds"
    ways = [f"{needed.seeds} seeds with {with_patients}"] if needed.seeds is not None else []
    ways += [f"{needed.patients} patients with {with_seeds}"] if needed.patients is not None else []
    lines = [f"The variance of a difference for new patients: {_shares(parts, num_seeds, num_patients)}."]
    if needed.seeds is None:
        lines.append(f"More seeds cannot settle this with {with_patients}.")
    if needed.patients is None:
        lines.append(f"More patients cannot settle this with {with_seeds}.")
    if ways:
        lines.append(f"To find a difference of {effect} with 80 % power: {', or '.join(ways)}.")
    else:
        lines.append(f"A difference of {effect} needs more seeds and more patients, such as cross-validation has.")
    return lines


def _median_parts(rows: Sequence[Comparison]) -> Components:
    return Components(*np.median(np.array([row.parts for row in rows if row.parts is not None]), axis=0))


def _needed_by_median(rows: Sequence[Comparison], summary: Summary, alpha: float) -> Needed:
    """What the median of the open comparisons needs."""
    if summary.scope is Scope.PATIENTS and any(row.parts is not None for row in rows):
        return needed_for_patients(
            _median_parts(rows),
            summary.header.smallest_effect,
            num_seeds=len(summary.header.seeds),
            num_patients=rows[0].headline.n,
            alpha=alpha,
        )
    found = sorted(math.inf if row.needed is None or row.needed.seeds is None else row.needed.seeds for row in rows)
    middle = found[len(found) // 2]
    return Needed(seeds=None if math.isinf(middle) else int(middle))


def _shares(parts: Components, num_seeds: int, num_patients: int) -> str:
    """`35 % from seeds, 60 % from patients and 5 % from the two together` at this design."""
    each = {
        "seeds": float(parts.seed) / num_seeds,
        "patients": float(parts.patient) / num_patients,
        "the two together": float(parts.residual) / (num_seeds * num_patients),
    }
    total = sum(each.values()) or 1.0
    shares = [f"{100 * value / total:.0f} % from {name}" for name, value in each.items()]
    return f"{shares[0]}, {shares[1]} and {shares[2]}"


def _range_of_needed(rows: list[Comparison]) -> str:
    found = [row.needed.seeds for row in rows if row.needed is not None]
    known = [number for number in found if number is not None]
    each = " in each fold" * (rows[0].scope is Scope.PROCEDURE)
    if len(known) < len(found):
        return f"no number of seeds{each} suffices for {len(found) - len(known)} of {counted(len(found), 'variant')}"
    low, high = min(known), max(known)
    return f"{low} seeds{each}" if low == high else f"{low} to {high} seeds{each}"


@dataclass(frozen=True)
class PlannedDesign:
    """A design that finds the smallest effect of interest with 80 % power: seeds, patients, and what it costs."""

    num_seeds: int
    num_patients: int | None  # that validate; None: as many as now
    num_trials: int
    seconds: float  # of one machine that runs one trial at a time


def planned_designs(summary: Summary) -> list[PlannedDesign]:
    """The designs that would settle the open comparisons, for the variances of the median one; empty if none is open.

    The time of a trial is the mean of those that ran; validating more patients is not counted in it.
    """
    rows = [v.comparison for v in summary.variants if v.comparison is not None]
    open_rows = [row for row in rows if row.needed is not None and not row.verdict.is_settled]
    seconds = [record.run.seconds for variant in summary.variants for record in variant.records.values()]
    if not open_rows or not seconds:
        return []
    needed = _needed_by_median(open_rows, summary, ALPHA / len(rows))
    num_seeds, num_folds = len(summary.header.seeds), max(1, len(summary.header.folds))
    designs: list[tuple[int, int | None]] = []
    if needed.seeds is not None:
        designs.append((max(needed.seeds, num_seeds), None))
    if needed.patients is not None:
        designs.append((num_seeds, needed.patients))
    per_seed = len(summary.variants) * num_folds
    return [PlannedDesign(s, k, s * per_seed, s * per_seed * mean(seconds)) for s, k in designs]


def design_lines(summary: Summary) -> list[str]:
    """What `dlx report --plan` prints: the parts of the error, and each design with its cost."""
    lines, effect = plan_lines(summary), f"{summary.header.smallest_effect:g}"
    if not lines:
        return [f"Every verdict is settled, or nothing is known yet: no plan to find a difference of {effect}."]
    for design in planned_designs(summary):
        patients = "" if design.num_patients is None else f", {design.num_patients} validation patients"
        folds = f" in each of {len(summary.header.folds)} folds" * bool(summary.header.folds)
        lines.append(
            f"Design: {counted(design.num_seeds, 'seed')}{folds}{patients}: {design.num_trials} trials in all, "
            f"{spell_seconds(design.seconds)} one after the other, of which {summary.num_done} have ended."
        )
    return lines
