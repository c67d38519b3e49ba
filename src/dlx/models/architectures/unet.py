"""The notes' two U-Nets: `unet`, whose encoder and decoder share blocks by mistake, and `unet2`, the corrected one.

Both have an encoder of two ConvBlocks a level with 2x2 max-pooling between levels, and a decoder that upsamples
(nearest, x2), convolves, concatenates with the encoder's features of the level and convolves twice
(Ronneberger et al. 2015, with padding and BatchNorm). They differ only in which blocks are shared.
"""

from functools import partial
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dlx.models.layers.blocks import (
    CONV,
    MAX_GROUPS,
    TRANSPOSED,
    Activation,
    AskedDims,
    ConvBlock,
    Down,
    Groups,
    Norm,
    Up,
    crop_to,
    make_down,
)
from dlx.models.network import Network
from dlx.settings.spec import ADDED_LATER, DropoutSpec
from dlx.settings.text import counted
from dlx.system.errors import SettingError

Width = Annotated[int, Field(ge=1, le=4096, description="Channels of the first level; they double at each level.")]
Levels = Annotated[int, Field(ge=1, le=7, description="Resolutions; features are halved from one to the next.")]
MaxWidth = Annotated[
    Annotated[int, Field(ge=1)] | None,
    Field(description="No level has more channels than this (nnU-Net: 320 in 3D, 512 in 2D)."),
]
DeepLevels = Annotated[
    int,
    Field(ge=0, description="How many coarser levels are trained too, by heads of their own: at most levels - 2."),
]
DownNorm = Annotated[Norm, Field(description="A normalisation after `down`.")]


