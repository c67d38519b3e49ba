"""ResNet-18 to 152 (He et al. 2015, arXiv 1512.03385), each as a table of blocks; classifiers and encoders of U-Nets.

This is version 1.5: in a bottleneck that halves the size, the 3x3 convolution has the stride. In the paper (version 1)
the first 1x1 convolution has it and ignores three quarters of its input; parameters are the same. Shortcuts are
the paper's option B: a 1x1 convolution where the size or width changes, else the identity. Convolutions have no bias
where a norm follows. Stages are numbered as in the paper's table 1, stage2 being its conv2_x; the stem is the first.
Initial weights are torch's default; `init=kaiming-normal:mode=fan_out` gives those usual for ResNet.
"""

from functools import partial

import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from jaxtyping import Float
from torch import Tensor, nn

from dlx.models.architectures.backbone import Backbone, BackboneUNet, Classifier
from dlx.models.layers.blocks import Groups, Norm, make_norm

# depth -> blocks of the stages, and whether they are bottlenecks. A stage of basic blocks has 2 layers a block, one of
# bottlenecks 3: 18 = 1 + 2 (2 + 2 + 2 + 2) + 1, 50 = 1 + 3 (3 + 4 + 6 + 3) + 1.
STAGES: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
EXPANSION = 4  # the width of a bottleneck's output divided by that of its 3x3 convolution


class ConvNorm(nn.Module):
    """A convolution and a norm."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int, norm: Norm, groups: Groups) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=norm == "none")
        self.norm = make_norm(norm, out_channels, 2, groups)

    def forward(self, features: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        normed: Tensor = self.norm(self.conv(features))
        return normed


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or the bottleneck 1x1, 3x3, 1x1; the input is added before the last ReLU."""

    def __init__(
        self, in_channels: int, width: int, stride: int, norm: Norm, groups: Groups, *, is_bottleneck: bool
    ) -> None:
        super().__init__()
        out_channels = EXPANSION * width if is_bottleneck else width
        if is_bottleneck:
            shapes = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, out_channels, 1, 1)]
        else:
            shapes = [(in_channels, width, 3, stride), (width, width, 3, 1)]
        self.layers = nn.ModuleList(ConvNorm(*shape, norm, groups) for shape in shapes)
        is_same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if is_same else ConvNorm(in_channels, out_channels, 1, stride, norm, groups)

    def forward(self, features: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        *layers, last = self.layers
        residual = features
        for layer in layers:
            residual = F.relu(layer(residual), inplace=True)
        return F.relu(last(residual) + self.shortcut(features), inplace=True)


class Stem(nn.Module):
    """The 7x7 convolution with stride 2, norm, ReLU."""

    def __init__(self, in_channels: int, width: int, norm: Norm, groups: Groups) -> None:
        super().__init__()
        self.layer = ConvNorm(in_channels, width, 7, 2, norm, groups)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O h w"]:
        return F.relu(self.layer(image), inplace=True)


class ResNet(Backbone):
    """The stem and four stages, widths doubling; maps at 1/2 (the stem's), 1/4, 1/8, 1/16 and 1/32 of the image."""

    first_stride = 2

    def __init__(self, depth: int, in_channels: int, width: int, norm: Norm, groups: Groups) -> None:
        super().__init__()
        counts, is_bottleneck = STAGES[depth]
        expansion = EXPANSION if is_bottleneck else 1
        self.widths = (width, *(expansion * width * 2**stage for stage in range(4)))
        self.stem = Stem(in_channels, width, norm, groups)
        for stage, count in enumerate(counts):
            blocks: list[nn.Module] = [nn.MaxPool2d(3, 2, 1)] if stage == 0 else []
            for block in range(count):
                before = self.widths[stage if block == 0 else stage + 1]
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(
                    ResidualBlock(before, width * 2**stage, stride, norm, groups, is_bottleneck=is_bottleneck)
                )
            self.add_module(f"stage{stage + 2}", nn.Sequential(*blocks))


def _pool_and_classify(channels: int, num_classes: int) -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(channels, num_classes)


def _classifier(depth: int) -> partial[Classifier]:
    factory = partial(Classifier, partial(ResNet, depth), _pool_and_classify)
    factory.__doc__ = f"ResNet-{depth}, for images of any size."
    return factory


def _unet(depth: int) -> partial[BackboneUNet]:
    factory = partial(BackboneUNet, partial(ResNet, depth))
    factory.__doc__ = f"A U-Net whose encoder is ResNet-{depth}."
    return factory


resnet18, resnet34, resnet50, resnet101, resnet152 = map(_classifier, STAGES)
unet_resnet18, unet_resnet34, unet_resnet50, unet_resnet101, unet_resnet152 = map(_unet, STAGES)
