"""What any backbone makes: a classifier, or the encoder of a U-Net; the backbones are in `resnet.py` and `vgg.py`.

A network here has three named parts: the backbone extracts features, the head predicts, and the neck is what lies
between them: a decoder, or pooling.
"""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.models.blocks import ConvBlock, Groups, Norm, Watch, check_axes, crop_to, make_dropouts, pad_to_multiple
from dlx.settings.spec import DropoutSpec


class Backbone(nn.Module):
    """(B, C, H, W) -> feature maps, the finest first; a map has `widths[i]` channels, and half the sides of the last.

    A stage is a child module. `first_stride` is by how much the first map is smaller than the image.
    """

    widths: tuple[int, ...]
    first_stride: int

    @property
    def stride(self) -> int:
        """By how much the last map is smaller than the image; sizes that it divides need no padding."""
        return int(self.first_stride * 2 ** (len(self.widths) - 1))


def embedding(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
    """The feature vector of a feature map: the mean of each channel over all places."""
    return features.flatten(2).mean(2)


class Classifier(nn.Module):
    """(B, C, H, W) -> logits (B, K): a backbone, pooling to one size, and linear layers."""

    dims = 2

    def __init__(self, backbone: Backbone, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K"]:
        check_axes(image, self.dims)
        logits: Tensor = self.head(self.neck(self.backbone(image)[-1]))
        return logits

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The feature vector: the mean of each channel of the last feature map."""
        check_axes(image, self.dims)
        return embedding(self.backbone(image)[-1])

    def weighted_layers(self) -> dict[str, int]:
        """The layers with weights on the way from image to logits, by stage: see `count_layers`."""
        return count_stages(self.backbone) | {"head": count_layers(self.head)}


class BackboneUNet(nn.Module):
    """(B, C, H, W) -> logits (B, K, H, W) for any size: a backbone, a decoder that takes each of its maps, a head.

    The decoder is that of `unet2` without its third block: at each level it upsamples (nearest, x2), convolves,
    concatenates with the backbone's map of that size, where there is one, and convolves. Sizes that `stride` does not
    divide are padded with zeros and the logits cropped back. Dropout follows each stage of the backbone (`every`, the
    last alone with `bottleneck`), never inside a residual block, and each block of the decoder (`every`, `decoder`).
    """

    dims = 2

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        dropout: DropoutSpec | None,
        width: int,
        norm: Norm,
        groups: Groups,
    ) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self.stride = backbone.stride
        self.backbone = backbone
        self.neck, last = make_neck(backbone, width, norm, groups)
        self.head = nn.Conv2d(last, num_classes, 1)
        stages = [f"backbone{index}" for index in range(len(backbone.widths))]
        blocks = [f"neck{level}_{place}" for level in range(len(self.neck)) for place in range(2)]
        self.dropouts = make_dropouts(dropout, 2, encoder=stages, decoder=blocks, bottleneck=stages[-1:])

    def _drop(self, place: str, features: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch(place, features)
        return self.dropouts[place](features) if place in self.dropouts else features

    def _encode(self, image: Tensor) -> list[Tensor]:
        """The backbone's maps, the deepest last."""
        check_axes(image, self.dims)
        maps = [pad_to_multiple(image, self.stride)]
        for index, stage in enumerate(self.backbone.children()):
            maps.append(self._drop(f"backbone{index}", stage(maps[-1])))
        return maps[1:]

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B K *S"]:
        *skips, features = self._encode(image)
        for level, blocks in enumerate(self.neck):
            up, merge = cast(nn.ModuleList, blocks)
            features = self._drop(f"neck{level}_0", up(features, upsample=True))
            if skips:
                features = torch.cat([skips.pop(), features], dim=1)
            features = self._drop(f"neck{level}_1", merge(features))
        return crop_to(self.head(features), tuple(image.shape[2:]))

    def embed(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B F"]:
        """The feature vector: the mean of each channel of the backbone's last feature map."""
        return embedding(self._encode(image)[-1])

    def level_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each level, by the first part of the names that `watch` is told."""
        stages = {f"backbone{index}": stage for index, stage in enumerate(self.backbone.children())}
        levels = stages | {f"neck{level}": blocks for level, blocks in enumerate(self.neck)}
        return {name: list(module.parameters()) for name, module in levels.items()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Encoder (the backbone), decoder (the neck) and head."""
        parts = {"encoder": self.backbone, "decoder": self.neck, "head": self.head}
        return {name: list(part.parameters()) for name, part in parts.items()}

    def weighted_layers(self) -> dict[str, int]:
        """The layers with weights by stage: see `count_layers`."""
        return count_stages(self.backbone) | {"neck": count_layers(self.neck), "head": count_layers(self.head)}


def make_neck(backbone: Backbone, width: int, norm: Norm, groups: Groups) -> tuple[nn.ModuleList, int]:
    """The decoder's blocks from the deepest level up to the image's own size, and how many channels the last gives.

    A level is as wide as the backbone's map of its size, but no wider than 4 `width`, and finer levels than the first
    map, for which there is nothing to concatenate, halve the width.
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
    """How many convolutions and linear layers a path through the module passes, shortcuts left out.

    It is what the number in a network's name counts: the projections on ResNet's shortcuts are not in it (He et al.
    2015, table 1), and normalisation has no part in it.
    """
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in _main_path(module))


def _main_path(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    for name, child in module.named_children():
        if name != "shortcut":
            yield from _main_path(child)
