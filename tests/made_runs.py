"""Values of runs, and comparisons of them with a control."""

import math

import numpy as np

from dlx.statistics import reasons as why
from dlx.statistics.collapse import Collapse, find_collapse
from dlx.statistics.comparison import Comparison, Design, Runs, compare
from dlx.statistics.estimate import over_seeds
from dlx.statistics.power import SeedDesign, needed

NAN = math.nan
SEEDS = range(5)


def array(*values):
    return np.array(values, dtype=np.float64)


def paired(*values):
    """The estimate of these differences, or of each of these lists of differences, for new seeds."""
    return over_seeds(array(*values))


def seeds_needed(spread, effect, *, alpha):
    return needed(SeedDesign(spread**2, 5), effect, alpha=alpha).seeds


SAME = why.SameRecords(is_plateau=False)


def runs(*values):
    return dict(enumerate(values))


def shifted(control, *differences):
    return {seed: control[seed] + d for seed, d in enumerate(differences)}


CONTROL = runs(0.80, 0.81, 0.79, 0.82, 0.80)
GOOD = shifted(CONTROL, 0.040, 0.042, 0.041, 0.039, 0.043)
NOISY = shifted(CONTROL, 0.02, -0.03, 0.01, 0.04, -0.02)
ALIKE = shifted(CONTROL, 0.001, -0.001, 0.0, 0.0005, -0.0005)


def compare_dice(control, variants, *, declared=SEEDS, smallest_effect=0.01, **changes):
    """Compares values that are validation Dice, so that collapsed runs are found from them."""
    runs_of = {
        label: values if isinstance(values, Runs) else Runs(values, find_collapse(values, control, declared))
        for label, values in {"control": control, **variants}.items()
    }
    of_control = runs_of.pop("control")
    return compare(of_control, runs_of, Design(tuple(declared), smallest_effect, **changes))


def compare_one(values, control=CONTROL, **changes) -> Comparison:
    return compare_dice(control, {"variant": values}, **changes).rows[0]


def with_obstacle(values, **obstacle):
    """Runs with a reason that prevents a verdict, of which some may have collapsed."""
    return Runs(values, find_collapse(values, CONTROL, SEEDS), **obstacle)


def collapsed_seeds_of(variant=(), control=(), num_runs=5):
    """The reasons of a comparison with these collapsed runs."""
    return (why.CollapsedPair(Collapse(tuple(variant), num_runs), Collapse(tuple(control), 5)),)
