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

from dlx.models.blocks import CONV, MAX_GROUPS, ConvBlock, Dims, Down, Groups, Norm, make_down
from dlx.models.network import Network
from dlx.settings.spec import ADDED_LATER, DropoutSpec

Width = Annotated[int, Field(ge=1, le=4096, description="Channels of the first level; they double at each level.")]
Levels = Annotated[int, Field(ge=1, le=7, description="How often the features are halved.")]
DownNorm = Annotated[Norm, Field(description="A normalisation after `down`.")]


class UNet(Network):
    """(B, C, *S) -> logits (B, K, *S) for any size S; widths double from level to level.

    Each call of a block has its own Dropout (after the ReLU) where `dropout` asks for one. Encoder blocks are made
    first and the layers that halve the features last, so that `unet` and `unet2` of one seed start with the same
    encoder, and networks that differ in `down` with the same blocks. `groups` is the largest number of groups of norm
    "group".
    """

    groups: ClassVar = Network.groups | {"encoder": ("encoder", "downs")}
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
        dims: Dims = 2,
        groups: Annotated[Groups, ADDED_LATER] = MAX_GROUPS,
        down: Annotated[Down, ADDED_LATER] = "max",
        down_norm: Annotated[DownNorm, ADDED_LATER] = "none",
    ) -> None:
        super().__init__(dims)
        self.stride = 2 ** (levels - 1)
        widths = [width * 2**level for level in range(levels)]
        block = partial(ConvBlock, norm=norm, dims=dims, groups=groups)
        self.encoder = nn.ModuleList(
            nn.ModuleList([block(before, after), block(after, after)])
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList()
        for level in range(levels - 2, -1, -1):  # from the deepest up
            up = block(widths[level + 1], widths[level])
            merge = up if shares_blocks else block(2 * widths[level], widths[level])
            last = cast(nn.ModuleList, self.encoder[level])[1] if shares_blocks else block(widths[level], widths[level])
            self.decoder.append(nn.ModuleList([up, merge, last]))
        self.head = CONV[dims](widths[0], num_classes, 1)
        self.downs = nn.ModuleList(make_down(down, down_norm, channels, dims, groups) for channels in widths[:-1])
        self.add_dropouts(dropout)

    def encode(self, image: Tensor) -> list[Tensor]:
        """The features of each level, the deepest last."""
        maps: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            features = self.downs[level - 1](maps[-1]) if maps else image
            for index, block in enumerate(cast(nn.ModuleList, blocks)):
                features = self.after_block(f"encoder{level}_{index}", block(features))
            maps.append(features)
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        features = maps.pop()
        for level, blocks in enumerate(self.decoder):
            up, merge, last = cast(nn.ModuleList, blocks)
            features = self.after_block(f"decoder{level}_0", up(features, upsample=True))
            features = self.after_block(f"decoder{level}_1", merge(torch.cat([maps.pop(), features], dim=1)))
            features = self.after_block(f"decoder{level}_2", last(features))
        return features

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each level, with those of the layer that halves the features before it."""
        levels = super().level_parameters()
        for level, down in enumerate(self.downs, start=1):
            levels[f"encoder{level}"] += down.parameters()
        return levels


unet = partial(UNet, True)
unet.__doc__ = """The faulty network: 6,238,532 parameters at width 64 with 2 channels and 4 classes.

Each level's second encoder block is also the decoder's last one, and the block after upsampling is also the one
after the concatenation: six blocks are called twice. The network is kept to measure the effect of this.
"""
unet2 = partial(UNet, False)
unet2.__doc__ = "The corrected network, without shared blocks: 8,563,652 parameters, 2,325,120 more than `unet`."
