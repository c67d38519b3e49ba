"""Variants against their control: paired differences, their verdicts in each scope, and the study's noise floor."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.collapse import Collapse, Values, finite
from dlx.statistics.decision import ALPHA, Decision, decide
from dlx.statistics.estimate import (
    UNKNOWN,
    Floats,
    FoldComponents,
    MeanEstimate,
    components,
    fold_components,
    interval,
    over_patients,
    over_runs,
    over_seeds,
    spread,
    together,
)
from dlx.statistics.looks import cost_of_looks
from dlx.statistics.power import (
    FoldDesign,
    Needed,
    PatientDesign,
    PowerDesign,
    SeedDesign,
    detectable_effect,
    median_design,
    needed,
)
from dlx.statistics.verdict import Verdict
from dlx.study.run_id import RunId, seed_of
from dlx.study.scope import Scope

MIN_PATIENTS = 5  # `tests/calibration.py` simulates no fewer; with them the interval is wide already

Judgement = tuple[Verdict, tuple[why.Reason, ...]]


@dataclass(frozen=True)
class ScopeResult:
    """The comparison of a variant with the control in one scope.

    `n` counts the seeds, patients or runs of cross-validation. `difference` (variant minus control) needs one pair of
    runs, and `interval` (95 %, uncorrected) all that are declared: shown earlier, it would be a look. Both p are
    Holm-adjusted, and None where nothing was tested. `reasons` may be empty.
    """

    n: int
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    equivalence_p: float | None
    verdict: Verdict
    reasons: tuple[why.Reason, ...]


@dataclass(frozen=True)
class Comparison:
    """One variant against the control, over the pairs of runs that both have; `scope` is that of the headline.

    `scopes` lacks the scopes that the design does not have. `spread` is the standard deviation of the paired
    differences of runs. `design` holds their variances in the headline's scope, `needed` the seeds or patients that
    would find the smallest effect of interest with 80 % power; None where there is nothing to estimate them from.
    """

    label: str
    num_pairs: int
    spread: float | None
    smallest_effect: float  # that of the equivalence tests
    scope: Scope
    scopes: Mapping[Scope, ScopeResult]
    design: PowerDesign | None = field(repr=False)
    needed: Needed | None = field(repr=False)

    @property
    def headline(self) -> ScopeResult:
        return self.scopes[self.scope]

    @property
    def p(self) -> float | None:
        return self.headline.p

    @property
    def verdict(self) -> Verdict:
        return self.headline.verdict

    @property
    def reasons(self) -> tuple[why.Reason, ...]:
        return self.headline.reasons

    @property
    def difference(self) -> float | None:
        return self.headline.difference

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.headline.interval


@dataclass(frozen=True)
class NoiseFloor:
    """The effect of the seed alone: the control's spread over n runs.

    `detectable_effect` is the smallest true difference that the design finds with 80 % power in the headline's scope,
    after the correction for the number of variants, given the median variances of the paired differences. Variances
    leave out trials that did not finish, collapsed runs of the control, and all runs of a variant with a collapsed run.
    """

    n: int
    control_spread: float | None
    detectable_effect: float | None


@dataclass(frozen=True)
class Comparisons:
    """A row a variant, in the order given, and the noise floor."""

    rows: tuple[Comparison, ...]
    noise_floor: NoiseFloor


@dataclass(frozen=True)
class Runs:
    """The runs of a variant or of the control: their values of the metric, and what prevents a verdict on them."""

    values: Values
    collapse: Collapse  # found from their validation Dice, whatever the metric
    by_patient: Floats | None = None  # (J, K): differences from the control, each seed on each patient
    unreached: why.SameRecords | None = None
    unmeasured: why.NotMeasured | None = None
    unlearned: why.NothingLearned | None = None  # such runs are never called equal


@dataclass(frozen=True)
class Design:
    """What is compared: the declared runs, the scope of the headline, and the smallest effect of interest (above 0).

    `test_to_train` is given for cross-validation: the persons that validate a fold over those that may train it. Runs
    are then pairs (fold, seed), else seeds. `earlier_looks` are the numbers of runs at which verdicts were shown
    before. Without `with_power`, which takes most of the time, no verdict changes, but `needed` and `detectable_effect`
    are None.
    """

    runs: Sequence[RunId]
    smallest_effect: float
    scope: Scope = Scope.SEEDS
    test_to_train: float | None = None
    higher_is_better: bool = True
    earlier_looks: Sequence[int] = ()
    with_power: bool = True

    @property
    def seeds(self) -> list[int]:
        return sorted({seed_of(run) for run in self.runs})


@dataclass(frozen=True)
class Pairs:
    """Paired differences by run, on each patient too (J, K); their verdict and reasons if they cannot be tested."""

    differences: Mapping[RunId, float]
    by_patient: Floats | None
    obstacle: Judgement | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing but missing runs prevents a test."""
        return self.obstacle is None or self.obstacle[0] is Verdict.INCOMPLETE

    @property
    def spread(self) -> float | None:
        """None for fewer than two differences, and if something other than missing runs prevents a test."""
        return spread(self._values) if self.is_sound and len(self.differences) >= 2 else None

    @property
    def _values(self) -> Floats:
        return np.array([*self.differences.values()], dtype=np.float64)

    def design(self, scope: Scope, compared: Design) -> PowerDesign | None:
        """The present seeds, patients and folds with their variances; None where these cannot be estimated."""
        if not self.is_sound:
            return None
        if scope is Scope.SEEDS:
            estimate, num_seeds = self.estimate(scope, None), self.size(scope)
            return SeedDesign(float(estimate.seed_variance) * num_seeds, num_seeds) if num_seeds >= 2 else None
        if scope is Scope.PATIENTS:
            if self.by_patient is None or min(self.by_patient.shape) < 2:
                return None
            return PatientDesign(components(self.by_patient), *self.by_patient.shape)
        values, num_seeds = self._values, self.size(Scope.SEEDS)
        num_folds = len({run[0] for run in compared.runs if not isinstance(run, int)})
        if compared.test_to_train is None or num_folds < 2 or len(values) != num_folds * num_seeds:
            return None
        parts = FoldComponents(values.var(axis=-1, ddof=1), np.zeros(()))  # one seed does not tell folds and runs apart
        if num_seeds > 1:
            parts = fold_components(values.reshape(num_folds, num_seeds))
        return FoldDesign(parts, num_folds, num_seeds, compared.test_to_train, self.size(Scope.PATIENTS))

    def size(self, scope: Scope) -> int:
        """The number of seeds, patients or runs."""
        if scope is Scope.SEEDS:
            return len({seed_of(run) for run in self.differences})
        if scope is Scope.PATIENTS:
            return 0 if self.by_patient is None else self.by_patient.shape[1]
        return len(self.differences)

    def estimate(self, scope: Scope, test_to_train: float | None) -> MeanEstimate:
        """The difference with its error in a scope; for new seeds, each seed's mean over the folds is one value."""
        if scope is Scope.PATIENTS:
            return over_patients(np.empty((0, 0)) if self.by_patient is None else self.by_patient)
        if scope is Scope.PROCEDURE:
            return over_runs(self._values, test_to_train or 0.0)
        by_seed: dict[int, list[float]] = {}
        for run, value in self.differences.items():
            by_seed.setdefault(seed_of(run), []).append(value)
        return over_seeds(np.array([math.fsum(values) / len(values) for values in by_seed.values()], dtype=np.float64))


