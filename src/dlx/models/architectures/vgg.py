"""VGG-11 to 19 (Simonyan and Zisserman 2014, arXiv 1409.1556, table 1: A, B, D, E), with and without batch norm.

Classifiers and encoders of U-Nets. All convolutions are 3x3 with bias, as in the paper; batch norm is later (Ioffe and
Szegedy 2015). Initial weights are torch's default.
"""

from functools import partial

from torch import nn

from dlx.models.architectures.backbone import Backbone, BackboneUNet, Classifier
from dlx.models.layers.blocks import ConvBlock, Groups, Norm

# depth -> convolutions of the stages; three linear layers make up the number: 16 = 2 + 2 + 3 + 3 + 3 + 3
STAGES: dict[int, tuple[int, int, int, int, int]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
LINEAR_WIDTH = 4096  # of the classifier's two hidden layers
POOLED_PX = 7  # the side of their input: an image of 224 pixels, halved five times


class VGG(Backbone):
    """Five stages of ConvBlocks with 2x2 max-pooling between them; maps at 1/1, 1/2, 1/4, 1/8 and 1/16 of the image.

    Widths double up to eight times the first. The fifth pooling is in the neck of the classifier.
    """

    first_stride = 1

    def __init__(self, depth: int, in_channels: int, width: int, norm: Norm, groups: Groups) -> None:
        super().__init__()
        self.widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
        for stage, (count, after) in enumerate(zip(STAGES[depth], self.widths, strict=True)):
            before = in_channels if stage == 0 else self.widths[stage - 1]
            blocks = [ConvBlock(before if block == 0 else after, after, norm, groups=groups) for block in range(count)]
            pool = [nn.MaxPool2d(2)] if stage > 0 else []
            self.add_module(f"stage{stage + 1}", nn.Sequential(*pool, *blocks))


def _pool_and_classify(channels: int, num_classes: int) -> tuple[nn.Module, nn.Module]:
    neck = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(POOLED_PX), nn.Flatten())
    head = nn.Sequential(
        nn.Linear(channels * POOLED_PX**2, LINEAR_WIDTH),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(LINEAR_WIDTH, LINEAR_WIDTH),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(LINEAR_WIDTH, num_classes),
    )
    return neck, head


def _classifier(depth: int, default: Norm) -> partial[Classifier]:
    factory = partial(Classifier, partial(VGG, depth), _pool_and_classify, norm=default)
    factory.__doc__ = f"VGG-{depth}, for images of 32 pixels a side or more."
    return factory


def _unet(depth: int) -> partial[BackboneUNet]:
    factory = partial(BackboneUNet, partial(VGG, depth))
    factory.__doc__ = f"A U-Net whose encoder is VGG-{depth}, by default with batch norm."
    return factory


vgg11, vgg13, vgg16, vgg19 = (_classifier(depth, "none") for depth in STAGES)
vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn = (_classifier(depth, "batch") for depth in STAGES)
unet_vgg11, unet_vgg13, unet_vgg16, unet_vgg19 = map(_unet, STAGES)
