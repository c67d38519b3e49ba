"""The settings of a trial: those that the engine reads are typed fields, the others are arguments of named parts.

Which settings name a part, and of which kind, is declared here alone (`Kind`). What a part's factory accepts is
checked in `dlx.settings.binding`. Nothing here needs torch.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator
from pydantic.fields import FieldInfo

from dlx.settings.part import Part, Section
from dlx.settings.registry import PARTS
from dlx.settings.text import parse_part, shorten, split_outside_brackets

Positive = Annotated[int, Field(ge=1, le=1_000_000)]  # a larger number is most likely a typing error
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

ADDED_LATER = "added later"  # marks a setting that older trials do not have: at its default no trial id contains it


@dataclass(frozen=True)
class Kind:
    """Marks a setting that names a part of this kind of the registry, or several."""

    name: str


def _terms(value: Any) -> Any:
    """`lovasz+focal:gamma=2` as its terms, a single table as a list of one; a list stays as it is."""
    if isinstance(value, str):
        return [parse_part(term) for term in split_outside_brackets(value, "+")]
    return [value] if isinstance(value, dict) else value


def source_from_text(value: Any) -> Any:
    """A path stands for `folder:path=...`; `folder:...`, `phantom` and `phantom:subjects=4` are parts already."""
    if not isinstance(value, str):
        return value
    name, colon, _ = value.partition(":")
    is_part = name in PARTS["data"] and (name != "folder" or colon)  # a folder may be named `folder`
    return value if is_part else {"name": "folder", "args": {"path": value}}


def _names(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _spacing(value: Any) -> Any:
    """Refuses what is neither a word nor three numbers, with one message for all; `1,1,3` is three numbers, and None,
    as which `--set` reads `none`, the word.
    """
    if value is None:
        return "none"
    if isinstance(value, str) and value not in SPACING_WAYS:
        value = [number.strip() for number in value.strip("[]").split(",")]
    if isinstance(value, str):
        return value
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(MIN_SPACING_MM <= number <= MAX_SPACING_MM for number in numbers):
        raise ValueError(
            f"expected {', '.join(SPACING_WAYS)} or three spacings [x, y, z] from {MIN_SPACING_MM} to {MAX_SPACING_MM} "
            f"mm (got {shorten(repr(value))})"
        )
    return numbers


Geometry = Literal["image", "strict"]
Orientation = Literal["common", "LPS", "stored"]
SPACING_WAYS = ("auto", "median", "none")
MIN_SPACING_MM, MAX_SPACING_MM = 0.001, 100.0  # microscopy of single cells to thick slices
SpacingMm = Annotated[Literal["auto", "median", "none"] | tuple[float, float, float], BeforeValidator(_spacing)]


class DataSpec(Section):
    """Where the volumes come from and how they are prepared."""

    source: Annotated[Part, Kind("data"), BeforeValidator(source_from_text)] = Part(name="phantom")
    """The data: the path of a folder of volumes or of a prepared file, or `phantom`, which draws them."""
    normalize: Annotated[Part, Kind("normalizer")] = Part(name="auto")
    """How intensities are normalised: `auto` takes `zscore`, unless channel names of nnU-Net (CT, noNorm) choose."""
    crop: bool = False
    """Take training patches only from the box around the labelled voxels; validation stays on whole volumes."""
    geometry: Annotated[Geometry, ADDED_LATER] = "image"
    """Headers that differ though the voxels correspond: `image` uses the image's with a warning, `strict` refuses."""
    orientation: Annotated[Orientation, ADDED_LATER] = "common"
    """How axes run: all cases as most are stored (`common`), all to left, back and up (`LPS`), or each as `stored`."""
    spacing_mm: Annotated[SpacingMm, ADDED_LATER] = "auto"
    """The voxel size, [x, y, z] or the set's `median`, that cases are resampled to; `auto`: `none` if all are alike."""

    @property
    def path(self) -> Path | None:
        """The folder, or the file of prepared data, that the source names; None for data that are drawn."""
        path = self.source.args.get("path")
        return Path(path) if isinstance(path, str) else None


def _fold(value: Any) -> Any:
    """Refuses what is neither a number from 0 nor `all`, with one message for both."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if value is not None and value != ALL_FOLDS and not is_number:
        raise ValueError(f"expected the number of a fold, counted from 0, or {ALL_FOLDS} (got {shorten(repr(value))})")
    return value


def _batch_size(value: Any) -> Any:
    """Refuses what is neither a number of patches nor `auto`, with one message for both."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value != "auto" and not is_number:
        raise ValueError(f"expected the number of patches, 1 or more, or auto (got {shorten(repr(value))})")
    return value


