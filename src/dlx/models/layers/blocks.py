"""The building blocks of networks: layers by number of dimensions, normalisation by name, the ConvBlock."""

from typing import Annotated, Literal

import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from dlx.models.layers.conv3d import MIN_DEPTH, Conv3d, ConvTranspose3d
from dlx.models.layers.dropout import Dropout
from dlx.models.layers.instance_norm import InstanceNorm
from dlx.models.layers.upconv import upsample_conv
from dlx.settings.spec import DropoutSpec
from dlx.system.errors import SettingError

# `norm=none` on a command line is read as None
Norm = Annotated[
    Literal["batch", "none", "instance", "group", "auto"],
    BeforeValidator(lambda value: "none" if value is None else value),
    Field(description="The normalisation after each convolution; auto: batch in 2D, instance in 3D."),
]
FittedNorm = Literal["batch", "none", "instance", "group"]
Down = Annotated[
    Literal["max", "average", "conv"],
    Field(description="What halves the features between levels: a 2x2 pool, or a 3x3 convolution of stride 2."),
]
Up = Annotated[
    Literal["nearest", "transposed"],
    Field(description="What doubles the features: nearest neighbour and 3x3 convolution, or a 2x2 transposed one."),
]
Activation = Annotated[
    Literal["relu", "leaky-relu"],
    Field(description="What follows each norm: ReLU, or leaky ReLU with a slope of 0.01."),
]
Dims = Literal[2, 3]
AskedDims = Annotated[
    Literal[2, 3, "auto"],
    Field(description="2: a network of slices; 3: one of volumes, which takes 3D patches; auto: what suits the data."),
]
Groups = Annotated[
    int,
    Field(
        ge=1,
        description="With norm=group: the largest number of groups; fewer if it does not divide the channels.",
    ),
]

CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: ConvTranspose3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_GROUPS = 8
LEAKY_SLOPE = 0.01  # torch's default, and nnU-Net's


def known_dims(dims: Literal[2, 3, "auto"]) -> Dims:
    """The number of dimensions; SettingError for `auto`, which is replaced where the data are known."""
    if dims == "auto":
        raise SettingError("model.dims: auto needs data: give 2 or 3")
    return dims


def fitted_norm(norm: Norm, dims: Dims) -> FittedNorm:
    """The normalisation that `auto` means with this number of dimensions; any other stays."""
    if norm == "auto":
        return "batch" if dims == 2 else "instance"
    return norm


def make_norm(norm: Norm, channels: int, dims: Dims, groups: int = MAX_GROUPS) -> nn.Module:
    """A normalisation layer; that of groups takes the largest number <= `groups` that divides `channels`."""
    match fitted_norm(norm, dims):
        case "batch":
            return BATCH_NORM[dims](channels)
        case "instance":
            return InstanceNorm(channels)
        case "group":
            fitting = max(count for count in range(1, min(groups, channels) + 1) if channels % count == 0)
            return nn.GroupNorm(fitting, channels)
        case "none":
            return nn.Identity()


def make_down(down: Down, norm: Norm, channels: int, dims: Dims, groups: int = MAX_GROUPS) -> nn.Module:
    """A layer that halves each side: 2x2 max-pooling, 2x2 average-pooling, or a 3x3 convolution with stride 2.

    The convolution keeps the number of channels and, like a pool, has no activation. `norm` follows either.
    """
    match down:
        case "max":
            halve: nn.Module = MAX_POOL[dims](2)
        case "average":
            halve = AVERAGE_POOL[dims](2)
        case "conv":
            halve = CONV[dims](channels, channels, 3, stride=2, padding=1)
    return halve if norm == "none" else nn.Sequential(halve, make_norm(norm, channels, dims, groups))


def make_dropouts(
    dropout: DropoutSpec | None, dims: Dims, *, encoder: list[str], decoder: list[str], bottleneck: list[str]
) -> nn.ModuleDict:
    """A Dropout by name for each block that `dropout.where` selects, also if p = 0; none without a spec.

    `encoder`, `decoder`: the names of all blocks; `bottleneck`: those of the deepest encoder level. SettingError if the
    kind of dropout is for other dimensions, or if `where` selects no block.
    """
    if dropout is None:
        return nn.ModuleDict()
    fitting = f"dropout{dims}d"
    if dropout.kind not in ("dropout", fitting):
        raise SettingError(f"dropout.kind '{dropout.kind}' does not fit a {dims}D network: use {fitting}")
    names = {"every": encoder + decoder, "decoder": decoder, "bottleneck": bottleneck}[dropout.where]
    if dropout.p > 0 and not names:
        raise SettingError(f"dropout.where '{dropout.where}': a network of one level has no such block")
    return nn.ModuleDict({name: Dropout(dropout.p, dropout.kind) for name in names})


class ConvBlock(nn.Module):
    """3x3 convolution with padding 1 and bias, normalisation, activation: (B, in, *S) -> (B, out, *S)."""

    is_plain = False  # True: upsampling and convolution are two operations (see `exporting/plain.py`)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm = "batch",
        dims: Dims = 2,
        groups: int = MAX_GROUPS,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.is_leaky = activation == "leaky-relu"
        self.conv = CONV[dims](in_channels, out_channels, 3, padding=1)
        self.norm = make_norm(norm, out_channels, dims, groups)

    def forward(self, features: Float[Tensor, "B I *S"], *, upsample: bool = False) -> Float[Tensor, "B O *T"]:
        """With `upsample`, the features are first enlarged x2 (nearest neighbour)."""
        convolved = self._upsample_conv(features) if upsample else self.conv(features)
        normed = self.norm(convolved)
        if self.is_leaky:
            return F.leaky_relu(normed, LEAKY_SLOPE, inplace=True)
        return F.relu(normed, inplace=True)

    def _upsample_conv(self, features: Tensor) -> Tensor:
        # on the meta device operations are counted: the standard form is used there, as in papers; in 3D the fast form
        # was measured on CPUs only, and small volumes go through `Conv3d`, which computes them in float32
        is_fast_in_3d = features.device.type == "cpu" and features.shape[2] >= MIN_DEPTH
        if not self.is_plain and not features.is_meta and (features.ndim == 4 or is_fast_in_3d):
            assert self.conv.bias is not None
            return upsample_conv(features, self.conv.weight, self.conv.bias)
        convolved: Tensor = self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return convolved


def check_axes(image: Tensor, dims: int) -> None:
    """ValueError if the batch axis is missing: torch would accept (C, H, W) and fail later."""
    if image.ndim != dims + 2:
        sizes = {2: "H, W", 3: "D, H, W"}[dims]
        raise ValueError(f"a {dims}D network takes (B, C, {sizes}), not {image.ndim} axes")


def pad_to_multiple(image: Float[Tensor, "B C *S"], multiple: int) -> Float[Tensor, "B C *T"]:
    """Pads each axis with zeros at its end up to a multiple; returns the image itself if all sizes fit."""
    missing = [-size % multiple for size in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, [amount for size in reversed(missing) for amount in (0, size)])


def crop_to(logits: Float[Tensor, "B K *T"], sizes: tuple[int, ...]) -> Float[Tensor, "B K *S"]:
    """Keeps the first `sizes` voxels of each axis; returns the logits themselves if all sizes are equal."""
    if tuple(logits.shape[2:]) == sizes:
        return logits
    for axis, size in enumerate(sizes, start=2):
        logits = logits.narrow(axis, 0, size)
    return logits
