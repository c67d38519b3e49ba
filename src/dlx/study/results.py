"""What trials measure: the `result` halves of records, which repeat bit for bit when a trial does.

Metrics are read from these (`dlx.study.metrics`); how they are written to files is in `dlx.records`.
"""

from math import sqrt
from typing import Literal

from pydantic import BaseModel, ConfigDict

ENCODER = ("encoder", "backbone")  # how the levels on the way down are named
RESULTS_VERSION = 2  # raised by a commit that changes a trial's numbers on purpose


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _difference(train: float | None, val: float | None) -> float | None:
    return None if train is None or val is None else train - val


class Record(BaseModel):
    """Frozen and exact: an unknown key means a record of another version and is refused; NaN is written as null."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelProbe(Record):
    """One level of a network in the first step of an epoch: its last block's features, its gradient and weights."""

    mean_abs: float  # of the features, after the ReLU
    mean: float
    variance: float
    dead_fraction: float  # of the channels: those that are 0 throughout the batch
    gradient_norm: float
    weight_norm: float  # after the step


class DropoutSample(Record):
    """What one dropout drew in one call: how many elements (or channels), and how many of them it dropped."""

    p: float
    tossed: int
    dropped: int

    @property
    def deviation(self) -> float:
        """How far the fraction that was dropped is from p."""
        return abs(self.dropped / self.tossed - self.p)

    @property
    def is_outside_interval(self) -> bool:
        """Whether the fraction lies outside p's 95 % interval (binomial, by the normal approximation)."""
        return self.deviation > 1.96 * sqrt(self.p * (1 - self.p) / self.tossed)


class EpochResult(Record):
    """One epoch. Dice are hard and of whole volumes unless stated otherwise; None if not measured."""

    epoch: int  # from 1
    lr: dict[str, float]  # parameter group -> the rate that was applied in this epoch
    loss: float  # mean over the epoch's steps
    train_soft_dice_running: float | None = None  # as in the notes: soft Dice of the epoch's batches, while training
    train_dice_subset: float | None = None  # over `evaluate.train_subset` training subjects
    val_dice: float | None = None
    val_dice_per_class: dict[str, float | None] | None = None
    val_soft_dice: float | None = None  # as in the notes, of whole volumes
    levels: dict[str, LevelProbe] | None = None  # by level, with `evaluate.probes`
    coins: dict[str, DropoutSample] | None = None  # likewise, by dropout: those active in the epoch's first step

    @property
    def gap_subset(self) -> float | None:
        """Dice of the training subset minus validation Dice."""
        return _difference(self.train_dice_subset, self.val_dice)

    @property
    def deepest_to_first(self) -> float | None:
        """The mean absolute value of the deepest level's features as a fraction of the first level's."""
        down = [probe.mean_abs for name, probe in (self.levels or {}).items() if name.startswith(ENCODER)]
        return down[-1] / down[0] if len(down) > 1 and down[0] > 0 else None

    @property
    def deepest_variance(self) -> float | None:
        """The variance of the deepest level's features."""
        down = [probe.variance for name, probe in (self.levels or {}).items() if name.startswith(ENCODER)]
        return down[-1] if down else None

    @property
    def dead_fraction(self) -> float | None:
        """The fraction of channels that are 0 throughout the batch, the mean over the levels."""
        return None if self.levels is None else _mean([probe.dead_fraction for probe in self.levels.values()])

    @property
    def dropout_off(self) -> float | None:
        """How far the fraction that a dropout drops in a call is from p, the mean over the dropouts."""
        return None if self.coins is None else _mean([sample.deviation for sample in self.coins.values()])

    @property
    def dropout_outside(self) -> float | None:
        """The fraction of calls that drop a fraction outside p's 95 % interval: 0.05 if the draws are independent."""
        return None if self.coins is None else _mean([float(s.is_outside_interval) for s in self.coins.values()])


DistanceUnit = Literal["mm", "px"]  # px where the image files have no spacing (PNG, TIFF)


class OverlapCounts(Record):
    """The voxels of a class in one case: in mask and prediction, in the prediction, in the mask."""

    overlap: int
    predicted: int
    true: int


class CaseScores(Record):
    """The scores of one case by class; None where neither the mask nor the prediction has the class.

    `num_voxels` are those that were measured: all that are not ignored. `counts` and `num_voxels` are None where the
    surfaces were not measured either, and in older records.
    """

    dice: dict[str, float | None]
    hd95_mm: dict[str, float | None] | None = None
    surface_dice: dict[str, float | None] | None = None
    counts: dict[str, OverlapCounts] | None = None
    num_voxels: int | None = None


class SetScores(Record):
    """The scores of a set of cases: per class the mean over the cases that have one, `dice` their mean."""

    dice: float | None
    dice_per_class: dict[str, float | None]
    hd95_mm_per_class: dict[str, float | None] | None = None  # over the cases where both have the class
    surface_dice_per_class: dict[str, float | None] | None = None
    cases: dict[str, CaseScores]

    def dice_of(self, class_name: str | None) -> float | None:
        """The Dice of one class, or the mean over classes (None)."""
        return self.dice if class_name is None else self.dice_per_class.get(class_name)


class TrialResult(Record):
    """What a finished trial measured, after its last epoch."""

    epochs: int
    train: SetScores
    val: SetScores
    best_epoch: int | None  # the epoch with the highest validation Dice: selected on the validation data
    best_val_dice: float | None
    weights_hash: str  # of the final weights
    batches_hash: str  # of the indices of every patch that was drawn
    distance_unit: DistanceUnit = "mm"  # of HD95 (`hd95_mm`) and of the tolerance of the surface Dice
    label_values: dict[str, tuple[int, ...]] | None = None  # class -> its values in mask files; None in older records

    def gap_of(self, class_name: str | None) -> float | None:
        """Train minus validation Dice, of one class or of the mean over classes (None)."""
        return _difference(self.train.dice_of(class_name), self.val.dice_of(class_name))
