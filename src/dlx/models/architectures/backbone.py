"""What is made from any backbone (`resnet.py`, `vgg.py`): a classifier, or a U-Net whose encoder it is.

These networks have three named parts: the backbone extracts features, the head predicts, and the neck lies between
them: a decoder, or pooling.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dlx.models.layers.blocks import MAX_GROUPS, ConvBlock, Groups, Norm, check_axes
from dlx.models.network import Network
from dlx.settings.spec import DropoutSpec

Width = Annotated[int, Field(ge=1, le=1024, description="Channels of the first stage; 64 is the published network.")]


class Backbone(nn.Module):
    """(B, C, H, W) -> feature maps, the finest first; map i has `widths[i]` channels and half the sides of map i - 1.

    Each child module is a stage and makes one map. `first_stride` is the downsampling factor of the first map.
    """

    widths: tuple[int, ...]
    first_stride: int

    @property
    def stride(self) -> int:
        """The downsampling factor of the last map; sizes that it divides need no padding."""
        return int(self.first_stride * 2 ** (len(self.widths) - 1))

    def __iter__(self) -> Iterator[nn.Module]:
        """The stages."""
        return self.children()

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Tensor]:
        maps = [image]
        for stage in self:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Classifier(nn.Module):
    """(B, C, H, W) -> logits (B, K): a backbone, pooling to one size, and linear layers.

    `make_backbone` takes channels, width, norm and groups; `make_end` makes neck and head from the channels of the last
    map and the number of classes.
    """

    dims = 2

    def __init__(
        self,
        make_backbone: Callable[[int, int, Norm, Groups], Backbone],
        make_end: Callable[[int, int], tuple[nn.Module, nn.Module]],
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: Width = 64,
        norm: Norm = "batch",
        groups: Groups = MAX_GROUPS,
    ) -> None:
        super().__init__()
        self.backbone = make_backbone(in_channels, width, norm, groups)
        self.neck, self.head = make_end(self.backbone.widths[-1], num_classes)

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K"]:
        check_axes(image, self.dims)
        logits: Tensor = self.head(self.neck(self.backbone(image)[-1]))
        return logits

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The feature vector: the mean of each channel of the last feature map."""
        check_axes(image, self.dims)
        features: Tensor = self.backbone(image)[-1]
        return features.flatten(2).mean(2)

    def weighted_layers(self) -> dict[str, int]:
        """The number of layers with weights between image and logits, by stage: see `count_layers`."""
        return count_stages(self.backbone) | {"head": count_layers(self.head)}


class BackboneUNet(Network):
    """(B, C, H, W) -> logits (B, K, H, W) for any size: a backbone, a decoder that uses all of its maps, a head.

    The decoder is that of `unet2` without its third block: each level upsamples (nearest, x2), convolves, concatenates
    the backbone's map of that size, if there is one, and convolves. Dropout follows each stage of the backbone
    (`every`; `bottleneck`: only the last) and each block of the decoder (`every`, `decoder`); it is never inside a
    residual block. `make_backbone` takes channels, width, norm and groups.
    """

    groups: ClassVar = {"encoder": ("backbone",), "decoder": ("neck",), "head": ("head",)}
    blocks_per_level: ClassVar = {"encoder": 1, "decoder": 2}

    def __init__(
        self,
        make_backbone: Callable[[int, int, Norm, Groups], Backbone],
        in_channels: int,
        num_classes: int,
        dropout: DropoutSpec | None = None,
        *,
        width: Width = 64,
        norm: Norm = "batch",
        groups: Groups = MAX_GROUPS,
    ) -> None:
        super().__init__(dims=2)
        self.backbone = make_backbone(in_channels, width, norm, groups)
        self.stride = self.backbone.stride
        self.neck, last = make_neck(self.backbone, width, norm, groups)
        self.head = nn.Conv2d(last, num_classes, 1)
        self.add_dropouts(dropout)

    def encode(self, image: Tensor) -> list[Tensor]:
        """The backbone's maps, the deepest last."""
        maps = [image]
        for index, stage in enumerate(self.backbone):
            maps.append(self.after_block(f"backbone{index}", stage(maps[-1])))
        return maps[1:]

    def decode(self, maps: list[Tensor]) -> Tensor:
        features = maps.pop()
        for level, blocks in enumerate(self.neck):
            up, merge = cast(nn.ModuleList, blocks)
            features = self.after_block(f"neck{level}_0", up(features, upsample=True))
            if maps:
                features = torch.cat([maps.pop(), features], dim=1)
            features = self.after_block(f"neck{level}_1", merge(features))
        return features

    def weighted_layers(self) -> dict[str, int]:
        """The number of layers with weights, by stage: see `count_layers`."""
        return count_stages(self.backbone) | {"neck": count_layers(self.neck), "head": count_layers(self.head)}


def make_neck(backbone: Backbone, width: int, norm: Norm, groups: Groups) -> tuple[nn.ModuleList, int]:
    """The decoder's blocks, from the deepest level up to the size of the image, and the channels of the last level.

    A level is as wide as the backbone's map of its size, but at most 4 `width`. Levels finer than the first map, which
    have no map to concatenate, halve the width.
    """
    before, skips = backbone.widths[-1], list(backbone.widths[:-1])
    neck, stride, after = nn.ModuleList(), backbone.stride, before
    while stride > 1:
        skip = skips.pop() if skips else 0
        after = min(skip, 4 * width) if skip else max(1, before // 2)
        up = ConvBlock(before, after, norm, groups=groups)
        neck.append(nn.ModuleList([up, ConvBlock(skip + after, after, norm, groups=groups)]))
        before, stride = after, stride // 2
    return neck, after


def count_stages(backbone: Backbone) -> dict[str, int]:
    """The weighted layers of each stage of a backbone, by name."""
    return {name: count_layers(stage) for name, stage in backbone.named_children()}


def count_layers(module: nn.Module) -> int:
    """The number of convolutions and linear layers in the module, without those on shortcuts.

    The number in a network's name counts these layers: neither projections on ResNet's shortcuts (He et al. 2015,
    table 1) nor norms are included.
    """
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in _main_path(module))


def _main_path(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    for name, child in module.named_children():
        if name != "shortcut":
            yield from _main_path(child)
