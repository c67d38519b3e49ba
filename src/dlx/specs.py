"""What is asked: every setting the engine reads is a typed field here; the rest are arguments of named parts.

Nothing here knows what a part's factory accepts (`dlx.arguments` binds and checks that), and nothing here needs torch.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dlx.spelling import parse_part, split_outside_brackets

Positive = Annotated[int, Field(ge=1, le=1_000_000)]  # no count of anything here is larger but by a slip
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

ADDED_LATER = (
    "added later"  # marks a setting younger than trials that bear a name: at its default it is not in the name
)


class Section(BaseModel):
    """A group of settings: frozen, and an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Part(Section):
    """A named part and the arguments given to it: `step:step_size=30,gamma=0.1` is `Part("step", {...})`.

    In a table the arguments stand beside the name: `{name = "unet2", width = 16}`.
    """

    name: str
    args: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_text_or_table(cls, value: Any) -> Any:
        if value is None:  # `normalize=none` on a command line
            return {"name": "none"}
        if isinstance(value, str):
            return parse_part(value)
        if isinstance(value, dict) and not (set(value) <= {"name", "args"} and isinstance(value.get("args", {}), dict)):
            return {"name": value.get("name"), "args": {key: v for key, v in value.items() if key != "name"}}
        return value

    def __str__(self) -> str:
        args = ",".join(f"{key}={_spell(value)}" for key, value in self.args.items())
        return f"{self.name}:{args}" if args else self.name


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _parts(value: Any) -> Any:
    """`lovasz+focal:gamma=2` as its terms; a list and a single table are taken as they are."""
    if isinstance(value, str):
        return [parse_part(term) for term in split_outside_brackets(value, "+")]
    return [value] if isinstance(value, dict) else value


def source_from_text(value: Any) -> Any:
    """A path is short for `folder:path=...`; that, and built-in data (`phantom`, `phantom:subjects=4`), are parts."""
    if isinstance(value, str) and value.partition(":")[0] != "phantom" and not value.startswith("folder:"):
        return {"name": "folder", "args": {"path": value}}
    return value


