"""Sets of predictions against the first of them: paired differences on patients, and verdicts for new patients.

The networks behind the predictions are taken as they are: one set of each is there, so nothing is known about other
seeds, and patients alone are drawn at random. The rule is that of studies (`decision`, `comparison.judge`).
"""

from collections.abc import Mapping

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.collapse import finite
from dlx.statistics.comparison import MIN_PATIENTS, Comparison, Design, Judgement, ScopeResult, judge
from dlx.statistics.decision import ALPHA, decide
from dlx.statistics.estimate import UNKNOWN, Floats, MeanEstimate, interval, over_patients_alone, spread, together
from dlx.statistics.power import Needed, SeedDesign, seeds_needed
from dlx.statistics.verdict import Verdict
from dlx.study.scope import Scope


def compare_predictions(
    differences: Mapping[str, Floats], smallest_effect: float, *, higher_is_better: bool
) -> tuple[Comparison, ...]:
    """Judges sets by their differences (K) from the first one, on the patients that both have a value of.

    With fewer than five patients there is no verdict and no interval. `needed` are patients, from the variance over
    patients; `num_pairs` and `n` are patients too.
    """
    design = Design(runs=(), smallest_effect=smallest_effect, higher_is_better=higher_is_better, scope=Scope.PATIENTS)
    estimates = [over_patients_alone(values) for values in differences.values()]
    enough = [len(values) >= MIN_PATIENTS for values in differences.values()]
    tested = [estimate if is_enough else UNKNOWN for estimate, is_enough in zip(estimates, enough, strict=True)]
    decision = decide(together(tested), smallest_effect)
    rows = []
    for i, (label, values) in enumerate(differences.items()):
        ends = interval(tested[i])
        low, high = float(ends[0]), float(ends[1])
        judgement: Judgement = Verdict.CANNOT_TELL, (why.FewPatients(len(values), MIN_PATIENTS),)
        if enough[i]:
            judgement = judge(decision, i, (low, high), Scope.PATIENTS, design)
        result = ScopeResult(
            n=len(values),
            difference=_mean(estimates[i], values),
            interval=(low, high) if enough[i] else None,
            p=finite(float(decision.p[i])),
            equivalence_p=finite(float(decision.equivalence_p[i])),
            verdict=judgement[0],
            reasons=judgement[1],
        )
        rows.append(
            Comparison(
                label=label,
                num_pairs=len(values),
                spread=spread(values) if len(values) > 1 else None,
                smallest_effect=smallest_effect,
                scope=Scope.PATIENTS,
                scopes={Scope.PATIENTS: result},
                design=None,
                needed=_needed(values, smallest_effect, ALPHA / len(differences)) if enough[i] else None,
            )
        )
    return tuple(rows)


def _mean(estimate: MeanEstimate, values: Floats) -> float | None:
    return finite(float(estimate.mean)) if len(values) else None


def _needed(values: Floats, effect: float, alpha: float) -> Needed:
    """The patients that find a true difference `effect` with 80 % power."""
    design = SeedDesign(float(np.var(values, ddof=1)), len(values))  # a design of one random effect: here patients
    return Needed(None, seeds_needed(design, effect, alpha=alpha))
