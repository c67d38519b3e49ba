"""Tests, verdicts and the number of seeds they need, from arrays of values; no records and no tables.

A variant is compared with its control by the paired t test over seeds, which assumes that the differences of the seeds
are independent of each other and roughly normal. A signed-rank test would assume less, but with five pairs its smallest
two-sided p is 2 / 2^5 = 1/16 = 0.0625: it could never declare anything at 5 %. The p of all variants are corrected
together (Holm 1979), which holds however the variants depend on each other, as they do through their common control.
That there is no difference larger than a margin is tested too (two one-sided tests, Schuirmann 1987), never concluded
from a large p. Intervals are of 95 % each and are not corrected. `tests/calibration.py` measures how often all this is
wrong, also where the noise is not normal.
"""
