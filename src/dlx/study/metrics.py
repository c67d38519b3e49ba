"""The metrics that trials are compared by: what each is called, which direction is better, and how it is read."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean
from typing import Annotated, Literal

from pydantic import AfterValidator

from dlx.settings.spec import EvaluateSpec
from dlx.study.jitter import MIN_FOR_JITTER, jitter, jitter_window
from dlx.study.results import CaseScores, EpochResult, TrialResult
from dlx.system.errors import SettingError, nearest

Direction = Literal["higher", "lower"]  # which of two values is the better one

MIN_POINTS = 5  # validations: fewer show no trend, so a trial has at least as many if evaluate.every is not given


@dataclass(frozen=True)
class Switch:
    """A setting of `[evaluate]` without which a metric is not measured."""

    setting: str
    value: str  # what a message proposes
    lack: str  # what is missing while it is off


TRAIN_SUBSET = Switch("train_subset", "2", "no training subject is measured between epochs")
SOFT_DICE = Switch("soft_dice", "true", "no soft Dice is measured")
PROBES = Switch("probes", "true", "the network is not probed")


@dataclass(frozen=True)
class Metric:
    """One metric: its title, which direction is better, its range, and how it is read from results.

    `of_trial` reads the value after the last epoch, of one class or of all (None): None if the result lacks it. Studies
    compare by these. A metric without `of_trial`, or with `has_epochs`, is an attribute of `EpochResult` (the values of
    classes are its attribute NAME_per_class), which claims average over a window of epochs.
    """

    title: str  # in tables; `{of_class}` is replaced by ` of edema` or nothing, `{unit}` by the unit of distances
    direction: Direction
    value_range: tuple[float, float] = (-inf, inf)
    of_trial: Callable[[TrialResult, str | None, Sequence[EpochResult]], float | None] | None = None
    has_epochs: bool = False  # single epochs have a value too
    of_case: Callable[[CaseScores], Mapping[str, float | None] | None] | None = None  # a validation case, by class
    has_classes: bool = False  # single classes have a value too, as in `val_dice:edema`
    switch: Switch | None = None
    num_validations: int = 0  # that it needs: in the window of a claim, else in the last quarter of the epochs
    is_dice: bool = False  # an overlap of masks: near 0 where a run learned nothing
    depends_on_learning: bool = True  # False: a run that collapsed has the same value as any other
    needs_window: bool = False  # a claim about a single epoch of it is refused


FRACTION = (0.0, 1.0)
DIFFERENCE = (-1.0, 1.0)  # of two fractions
NONNEGATIVE = (0.0, inf)


def _of_classes(values: Mapping[str, float | None] | None, class_name: str | None) -> float | None:
    """The value of one class, or the mean; None if a class has no value, as the mean of the others would flatter."""
    if class_name is not None:
        return (values or {}).get(class_name)
    known = [value for value in (values or {}).values() if value is not None]
    return mean(known) if known and len(known) == len(values or {}) else None


def _jitter(trial: TrialResult, epochs: Sequence[EpochResult]) -> float | None:
    return jitter([epoch.epoch for epoch in epochs], [epoch.val_dice for epoch in epochs], trial.epochs)


METRICS: dict[str, Metric] = {
    "val_dice": Metric(
        "validation Dice{of_class}",
        "higher",
        FRACTION,
        of_trial=lambda trial, name, _: trial.val.dice_of(name),
        of_case=lambda case: case.dice,
        has_epochs=True,
        has_classes=True,
        num_validations=1,
        is_dice=True,
    ),
    "train_dice": Metric(
        "train Dice{of_class}",
        "higher",
        FRACTION,
        of_trial=lambda trial, name, _: trial.train.dice_of(name),
        has_classes=True,
        is_dice=True,
    ),
    "gap": Metric(
        "gap{of_class} (train - validation Dice)",
        "lower",
        DIFFERENCE,
        of_trial=lambda trial, name, _: trial.gap_of(name),
        has_classes=True,
    ),
    "best_val_dice": Metric(
        "best epoch's validation Dice", "higher", FRACTION, of_trial=lambda trial, *_: trial.best_val_dice, is_dice=True
    ),
    "hd95_mm": Metric(
        "HD95{of_class} ({unit})",
        "lower",
        NONNEGATIVE,
        of_trial=lambda trial, name, _: _of_classes(trial.val.hd95_mm_per_class, name),
        of_case=lambda case: case.hd95_mm,
        has_classes=True,
    ),
    "surface_dice": Metric(
        "normalised surface Dice{of_class}",
        "higher",
        FRACTION,
        of_trial=lambda trial, name, _: _of_classes(trial.val.surface_dice_per_class, name),
        of_case=lambda case: case.surface_dice,
        has_classes=True,
    ),
    "jitter": Metric(
        "jitter of validation Dice",
        "lower",
        NONNEGATIVE,
        of_trial=lambda trial, _, epochs: _jitter(trial, epochs),
        num_validations=MIN_FOR_JITTER,
    ),
    "train_dice_subset": Metric(
        "Dice of some training subjects", "higher", FRACTION, switch=TRAIN_SUBSET, num_validations=1, is_dice=True
    ),
    "gap_subset": Metric(
        "gap (Dice of some training subjects - validation Dice)",
        "lower",
        DIFFERENCE,
        switch=TRAIN_SUBSET,
        num_validations=1,
        needs_window=True,
    ),
    "loss": Metric("loss", "lower", needs_window=True),
    "train_soft_dice_running": Metric(
        "soft Dice of the training batches", "higher", FRACTION, switch=SOFT_DICE, is_dice=True
    ),
    "deepest_to_first": Metric(
        "deepest level's features as a fraction of the first level's", "higher", NONNEGATIVE, switch=PROBES
    ),
    "deepest_variance": Metric("variance of the deepest level's features", "higher", NONNEGATIVE, switch=PROBES),
    "dead_fraction": Metric("fraction of dead channels", "lower", FRACTION, switch=PROBES),
    "dropout_off": Metric(
        "deviation of the dropped fraction from p", "lower", FRACTION, switch=PROBES, depends_on_learning=False
    ),
    "dropout_outside": Metric(
        "fraction of dropout calls outside the 95 % interval of p",
        "lower",
        FRACTION,
        switch=PROBES,
        depends_on_learning=False,
    ),
}

TRIAL_METRICS = tuple(name for name, metric in METRICS.items() if metric.of_trial is not None)
EPOCH_METRICS = tuple(name for name, metric in METRICS.items() if metric.of_trial is None or metric.has_epochs)
CLASS_METRICS = tuple(name for name, metric in METRICS.items() if metric.has_classes)


def split_metric(metric: str) -> tuple[str, str | None]:
    """`val_dice:edema` as the name in METRICS and the class, which is None if the metric is of all classes.

    The class is all that follows the first colon: its name may hold blanks, brackets and colons.
    """
    name, colon, class_name = metric.partition(":")
    return name, class_name if colon else None


def find_metric(metric: str) -> tuple[Metric, str | None]:
    """The entry in METRICS, and the class as in `split_metric`; the metric must be a known one."""
    name, class_name = split_metric(metric)
    return METRICS[name], class_name


def trial_value(result: TrialResult | None, metric: str, epochs: Sequence[EpochResult] = ()) -> float | None:
    """A trial's metric after its last epoch, None where it has none; `epochs` are needed for jitter alone."""
    entry, class_name = find_metric(metric)
    if entry.of_trial is None or (class_name is not None and not entry.has_classes):
        raise ValueError(f"'{metric}' is not a metric of trials")
    return None if result is None else entry.of_trial(result, class_name, epochs)