class UNet(Network):
    """(B, C, *S) -> logits (B, K, *S) for any size S; widths double from level to level.

    Each call of a block has its own Dropout (after the ReLU) where `dropout` asks for one. Encoder blocks are made
    first and the layers that halve the features last, so that `unet` and `unet2` of one seed start with the same
    encoder, and networks that differ in `down` with the same blocks. `groups` is the largest number of groups of norm
    "group".

    With `up` "transposed" the first block of a decoder level is a transposed 2x2 convolution alone, as in nnU-Net:
    2 + 2 blocks a level. SettingError where blocks are shared and `up` or `max_width` give them other shapes.

    With `deep_supervision` n the n decoder levels before the last have a 1x1 convolution to logits each, made after all
    else. They are used in training only (`forward_levels`): evaluation is that of the network without them.
    """

    groups: ClassVar = Network.groups | {"encoder": ("encoder", "downs"), "head": ("head", "coarse_heads")}
    blocks_per_level: ClassVar = {"encoder": 2, "decoder": 3}

    def __init__(
        self,
        shares_blocks: bool,
        in_channels: int,
        num_classes: int,
        dropout: DropoutSpec | None = None,
        *,
        width: Width = 64,
        levels: Levels = 4,
        norm: Norm = "batch",
        dims: AskedDims = 2,
        groups: Annotated[Groups, ADDED_LATER] = MAX_GROUPS,
        down: Annotated[Down, ADDED_LATER] = "max",
        down_norm: Annotated[DownNorm, ADDED_LATER] = "none",
        up: Annotated[Up, ADDED_LATER] = "nearest",
        activation: Annotated[Activation, ADDED_LATER] = "relu",
        max_width: Annotated[MaxWidth, ADDED_LATER] = None,
        deep_supervision: Annotated[DeepLevels, ADDED_LATER] = 0,
    ) -> None:
        super().__init__(dims)
        dims = self.dims
        if deep_supervision > max(0, levels - 2):
            expected = f"{max(0, levels - 2)} or less with {counted(levels, 'level')}"
            raise SettingError(f"model.deep_supervision: expected {expected} (got {deep_supervision})")
        self.deep_supervision = deep_supervision
        self.stride = 2 ** (levels - 1)
        widths = level_widths(width, levels, max_width)
        if shares_blocks and levels > 1 and (up == "transposed" or widths[-1] != 2 * widths[-2]):
            cause = "up=transposed" if up == "transposed" else f"max_width={max_width}"
            raise SettingError(f"model 'unet': its shared blocks do not fit {cause}: use unet2")
        block = partial(ConvBlock, norm=norm, dims=dims, groups=groups, activation=activation)
        self.encoder = nn.ModuleList(
            nn.ModuleList([block(before, after), block(after, after)])
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList()
        for level in range(levels - 2, -1, -1):  # from the deepest up
            deeper, here = widths[level + 1], widths[level]
            double = TRANSPOSED[dims](deeper, here, 2, stride=2) if up == "transposed" else block(deeper, here)
            merge = double if shares_blocks else block(2 * here, here)
            last = cast(nn.ModuleList, self.encoder[level])[1] if shares_blocks else block(here, here)
            self.decoder.append(nn.ModuleList([double, merge, last]))
        self.head = CONV[dims](widths[0], num_classes, 1)
        self.downs = nn.ModuleList(make_down(down, down_norm, channels, dims, groups) for channels in widths[:-1])
        supervised = widths[1 : 1 + deep_supervision]
        self.coarse_heads = nn.ModuleList(CONV[dims](channels, num_classes, 1) for channels in supervised)
        self.add_dropouts(dropout)

    def forward_levels(self, image: Tensor) -> list[Tensor]:
        sizes = tuple(image.shape[2:])
        decoded: list[Tensor] = []
        features = self.decode(self._encode_padded(image), decoded)
        logits = [crop_to(self.head(features), sizes)]
        for level, head in enumerate(self.coarse_heads, start=1):
            coarse = head(decoded[-1 - level])
            logits.append(crop_to(coarse, tuple(-(-size // 2**level) for size in sizes)))
        return logits

    def encode(self, image: Tensor) -> list[Tensor]:
        """The features of each level, the deepest last."""
        maps: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            features = self.downs[level - 1](maps[-1]) if maps else image
            for index, block in enumerate(cast(nn.ModuleList, blocks)):
                features = self.after_block(f"encoder{level}_{index}", block(features))
            maps.append(features)
        return maps

    def decode(self, maps: list[Tensor], decoded: list[Tensor] | None = None) -> Tensor:
        """The features for `head`; the features after each level of the decoder are appended to `decoded`."""
        features = maps.pop()
        for level, blocks in enumerate(self.decoder):
            double, merge, last = cast(nn.ModuleList, blocks)
            doubled = double(features, upsample=True) if isinstance(double, ConvBlock) else double(features)
            features = self.after_block(f"decoder{level}_0", doubled)
            features = self.after_block(f"decoder{level}_1", merge(torch.cat([maps.pop(), features], dim=1)))
            features = self.after_block(f"decoder{level}_2", last(features))
            if decoded is not None:
                decoded.append(features)
        return features

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each level, with those of the layer that halves the features before it."""
        levels = super().level_parameters()
        for level, down in enumerate(self.downs, start=1):
            levels[f"encoder{level}"] += down.parameters()
        return levels


def level_widths(width: int, levels: int, max_width: int | None = None) -> list[int]:
    """The channels of each level: doubled from level to level, at most `max_width`, which is not below `width`."""
    if max_width is not None and max_width < width:
        raise SettingError(f"model: max_width {max_width} is below the width of the first level, {width}")
    return [min(width * 2**level, max_width or width * 2**level) for level in range(levels)]


unet = partial(UNet, True)
unet.__doc__ = """The faulty network: 6,238,532 parameters at width 64 with 2 channels and 4 classes.

Each level's second encoder block is also the decoder's last one, and the block after upsampling is also the one
after the concatenation: six blocks are called twice. The network is kept to measure the effect of this.
"""
unet2 = partial(UNet, False)
unet2.__doc__ = "The corrected network, without shared blocks: 8,563,652 parameters, 2,325,120 more than `unet`."
