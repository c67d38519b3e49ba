"""The notes' two U-Nets: `unet`, whose decoder and encoder call the same blocks by mistake, and `unet2`, mended.

Both have an encoder of two ConvBlocks a level with 2x2 max-pooling between levels, and a decoder that upsamples
(nearest, x2), convolves, concatenates with the encoder's features of the level and convolves twice
(Ronneberger et al. 2015, with padding and BatchNorm). They differ in nothing but which blocks are one and the same.
"""

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dlx.models.blocks import (
    CONV,
    MAX_GROUPS,
    ConvBlock,
    Dims,
    Down,
    Groups,
    Norm,
    Watch,
    check_axes,
    crop_to,
    make_down,
    make_dropouts,
    pad_to_multiple,
)
from dlx.settings.spec import ADDED_LATER, DropoutSpec

Width = Annotated[int, Field(ge=1, le=4096, description="Channels of the first level; they double at each level.")]
Levels = Annotated[int, Field(ge=1, le=7, description="How often the features are halved.")]
DownNorm = Annotated[Norm, Field(description="A normalisation after `down`.")]


def unet(
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
) -> "UNet":
    """The faulty network: 6,238,532 parameters at width 64 with 2 channels and 4 classes.

    Each level's second encoder block serves as the decoder's last one too, and the block after upsampling is also the
    one after the concatenation: six blocks called twice. It is kept to measure what that does.
    """
    shape = Shape(width, levels, norm, dims, groups, down, down_norm)
    return UNet(in_channels, num_classes, dropout, shape, is_shared=True)


def unet2(
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
) -> "UNet":
    """The corrected network, a block of its own in each place: 8,563,652 parameters, 2,325,120 more than `unet`."""
    shape = Shape(width, levels, norm, dims, groups, down, down_norm)
    return UNet(in_channels, num_classes, dropout, shape, is_shared=False)


@dataclass(frozen=True)
class Shape:
    """What the two networks are built with; `groups` is the most that norm "group" makes."""

    width: int
    levels: int
    norm: Norm
    dims: Dims
    groups: int
    down: Down
    down_norm: Norm

    @property
    def widths(self) -> list[int]:
        """The channels of each level, from the image down."""
        return [self.width * 2**level for level in range(self.levels)]

    def block(self, in_channels: int, out_channels: int) -> ConvBlock:
        """A ConvBlock of this norm and these dimensions."""
        return ConvBlock(in_channels, out_channels, self.norm, self.dims, self.groups)


class UNet(nn.Module):
    """(B, C, *S) -> logits (B, K, *S) for any size S; widths double from level to level.

    Sizes that `stride` = 2^(levels - 1) does not divide are padded with zeros and the logits cropped back. Each place
    where a block is called has a Dropout of its own (after the ReLU) where `dropout` asks for one there. Encoder
    blocks are made first and what halves the features last, so `unet` and `unet2` of one seed start with the same
    encoder, and networks that differ in `down` with the same blocks.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: DropoutSpec | None,
        shape: Shape,
        *,
        is_shared: bool,
    ) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self.dims, self.stride = shape.dims, 2 ** (shape.levels - 1)
        widths, block = shape.widths, shape.block
        self.encoder = nn.ModuleList(
            nn.ModuleList([block(before, after), block(after, after)])
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList()
        for level in range(shape.levels - 2, -1, -1):  # from the deepest up
            up = block(widths[level + 1], widths[level])
            merge = up if is_shared else block(2 * widths[level], widths[level])
            last = cast(nn.ModuleList, self.encoder[level])[1] if is_shared else block(widths[level], widths[level])
            self.decoder.append(nn.ModuleList([up, merge, last]))
        self.head = CONV[shape.dims](widths[0], num_classes, 1)
        self.downs = nn.ModuleList(
            make_down(shape.down, shape.down_norm, width, shape.dims, shape.groups) for width in widths[:-1]
        )
        encoder = [f"encoder{level}_{place}" for level in range(shape.levels) for place in range(2)]
        decoder = [f"decoder{level}_{place}" for level in range(shape.levels - 1) for place in range(3)]
        self.dropouts = make_dropouts(dropout, shape.dims, encoder=encoder, decoder=decoder, bottleneck=encoder[-2:])

    def _call(self, block: nn.Module, place: str, features: Tensor, *, upsample: bool = False) -> Tensor:
        features = block(features, upsample=upsample)
        if self.watch is not None:
            self.watch(place, features)
        return self.dropouts[place](features) if place in self.dropouts else features

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K *S"]:
        *skips, features = self._encode(image)
        for level, blocks in enumerate(self.decoder):
            up, merge, last = cast(nn.ModuleList, blocks)
            features = self._call(up, f"decoder{level}_0", features, upsample=True)
            features = self._call(merge, f"decoder{level}_1", torch.cat([skips.pop(), features], dim=1))
            features = self._call(last, f"decoder{level}_2", features)
        return crop_to(self.head(features), tuple(image.shape[2:]))

    def _encode(self, image: Tensor) -> list[Tensor]:
        """The features of each level, the deepest last."""
        check_axes(image, self.dims)
        features = pad_to_multiple(image, self.stride)
        levels: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                features = self.downs[level - 1](features)
            for place, block in enumerate(cast(nn.ModuleList, blocks)):
                features = self._call(block, f"encoder{level}_{place}", features)
            levels.append(features)
        return levels

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The feature vector: the mean of each of the deepest features over all of their places."""
        return self._encode(image)[-1].flatten(2).mean(2)

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each level, by the first part of the names that `watch` is told."""
        levels: dict[str, list[nn.Module]] = {
            f"encoder{level}": [blocks, *([self.downs[level - 1]] if level else [])]
            for level, blocks in enumerate(self.encoder)
        }
        levels |= {f"decoder{level}": [blocks] for level, blocks in enumerate(self.decoder)}
        return {name: [p for module in modules for p in module.parameters()] for name, modules in levels.items()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Encoder, decoder and head; a parameter that two paths share counts to the encoder."""
        groups: dict[str, list[nn.Parameter]] = {}
        seen: set[int] = set()
        parts: dict[str, list[nn.Module]] = {
            "encoder": [self.encoder, self.downs],
            "decoder": [self.decoder],
            "head": [self.head],
        }
        for name, modules in parts.items():
            parameters = [parameter for module in modules for parameter in module.parameters()]
            groups[name] = [parameter for parameter in parameters if id(parameter) not in seen]
            seen |= {id(parameter) for parameter in groups[name]}
        return groups