def epoch_value(epoch: EpochResult, metric: str) -> float | None:
    """The metric of a single epoch; None where the epoch has none."""
    name, class_name = split_metric(metric)
    if not is_of_epochs(metric):
        return None
    if class_name is not None:
        return (getattr(epoch, f"{name}_per_class") or {}).get(class_name)
    value: float | None = getattr(epoch, name)
    return value


def title_of(metric: str, distance_unit: str = "mm") -> str:
    """What tables call a metric: `validation Dice`, `validation Dice of edema`."""
    entry, class_name = find_metric(metric)
    of_class = "" if class_name is None else f" of {class_name}"
    return entry.title.format(of_class=of_class, unit=distance_unit)


def largest_difference(metric: str) -> float:
    """The largest difference that two trials can have in this metric; infinite if its range is unbounded."""
    low, high = find_metric(metric)[0].value_range
    return high - low


def direction_of(metric: str, given: Direction | None = None) -> Direction:
    """Which direction of a metric is better; SettingError if the given one contradicts it."""
    known = find_metric(metric)[0].direction
    if given is not None and given != known:
        raise SettingError(
            f"direction '{given}': of {metric} {known} is better; leave it out, or choose another metric"
        )
    return known


def _known_metric(metric: str, known: Collection[str]) -> str:
    name, class_name = split_metric(metric)
    if name not in known:
        raise ValueError(f"unknown metric '{metric}': {nearest(name, known)}")
    if class_name is not None and name not in CLASS_METRICS:
        raise ValueError(f"metric '{metric}': single classes have only {', '.join(CLASS_METRICS)}")
    return metric


