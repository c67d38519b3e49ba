"""The figures that studies and claims compare by: their names, which direction is better, what measuring them takes."""

from collections.abc import Callable, Collection
from math import ceil, inf
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from dlx.settings.spec import EvaluateSpec
from dlx.system.errors import SettingError, nearest

Metric = Literal["val_dice", "train_dice", "gap", "best_val_dice", "hd95_mm", "surface_dice", "jitter"]
# figures of single epochs, which claims may average over a window of epochs
EpochMetric = Literal[
    "val_dice",
    "train_dice_subset",
    "gap_subset",
    "loss",
    "train_soft_dice_running",
    "deepest_to_first",
    "deepest_variance",
    "dead_fraction",
    "dropout_off",
    "dropout_outside",
]
# figures that also exist for a single class: `val_dice:edema` is the validation Dice of the class `edema`
OF_A_CLASS = ("val_dice", "train_dice", "gap", "hd95_mm", "surface_dice")
COINS = ("dropout_off", "dropout_outside")  # of dropout's noise alone: whether a run learns makes no difference to them
# of the first step of an epoch, with evaluate.probes
PROBED = ("deepest_to_first", "deepest_variance", "dead_fraction", *COINS)
Direction = Literal["higher", "lower"]  # which of two figures is the better one

DIRECTIONS: dict[str, Direction] = {
    "val_dice": "higher",
    "train_dice": "higher",
    "gap": "lower",
    "best_val_dice": "higher",
    "hd95_mm": "lower",
    "surface_dice": "higher",
    "jitter": "lower",
    "train_dice_subset": "higher",
    "gap_subset": "lower",
    "loss": "lower",
    "train_soft_dice_running": "higher",
    "deepest_to_first": "higher",
    "deepest_variance": "higher",
    "dead_fraction": "lower",
    "dropout_off": "lower",
    "dropout_outside": "lower",
}

# the range of a figure; unbounded figures are not listed
RANGES: dict[str, tuple[float, float]] = {
    "val_dice": (0.0, 1.0),
    "train_dice": (0.0, 1.0),
    "gap": (-1.0, 1.0),
    "best_val_dice": (0.0, 1.0),
    "surface_dice": (0.0, 1.0),
}

MIN_POINTS = 5  # validations from which a curve shows a trend; the least number where evaluate.every is left open
MIN_FOR_JITTER = 3  # a straight line takes two of them


def split_metric(metric: str) -> tuple[str, str | None]:
    """`val_dice:edema` as its figure and its class, which is None where the figure is of all classes.

    The class is all that follows the first colon: its name may hold blanks, brackets and colons.
    """
    figure, colon, class_name = metric.partition(":")
    return figure, class_name if colon else None


def largest_difference(metric: str) -> float:
    """The largest difference that two trials can have in this figure; infinite where it has no end."""
    low, high = RANGES.get(split_metric(metric)[0], (-inf, inf))
    return high - low


def _known_metric(metric: str, known: Collection[str]) -> str:
    figure, class_name = split_metric(metric)
    if figure not in known:
        raise ValueError(f"unknown metric '{metric}': {nearest(figure, known)}")
    if class_name is not None and figure not in OF_A_CLASS:
        raise ValueError(f"metric '{metric}': no figure of one class; those are {', '.join(OF_A_CLASS)}")
    return metric


def known_study_metric(metric: str) -> str:
    """The metric again; ValueError where a study cannot compare by it."""
    return _known_metric(metric, get_args(Metric))


def known_claim_metric(metric: str) -> str:
    """The metric again; ValueError where a claim cannot be about it."""
    return _known_metric(metric, {*get_args(Metric), *get_args(EpochMetric)})


# `FIGURE`, or `FIGURE:CLASS` for a single class
StudyMetric = Annotated[str, AfterValidator(known_study_metric)]
ClaimMetric = Annotated[str, AfterValidator(known_claim_metric)]