SPLIT_WAYS = ("val", "fold", "val_fraction", "file")
ALL_FOLDS: Literal["all"] = "all"  # of `split.fold`: cross-validation


class SplitSpec(Section):
    """Which subjects train and which validate: by one of val, fold, val_fraction, file; else a fifth does."""

    val: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = None
    """The validation subjects by name: subject-1,subject-2."""
    fold: Annotated[Annotated[int, Field(ge=0)] | Literal["all"] | None, BeforeValidator(_fold)] = None
    """The fold that validates, from 0; of `file`, the entry to take. `all`: cross-validation, each fold in a trial."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """The number of folds; 5 if only `fold` is given."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """The share of the subjects that validates."""
    file: str | None = None
    """An nnU-Net splits_final.json, of which `fold` picks the entry."""
    groups: str | None = None
    """A JSON file {case: person}; by default the groups.json of the data folder, if it has one."""
    seed: int = 0
    """The seed that shuffles the subjects into folds and fractions; the seed of the training is another."""
    train_subjects: Positive | None = None
    """Keep n of the shuffled training subjects, in each fold from another start; a smaller n keeps a subset."""

    @model_validator(mode="after")
    def _folds_are_of_a_fold(self) -> Self:
        if self.folds is not None and self.fold is None:
            raise ValueError(
                f"folds is given, but not fold, the one that validates (0 to {self.folds - 1}, or {ALL_FOLDS}): add it"
            )
        if self.folds is not None and self.file is not None:
            raise ValueError("folds is given beside a file, which has its own: leave it out")
        return self


ForegroundBy = Literal["voxel", "class"]


class BatchSpec(Section):
    """What one training step sees.

    `patches`: `size` random patches, each of a random training subject.
    `block`: one random cube of one random subject, taken as slices for a 2D network (the notes' batch).
    """

    kind: Literal["patches", "block"] = "patches"
    """What a batch is: patches of random subjects, or the slices of one random cube of one subject."""
    size: Annotated[Positive | Literal["auto"], BeforeValidator(_batch_size)] = 16
    """Patches in a batch, `auto`: see `max_voxels`; with `block` the number of slices, the depth of the cube."""
    patch_size_px: tuple[Positive, ...] | None = None
    """The size of a patch, [H, W] or [D, H, W]; by default the training subjects' median, at most 64 (3D: 48) unless
    size=auto."""
    slice_axis: Literal["auto", 0, 1, 2] = "auto"
    """The array axis (D, H, W) of a 2D network's slices; `auto`: by far the largest spacing, else the thinnest if under
    8 voxels, else 0."""
    foreground_fraction: Fraction = 0.0
    """The share of patches that are centred on a labelled voxel."""
    foreground_by: Annotated[ForegroundBy, ADDED_LATER] = "voxel"
    """The labelled voxel: any `voxel` of the case, or one of a `class` drawn first, so that rare ones are seen too."""
    max_voxels: Annotated[int, Field(ge=1, le=10**12), ADDED_LATER] = 200_000
    """With size=auto: the voxels of a step, in patches of about the median shape; fewer if the memory is small."""
    max_patches: Annotated[Positive, ADDED_LATER] = 16
    """With size=auto: the largest number of patches of a step."""

    @model_validator(mode="after")
    def _blocks_have_a_size(self) -> Self:
        if self.kind == "block" and self.size == "auto":
            raise ValueError("size: auto is for patches; a block needs a number of slices")
        return self

    @property
    def fitted_size(self) -> int:
        """`size` of a resolved spec, where it is never `auto`."""
        assert self.size != "auto"
        return self.size

    @property
    def fitted_patch_size_px(self) -> tuple[int, ...]:
        """`patch_size_px` of a resolved spec, where it is never None."""
        assert self.patch_size_px is not None
        return self.patch_size_px

    @property
    def fitted_slice_axis(self) -> int:
        """`slice_axis` of a resolved spec, where it is never `auto`."""
        assert self.slice_axis != "auto"
        return self.slice_axis


def _rises(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"expected the lower end first (got {ends[0]:g}, {ends[1]:g})")
    return ends


Ends = Annotated[tuple[Rate, Rate], AfterValidator(_rises)]
# axes of a patch: (H, W) or (D, H, W); whether the network has as many is checked when a trial is resolved
Axes = Annotated[
    tuple[Literal[0, 1, 2], ...], Field(min_length=1), AfterValidator(lambda axes: tuple(sorted(set(axes))))
]


class AugmentSpec(Section):
    """Random changes of every training patch; validation sees none. All off by default."""

    flip: Fraction = 0.0
    """The chance of a flip along each axis of the patch."""
    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """The largest angle of rotation, in degrees; in 3D about each axis."""
    scale: Annotated[float, Field(ge=0.0, le=3.0)] = 0.0
    """The largest change of size: 0.2 is from 1 / 1.2 to 1.2 times."""
    intensity: Annotated[float, Field(ge=0.0, le=3.0)] = 0.0
    """The largest change of intensity, per channel: 0.2 is times 1 / 1.2 to 1.2, and up to 0.2 more or less."""
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """The largest standard deviation of Gaussian noise."""
    flip_axes: Annotated[Axes | None, ADDED_LATER] = None
    """The axes of a patch that `flip` mirrors, from 0; by default all. With data.orientation=LPS, W is left-right."""
    blur: Annotated[Fraction, ADDED_LATER] = 0.0
    """The chance of a Gaussian blur of a patch."""
    blur_sigma_px: Annotated[Ends, ADDED_LATER] = (0.5, 1.0)
    """The standard deviation of the blur, drawn for each channel between these ends."""
    contrast: Annotated[Fraction, ADDED_LATER] = 0.0
    """The chance of another contrast of a patch: distances from each channel's mean are scaled, its range is kept."""
    contrast_range: Annotated[Ends, ADDED_LATER] = (0.75, 1.25)
    """The factor of the contrast, drawn for each channel: below 1 in half of the draws, above 1 in the others."""
    low_resolution: Annotated[Fraction, ADDED_LATER] = 0.0
    """The chance of a simulated low resolution of a patch: sampled down (nearest) and up again (linear)."""
    low_resolution_range: Annotated[tuple[Share, Share], AfterValidator(_rises), ADDED_LATER] = (0.5, 1.0)
    """The share of the voxels along each axis that the low resolution keeps, between these ends."""
    gamma: Annotated[Fraction, ADDED_LATER] = 0.0
    """The chance of a gamma change of a patch: each channel to a power, with its mean and deviation restored."""
    gamma_inverted: Annotated[Fraction, ADDED_LATER] = 0.0
    """The chance of a gamma change of the negative of a patch, before and apart from that of `gamma`."""
    gamma_range: Annotated[Ends, ADDED_LATER] = (0.7, 1.5)
    """The exponent of a gamma change, drawn for each channel: below 1 in half of the draws, above 1 in the others."""


class DropoutSpec(Section):
    """Dropout: `p` is the share that is dropped, `where` the blocks that have it."""

    p: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share that is dropped."""
    kind: Literal["dropout", "dropout2d", "dropout3d"] = "dropout"
    """What is dropped: single elements, or whole channels (2d, 3d)."""
    where: Literal["every", "decoder", "bottleneck"] = "every"
    """The blocks that have dropout."""
    own_rates: Annotated[bool, ADDED_LATER] = False
    """Of a network of your own: its dropout modules keep their rates; true if p is not given."""

    @model_validator(mode="after")
    def _one_source_of_rates(self) -> Self:
        if self.own_rates and self.p > 0:
            raise ValueError(f"p={self.p:g} and own_rates=true exclude each other: leave one out")
        return self


class OptimizerSpec(Section):
    """The optimizer, its learning rates and its weight decay."""

    name: Annotated[Part, Kind("optimizer")] = Part(name="adamw")
    """The optimizer."""
    lr: Rate = 2e-3
    """The learning rate at the start; the scheduler changes it."""
    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Weight decay: decoupled with adamw, in the L2 form with adam and sgd."""
    decay_norms_and_biases: Annotated[bool, ADDED_LATER] = True
    """Decay the scales and shifts of norms and the biases too; false: only weights of two axes or more."""
    group_lr: dict[str, Rate] = Field(default_factory=dict)
    """A learning rate of its own for parameter groups (encoder, decoder, head): {"encoder": 1e-4}."""
    clip_grad_norm: Rate | None = None
    """Scale gradients down to this norm if their norm is larger."""


class TrainSpec(Section):
    """How long a trial trains, and what is kept of it."""

    epochs: Positive = 10
    """The number of epochs."""
    steps_per_epoch: Positive = 30
    """Optimizer steps in an epoch."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Average the weights over steps with this decay, and evaluate the average: 0.99."""
    patience: Positive | None = None
    """Stop after this many epochs without a better validation Dice."""
    init_from: str | None = None
    """A checkpoint whose weights are taken at the start, where their names and shapes fit."""


class EvaluateSpec(Section):
    """What is measured, and when. The last epoch is always evaluated in full, with surface distances."""

    every: Positive | None = None
    """Validate after every n-th epoch; by default so often that it costs a tenth of training, at least five times."""
    train_subset: Annotated[int, Field(ge=0)] = 2
    """Training subjects measured at each validation; 0: none. After the last epoch all of them are."""
    soft_dice: bool = False
    """Measure the soft Dice of the notes beside the hard one."""
    batch_size: Positive = 64
    """Slices (2D) or windows (3D) that are evaluated at once; the default is halved until it fits the memory."""
    overlap_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.5
    """The share by which the windows of a 3D network overlap."""
    surface_tolerance_mm: Rate = 1.0
    """The distance within which surfaces count as equal in the surface Dice."""
    mirror: Annotated[StrictBool | Axes, ADDED_LATER] = False
    """Predict the mean over all flips along these axes of slices or windows; true: along `augment.flip_axes`."""
    probes: Annotated[bool, ADDED_LATER] = False
    """Record features and gradients of each level of the network, once an epoch."""


def _device_name(name: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", name) is None:
        raise ValueError(f"expected auto, cpu, mps, cuda or one of several GPUs, as cuda:1 (got {name[:80]!r})")
    return name


class ComputeSpec(Section):
    """The device and its fast paths; `auto` is replaced by what was chosen before a trial is named."""

    device: Annotated[str, AfterValidator(_device_name)] = "auto"
    """The device: auto, cpu, mps, cuda, or one of several GPUs, as in cuda:1."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """What convolutions are computed in; auto takes bf16 where the device is fast at it."""
    threads: Positive | None = None
    """CPU threads of a trial; by default all cores, whatever OMP_NUM_THREADS says, and one where several trials run at
    once."""
    capture: Annotated[bool | Literal["auto"], ADDED_LATER] = "auto"
    """CUDA: replay each step as a graph; auto runs a step uncaptured if capturing fails."""
    num_ranks: Annotated[Positive, ADDED_LATER] = 1
    """Processes that train a trial together, each with its part of the batch; torchrun sets it."""
    sync_batchnorm: Annotated[bool, ADDED_LATER] = False
    """CUDA with several ranks: batch norm takes its statistics over the parts of all ranks."""


class Spec(Section):
    """The settings of one trial, without its seed."""

    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    batch: BatchSpec = BatchSpec()
    model: Annotated[Part, Kind("model")] = Part(name="unet2")
    """The network: one of these names, or your own, my_net.py:Net or package.module:callable."""
    init: Annotated[Part, Kind("initializer"), ADDED_LATER] = Part(name="torch")
    """How the first weights are drawn."""
    dropout: DropoutSpec = DropoutSpec()
    augment: Annotated[AugmentSpec, ADDED_LATER] = AugmentSpec()
    loss: Annotated[tuple[Part, ...], Kind("loss"), BeforeValidator(_terms), Field(min_length=1)] = (
        Part(name="dice"),
        Part(name="ce"),
    )
    """The loss, or a sum of losses: dice+ce, lovasz+focal:gamma=1."""
    optimizer: OptimizerSpec = OptimizerSpec()
    scheduler: Annotated[Part, Kind("scheduler")] = Part(name="constant")
    """How the learning rate changes over the epochs."""
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    compute: ComputeSpec = ComputeSpec()

    def mirrored_axes(self, dims: int) -> tuple[int, ...]:
        """The axes of a slice or window along which predictions are mirrored; none without `evaluate.mirror`."""
        if isinstance(self.evaluate.mirror, bool):
            return (self.augment.flip_axes or tuple(range(dims))) if self.evaluate.mirror else ()
        return self.evaluate.mirror

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.batch.patch_size_px is not None and len(self.batch.patch_size_px) not in (2, 3):
            raise ValueError("batch.patch_size_px takes (H, W) for a 2D network or (D, H, W) for a 3D one")
        return self


class SettingField(NamedTuple):
    """A setting of a section: its dotted key (`train.epochs`), and the kind of part that it names, if it names one."""

    key: str
    field: FieldInfo
    kind: str | None


def setting_fields(section: type[Section] = Spec, prefix: str = "") -> Iterator[SettingField]:
    """Every setting of a section and of the sections in it, in their order. The arguments of parts are not fields."""
    for name, field in section.model_fields.items():
        inner, kind = field.annotation, kind_of(field)
        if kind is None and isinstance(inner, type) and issubclass(inner, Section):
            yield from setting_fields(inner, f"{prefix}{name}.")
        else:
            yield SettingField(f"{prefix}{name}", field, kind)


def kind_of(field: FieldInfo) -> str | None:
    """The kind of part that a setting names; None for other settings."""
    return next((mark.name for mark in field.metadata if isinstance(mark, Kind)), None)


# the dotted key of each setting that names a part, or parts -> their kind
PART_KINDS = {setting.key: setting.kind for setting in setting_fields() if setting.kind is not None}