def compare(control: Runs, variants: Mapping[str, Runs], design: Design) -> Comparisons:
    """Compares each variant with the control by the metric at the end of training; undeclared runs are ignored."""
    pairs = {label: _pair(runs, control, design.runs) for label, runs in variants.items()}
    found = {scope: _compare_in(scope, pairs, variants, design) for scope in _scopes(pairs.values(), design)}
    rows = []
    for label, row in pairs.items():
        scopes = {scope: results[label] for scope, results in found.items()}
        has_learned = variants[label].unlearned is None  # else the variances are not those of a study that learns
        own = row.design(design.scope, design) if has_learned else None
        known = own if design.with_power else None
        rows.append(
            Comparison(
                label=label,
                num_pairs=len(row.differences),
                spread=row.spread,
                smallest_effect=design.smallest_effect,
                scope=design.scope,
                scopes=scopes | {design.scope: _with_narrower(design.scope, scopes)},
                design=own,
                needed=None if known is None else needed(known, design.smallest_effect, alpha=ALPHA / len(variants)),
            )
        )
    learned = [row for label, row in pairs.items() if not variants[label].unlearned]
    return Comparisons(tuple(rows), _noise_floor(control, learned, design, ALPHA / max(1, len(variants))))


def _scopes(pairs: Iterable[Pairs], design: Design) -> list[Scope]:
    """The scopes that the design has, from the narrowest on."""
    has_patients = any(row.size(Scope.PATIENTS) >= MIN_PATIENTS for row in pairs)
    has = {Scope.SEEDS: True, Scope.PATIENTS: has_patients, Scope.PROCEDURE: design.test_to_train is not None}
    return [scope for scope in Scope if has[scope] or scope is design.scope]


