"""Tests, verdicts and the number of seeds they need, from arrays of values; no records and no tables.

A variant is compared with its control by the paired t test over seeds, which assumes that the differences of the seeds
are independent of each other and roughly normal. A signed-rank test would assume less, but with five pairs its smallest
two-sided p is 2 / 2^5 = 1/16 = 0.0625: it could never declare anything at 5 %. The p of all variants are corrected
together (Holm 1979), which holds however the variants depend on each other, as they do through their common control.
That there is no difference larger than a margin is tested too (two one-sided tests, Schuirmann 1987), never concluded
from a large p. Intervals are of 95 % each and are not corrected. `tests/calibration.py` measures how often all this is
wrong, also where the noise is not normal.
"""

from dlx.statistics.claims import ClaimResult, Estimate, judge_best, judge_greater, judge_within, trend_slopes
from dlx.statistics.collapse import MIN_LEARNED, Collapse, Values, collapsed_seeds, find_collapse
from dlx.statistics.comparison import Comparison, Comparisons, NoiseFloor, compare
from dlx.statistics.decision import Decision, decide
from dlx.statistics.looks import cost_of_looks, false_alarm_rate
from dlx.statistics.paired import PairedT, equivalence_p, greater_p, holm, interval, paired_t
from dlx.statistics.power import detectable_effect, power_of_paired_t, seeds_needed
from dlx.statistics.reasons import Reason
from dlx.statistics.verdict import Verdict

__all__ = [
    "MIN_LEARNED",
    "ClaimResult",
    "Collapse",
    "Comparison",
    "Comparisons",
    "Decision",
    "Estimate",
    "NoiseFloor",
    "PairedT",
    "Reason",
    "Values",
    "Verdict",
    "collapsed_seeds",
    "compare",
    "cost_of_looks",
    "decide",
    "detectable_effect",
    "equivalence_p",
    "false_alarm_rate",
    "find_collapse",
    "greater_p",
    "holm",
    "interval",
    "judge_best",
    "judge_greater",
    "judge_within",
    "paired_t",
    "power_of_paired_t",
    "seeds_needed",
    "trend_slopes",
]