def is_of_epochs(metric: str) -> bool:
    """Whether single epochs have this figure, so that a claim may average it over a window."""
    figure, class_name = split_metric(metric)
    return figure in get_args(EpochMetric) and (class_name is None or figure == "val_dice")


def check_class(metric: str, classes: Collection[str]) -> None:
    """Raises SettingError where the metric is of a class that the data do not have; `classes` without background."""
    _, class_name = split_metric(metric)
    if class_name is not None and class_name not in classes:
        raise SettingError(f"metric '{metric}': no class '{class_name}': {nearest(class_name, classes)}")


def direction_of(metric: str, given: Direction | None = None) -> Direction:
    """Which direction is better: the metric's own, else the one given.

    SettingError where the given one contradicts it, or where neither is known.
    """
    known = DIRECTIONS.get(split_metric(metric)[0])
    if known is not None and given is not None and given != known:
        raise SettingError(
            f"direction '{given}': of {metric} {known} is better; leave it out, or choose another metric"
        )
    direction = known or given
    if direction is None:
        raise SettingError(f"metric '{metric}': say which direction is better, higher or lower")
    return direction


def jitter_window(num_epochs: int) -> int:
    """How many of the last epochs jitter is of: a quarter, rounded up, and at least three."""
    return max(MIN_FOR_JITTER, ceil(num_epochs / 4))


def why_unmeasured(
    metric: str, evaluate: EvaluateSpec, epochs: int, window: tuple[int, int] | None = None
) -> tuple[str, str] | None:
    """Why a trial so evaluated cannot have this figure, and the setting to change; None where it can.

    `window` is that of a claim. What only the data decide (a class without HD95) is not known here.
    """
    metric, _ = split_metric(metric)
    every = evaluate.every or 1
    if window is not None and window[1] > epochs:
        return f"there are {epochs} epochs", f"train.epochs={window[1]}"
    if metric in ("train_dice_subset", "gap_subset") and evaluate.train_subset == 0:
        return "no training subject is measured between epochs", "evaluate.train_subset=2"
    if metric == "train_soft_dice_running":
        return None if evaluate.soft_dice else ("no soft Dice is measured", "evaluate.soft_dice=true")
    if metric in PROBED:
        return None if evaluate.probes else ("the network is not probed", "evaluate.probes=true")
    if window is not None and metric != "loss":
        first, last = window
        if _validated(every, first, last, epochs):
            return None
        where = f"epoch {first}" if first == last else f"epochs {first}-{last}"
        fitting = _most(every, lambda e: _validated(e, first, last, epochs) > 0)
        return f"{_validation(every, epochs)}, never in {where}", f"evaluate.every={fitting}"
    if metric == "jitter":
        first = epochs - jitter_window(epochs) + 1
        if _validated(every, first, epochs, epochs) >= MIN_FOR_JITTER:
            return None
        if epochs < MIN_FOR_JITTER:
            return f"jitter takes {MIN_FOR_JITTER} epochs", f"train.epochs={MIN_FOR_JITTER}"
        fitting = _most(every, lambda e: _validated(e, first, epochs, epochs) >= MIN_FOR_JITTER)
        which = f"the last {epochs - first + 1} epochs, of which jitter takes {MIN_FOR_JITTER}"
        return f"{_validation(every, epochs)}, too rarely in {which}", f"evaluate.every={fitting}"
    return None


def _validated(every: int, first: int, last: int, epochs: int) -> int:
    """How many epochs from `first` to `last` are validated; the last of all always is."""
    return sum(epoch % every == 0 or epoch == epochs for epoch in range(max(first, 1), min(last, epochs) + 1))


def _validation(every: int, epochs: int) -> str:
    return "validation once, at the end" if every >= epochs else f"validation every {every} epochs"


def _most(every: int, is_enough: Callable[[int], bool]) -> int:
    """The rarest validation that is enough, rarer than which none need be: every epoch always is."""
    return next(fewer for fewer in range(every - 1, 0, -1) if is_enough(fewer))