def _names(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


Geometry = Literal["image", "strict"]


class DataSpec(Section):
    """Where the volumes come from and how they are prepared."""

    source: Annotated[Part, BeforeValidator(source_from_text)] = Part(name="phantom")
    normalize: Part = Part(name="zscore")
    crop: bool = False  # training patches come from the box of the non-zero labels (training subjects only)
    # Where headers differ though the voxels correspond: take the image's geometry and warn, or refuse.
    geometry: Annotated[Geometry, ADDED_LATER] = "image"


SPLIT_WAYS = ("val", "fold", "val_fraction", "file")


class SplitSpec(Section):
    """Which subjects train and which validate: by one of val, fold, val_fraction, file; else a fifth does."""

    val: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    folds: Annotated[int, Field(ge=2)] | None = None  # 5 where only `fold` is given
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    file: str | None = None  # an nnU-Net splits_final.json, of which `fold` picks the entry
    groups: str | None = None  # a groups.json {case: person}; by default the one in the data folder, if any
    seed: int = 0
    train_subjects: Positive | None = None  # keep the first n of the shuffled training subjects: nested subsets

    @model_validator(mode="after")
    def _folds_are_of_a_fold(self) -> Self:
        if self.folds is not None and self.fold is None:
            raise ValueError(f"folds is given, but not fold, the one that validates (0 to {self.folds - 1}): add it")
        if self.folds is not None and self.file is not None:
            raise ValueError("folds is given beside a file, which has its own: leave it out")
        return self


class BatchSpec(Section):
    """What one training step sees.

    `patches`: `size` random patches, each of a random training subject.
    `block`: one random cube of one random subject, taken as slices for a 2D network (the notes' batch).
    """

    kind: Literal["patches", "block"] = "patches"
    size: Positive = 16  # patches a batch; with `block`, the depth of the cube = the number of slices
    patch_size_px: tuple[Positive, ...] | None = None  # (H, W) or (D, H, W); None: fitted to the training subjects
    slice_axis: Literal[0, 1, 2] = 0  # array axis (D, H, W) along which a 2D network's slices run
    foreground_fraction: Fraction = 0.0  # share of patches that are centred on a labelled voxel


class AugmentSpec(Section):
    """Random changes of every training patch; validation sees none. All off by default."""

    flip: Fraction = 0.0  # the chance of a flip along each axis of the patch
    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0  # the largest angle; in 3D about each axis
    scale: Annotated[float, Field(ge=0.0, le=3.0)] = 0.0  # 0.2: sizes from 1 / 1.2 to 1.2 times
    intensity: Annotated[float, Field(ge=0.0, le=3.0)] = 0.0  # 0.2: times 1 / 1.2 to 1.2, and up to 0.2 more or less
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0  # the largest deviation of Gaussian noise


class DropoutSpec(Section):
    """Dropout: `p` is the share that is dropped, `where` the blocks that have it."""

    p: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    kind: Literal["dropout", "dropout2d", "dropout3d"] = "dropout"
    where: Literal["every", "decoder", "bottleneck"] = "every"


class OptimizerSpec(Section):
    """The optimiser and the figures it is run with."""

    name: Part = Part(name="adamw")
    lr: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    decay_norms_and_biases: Annotated[bool, ADDED_LATER] = True  # False: weights with two axes or more decay alone
    group_lr: dict[str, Rate] = {}  # parameter group (encoder, decoder, head) -> its own rate
    clip_grad_norm: Rate | None = None


class TrainSpec(Section):
    """How long a trial trains, and what is kept of it."""

    epochs: Positive = 10
    steps_per_epoch: Positive = 30
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # validation then uses the averaged weights
    patience: Positive | None = None  # stop after so many epochs without a better validation Dice
    init_from: str | None = None  # a checkpoint whose weights are taken at the start (names that fit)


class EvaluateSpec(Section):
    """What is measured, and when. The last epoch is always evaluated in full, with surface distances."""

    every: Positive | None = None  # validate after every n-th epoch; None: so that it stays well below training's cost
    train_subset: Annotated[int, Field(ge=0)] = 2  # training subjects measured at each validation; 0: none
    soft_dice: bool = False  # the notes' soft Dice beside the hard one
    batch_size: Positive = 64  # slices (2D) or windows (3D) at once; the default is halved until it fits the memory
    overlap_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.5  # of the 3D windows
    surface_tolerance_mm: Rate = 1.0
    probes: Annotated[bool, ADDED_LATER] = False  # record features and gradients of each level, once an epoch


class ComputeSpec(Section):
    """The device and its fast paths; `auto` is replaced by what was chosen before a trial is named."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    threads: Positive | None = None  # CPU threads of a trial; None: all cores
    # CUDA: replay each step as a graph; auto: run it as it is if it cannot be captured
    capture: Annotated[bool | Literal["auto"], ADDED_LATER] = "auto"


class Spec(Section):
    """All that one trial is asked to do, but for its seed."""

    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    batch: BatchSpec = BatchSpec()
    model: Part = Part(name="unet2")
    init: Annotated[Part, ADDED_LATER] = Part(name="torch")
    dropout: DropoutSpec = DropoutSpec()
    augment: Annotated[AugmentSpec, ADDED_LATER] = AugmentSpec()
    loss: Annotated[tuple[Part, ...], BeforeValidator(_parts), Field(min_length=1)] = (
        Part(name="dice"),
        Part(name="ce"),
    )
    optimizer: OptimizerSpec = OptimizerSpec()
    scheduler: Part = Part(name="constant")
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.batch.patch_size_px is not None and len(self.batch.patch_size_px) not in (2, 3):
            raise ValueError("batch.patch_size_px takes (H, W) for a 2D network or (D, H, W) for a 3D one")
        return self