def _compare_in(
    scope: Scope, pairs: Mapping[str, Pairs], variants: Mapping[str, Runs], design: Design
) -> dict[str, ScopeResult]:
    """The result of each variant in one scope, corrected for their number."""
    estimates = {label: row.estimate(scope, design.test_to_train) for label, row in pairs.items()}
    tested = [UNKNOWN if pairs[label].obstacle else estimate for label, estimate in estimates.items()]
    decision = decide(together(tested), design.smallest_effect)
    results = {}
    for i, (label, row) in enumerate(pairs.items()):
        is_untested = bool(np.isnan(decision.p[i]))
        low, high = (float(end) for end in interval(estimates[label]))
        mean = finite(float(estimates[label].mean))
        if mean is None:  # no patient yet that all runs have a value of
            mean = finite(float(row.estimate(Scope.SEEDS, None).mean))
        verdict, reasons = row.obstacle or judge(decision, i, (low, high), scope, design)
        unlearned = variants[label].unlearned
        if verdict is Verdict.NO_DIFFERENCE and unlearned is not None:
            verdict, reasons = Verdict.CANNOT_TELL, (unlearned,)
        if decision.is_different[i] or decision.is_equivalent[i]:
            reasons += cost_of_looks(design.earlier_looks, design.runs, len(variants), scope)
        results[label] = ScopeResult(
            n=row.size(scope),
            difference=mean,
            interval=None if is_untested else (low, high),
            p=finite(float(decision.p[i])),
            equivalence_p=finite(float(decision.equivalence_p[i])),
            verdict=verdict,
            reasons=reasons,
        )
    return results


def _pair(runs: Runs, control: Runs, declared: Sequence[RunId]) -> Pairs:
    differences = {}
    for run in sorted(set(declared)):
        value, reference = finite(runs.values.get(run)), finite(control.values.get(run))
        if value is not None and reference is not None:
            differences[run] = value - reference
    obstacle: Judgement | None = None
    if runs.unreached is not None:
        obstacle = (Verdict.NO_EFFECT, (runs.unreached,))
    elif runs.collapse or control.collapse:
        obstacle = (Verdict.COLLAPSED, (why.CollapsedPair(runs.collapse, control.collapse),))
    elif runs.unmeasured is not None:
        obstacle = (Verdict.NOT_MEASURED, (runs.unmeasured,))
    elif len(differences) < len(set(declared)):
        obstacle = (Verdict.INCOMPLETE, (why.MissingRuns(len(differences), len(set(declared))),))
    return Pairs(differences, runs.by_patient, obstacle)


def judge(decision: Decision, i: int, ends: tuple[float, float], scope: Scope, design: Design) -> Judgement:
    """Verdict and reasons of variant i, which has all its pairs; `ends` are those of its interval."""
    low, high = ends
    if decision.is_different[i]:
        is_small = -design.smallest_effect < low and high < design.smallest_effect
        verdict = Verdict.BETTER if (decision.difference[i] > 0.0) == design.higher_is_better else Verdict.WORSE
        return verdict, (why.SmallDifference(design.smallest_effect),) if is_small else ()
    if decision.is_equivalent[i]:
        return Verdict.NO_DIFFERENCE, ()
    if np.isnan(decision.p[i]):
        return Verdict.CANNOT_TELL, (why.TooFew(scope),)
    num_variants, effect = len(decision.difference), design.smallest_effect
    if low > 0.0 or high < 0.0:
        return Verdict.CANNOT_TELL, (why.LostByCorrection(num_variants),)
    is_within = -effect < low and high < effect
    return Verdict.CANNOT_TELL, (why.LostByCorrection(num_variants, within=effect),) if is_within else ()


def _with_narrower(scope: Scope, scopes: Mapping[Scope, ScopeResult]) -> ScopeResult:
    """The headline's result; if it cannot tell, with the verdict of the widest narrower scope that can."""
    headline = scopes[scope]
    if headline.verdict is not Verdict.CANNOT_TELL:
        return headline
    order = [*Scope]
    narrower = [(s, scopes[s].verdict) for s in order[: order.index(scope)] if s in scopes]
    settled = [found for found in narrower if found[1].is_settled]
    return replace(headline, reasons=(*headline.reasons, *(why.SettledFor(*found) for found in settled[-1:])))


def _noise_floor(control: Runs, pairs: Sequence[Pairs], design: Design, alpha: float) -> NoiseFloor:
    healthy = [run for run in sorted(set(design.runs)) if run not in control.collapse.all_runs]
    known = [value for run in healthy if (value := finite(control.values.get(run))) is not None]
    typical = median_design(row.design(design.scope, design) for row in pairs if design.with_power)
    return NoiseFloor(
        n=len(known),
        control_spread=spread(np.array(known, dtype=np.float64)) if len(known) >= 2 else None,
        detectable_effect=None if typical is None else detectable_effect(typical, alpha=alpha),
    )