def known_study_metric(metric: str) -> str:
    """The metric again; ValueError if studies cannot compare by it."""
    return _known_metric(metric, TRIAL_METRICS)


def known_claim_metric(metric: str) -> str:
    """The metric again; ValueError if claims cannot be about it."""
    return _known_metric(metric, METRICS)


# `METRIC`, or `METRIC:CLASS` for a single class
StudyMetric = Annotated[str, AfterValidator(known_study_metric)]
ClaimMetric = Annotated[str, AfterValidator(known_claim_metric)]


def is_of_epochs(metric: str) -> bool:
    """Whether single epochs have this metric, so that a claim may average it over a window."""
    name, class_name = split_metric(metric)
    return name in EPOCH_METRICS and (class_name is None or name in CLASS_METRICS)


def check_class(metric: str, classes: Collection[str]) -> None:
    """Raises SettingError if the metric is of a class that the data do not have; `classes` without background."""
    _, class_name = split_metric(metric)
    if class_name is not None and class_name not in classes:
        raise SettingError(f"metric '{metric}': no class '{class_name}': {nearest(class_name, classes)}")


def why_unmeasured(
    metric: str, evaluate: EvaluateSpec, epochs: int, window: tuple[int, int] | None = None
) -> tuple[str, str] | None:
    """Why a trial with these settings cannot have this metric, and the setting to change; None if it can.

    `window` is that of a claim. What depends on the data (a class without HD95) is not known here.
    """
    name, _ = split_metric(metric)
    entry, every = METRICS[name], evaluate.every or 1
    needed = entry.num_validations
    if window is not None and window[1] > epochs:
        return f"there are {epochs} epochs", f"train.epochs={window[1]}"
    if entry.switch is not None and not getattr(evaluate, entry.switch.setting):
        return entry.switch.lack, f"evaluate.{entry.switch.setting}={entry.switch.value}"
    first, last = window or (epochs - jitter_window(epochs) + 1, epochs)
    if _num_validated(every, first, last, epochs) >= needed:
        return None
    if epochs < needed:
        return f"{name} takes {needed} epochs", f"train.epochs={needed}"
    # validation in every epoch suffices; this finds the rarest that does
    fitting = next(e for e in range(every - 1, 0, -1) if _num_validated(e, first, last, epochs) >= needed)
    done = "validation once, at the end" if every >= epochs else f"validation every {every} epochs"
    if window is None:
        which = f"too rarely in the last {epochs - first + 1} epochs, of which {name} takes {needed}"
    else:
        which = f"never in {spell_window(window)}"
    return f"{done}, {which}", f"evaluate.every={fitting}"


def spell_window(window: tuple[int, int]) -> str:
    """`epochs 5-10`, `epoch 5`."""
    first, last = window
    return f"epoch {first}" if first == last else f"epochs {first}-{last}"


def _num_validated(every: int, first: int, last: int, epochs: int) -> int:
    """How many epochs from `first` to `last` are validated; the last of all always is."""
    return sum(epoch % every == 0 or epoch == epochs for epoch in range(max(first, 1), min(last, epochs) + 1))
