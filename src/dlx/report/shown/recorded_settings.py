"""The few of a trial's recorded settings that its head and tables show, checked: records may come from elsewhere."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlx.settings.part import Part


class Recorded(BaseModel):
    """Part of the resolved settings of a trial; what is not listed is ignored, what is missing is not known."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RecordedSplit(Recorded):
    """The names of the cases."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()


class RecordedBatch(Recorded):
    """Number, kind and size of the patches."""

    kind: str = "patches"
    size: int | None = None
    patch_size_px: tuple[int, ...] | None = None


class RecordedTrain(Recorded):
    """The length of the training."""

    epochs: int | None = None
    steps_per_epoch: int | None = None


class RecordedEvaluate(Recorded):
    """How often, on how many training subjects, and within which distance surfaces count as equal."""

    every: int | None = None
    train_subset: int = 0
    surface_tolerance_mm: float = 1.0


class RecordedOptimizer(Recorded):
    """The optimizer's name."""

    name: Part | None = None


class RecordedCompute(Recorded):
    """Device and precision."""

    device: str | None = None
    precision: str = "unknown precision"
    threads: int | None = None


class RecordedSettings(Recorded):
    """The settings of a trial that its head and tables show."""

    channels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    split: RecordedSplit = Field(default_factory=RecordedSplit)
    batch: RecordedBatch = Field(default_factory=RecordedBatch)
    model: Part | None = None
    loss: tuple[Part, ...] = ()
    optimizer: RecordedOptimizer = Field(default_factory=RecordedOptimizer)
    scheduler: Part | None = None
    train: RecordedTrain = Field(default_factory=RecordedTrain)
    evaluate: RecordedEvaluate = Field(default_factory=RecordedEvaluate)
    compute: RecordedCompute = Field(default_factory=RecordedCompute)


def read_settings(settings: Mapping[str, Any] | None) -> RecordedSettings:
    """The checked settings; all unknown where the table is None or not the settings of a trial."""
    try:
        return RecordedSettings.model_validate(settings or {})
    except ValidationError:
        return RecordedSettings()
