"""ResNet and VGG: published counts, MONAI's ResNet, the VGG paper's table, and what every classifier must do."""

import pytest
import torch
from monai.networks.nets import resnet as monai_resnet
from torch import nn

from dlx.models.architectures.backbone import count_layers
from dlx.models.architectures.resnet import ResidualBlock
from dlx.models.layers.dropout import Dropout, dropout_modules
from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.settings.spec import DropoutSpec
from dlx.system.errors import SettingError

# 3 channels, 1000 classes: what torchvision's documentation gives
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
}
# the notes' arithmetic: 18 = 16 + 2; 34 = 16 x 2 + 2; 50 has 16 more; 101 more in stage 4; 152 more in stages 3 and 4
LAYERS = {
    "resnet18": {"stem": 1, "stage2": 4, "stage3": 4, "stage4": 4, "stage5": 4, "head": 1},
    "resnet34": {"stem": 1, "stage2": 6, "stage3": 8, "stage4": 12, "stage5": 6, "head": 1},
    "resnet50": {"stem": 1, "stage2": 9, "stage3": 12, "stage4": 18, "stage5": 9, "head": 1},
    "resnet101": {"stem": 1, "stage2": 9, "stage3": 12, "stage4": 69, "stage5": 9, "head": 1},
    "resnet152": {"stem": 1, "stage2": 9, "stage3": 24, "stage4": 108, "stage5": 9, "head": 1},
    "vgg16": {"stage1": 2, "stage2": 2, "stage3": 3, "stage4": 3, "stage5": 3, "head": 3},
}
# Simonyan and Zisserman 2014, table 1, columns A, B, D, E; M is a pooling
VGG_TABLE = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
NAMES = sorted(registry.PARTS["classifier"])
UNETS = [name for name in sorted(registry.PARTS["model"]) if name.startswith(("unet-resnet", "unet-vgg"))]


@pytest.fixture(scope="module")
def on_meta():
    """Every classifier with its defaults, without memory for its weights."""
    with torch.device("meta"):
        return {name: registry.load("classifier", name)() for name in NAMES}


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def small(name, *args, **settings):
    torch.manual_seed(0)
    kind = "model" if name in UNETS else "classifier"
    return registry.load(kind, name)(*args, width=4, **settings)


def copy_in_order(source, target):
    """Every tensor of a network into the other's, in the order in which the two make them."""
    ours, theirs = (list(model.state_dict().values()) for model in (source, target))
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in theirs]
    for tensor, value in zip(theirs, ours, strict=True):
        tensor.copy_(value)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_published(name, on_meta):
    assert size(on_meta[name]) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_number_in_the_name_is_that_of_the_weighted_layers(name, on_meta):
    layers = on_meta[name].weighted_layers()
    assert sum(layers.values()) == int("".join(filter(str.isdigit, name)))
    assert layers == LAYERS.get(name, layers)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_backbone_neck_and_head(name, on_meta):
    assert [name for name, _ in on_meta[name].named_children()] == ["backbone", "neck", "head"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_becomes_maps_and_logits(name, on_meta):
    model = on_meta[name]
    image = torch.empty(2, 3, 224, 224, device="meta")
    assert model(image).shape == (2, 1000)
    maps = model.backbone(image)
    assert [tensor.shape[1] for tensor in maps] == list(model.backbone.widths)
    sides = [tensor.shape[2] for tensor in maps]
    assert sides == [224 // model.backbone.first_stride // 2**index for index in range(5)]
    with pytest.raises(ValueError, match="takes"):
        model(image[0])


def test_an_embedding_is_the_mean_of_each_of_the_last_map_s_channels():
    model = small("resnet18", 3, 5).eval()
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    embedding = model.embed(image)
    assert embedding.shape == (2, 32)
    torch.testing.assert_close(embedding, model.backbone(image)[-1].mean((2, 3)))
    torch.testing.assert_close(model(image), model.head(embedding))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("resnet")])
def test_resnet_is_monai_s(name):
    build = getattr(monai_resnet, name)
    settings = {"shortcut_type": "B", "bias_downsample": False, "conv1_t_stride": 2, "widen_factor": 1 / 16}
    theirs = build(spatial_dims=2, n_input_channels=3, num_classes=10, **settings).eval()
    ours = small(name, 3, 10).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in ours.state_dict().items():
            if "running" in key:  # as after some training
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        copy_in_order(ours, theirs)
        image = torch.randn(2, 3, 64, 50, generator=generator)
        expected = theirs(image)
        assert expected.std() > 0
        torch.testing.assert_close(ours(image), expected, rtol=1e-4, atol=1e-5)
    assert size(ours) == size(theirs)


def vgg_of_the_table(name, width, num_classes, *, with_norm):
    layers, before = [], 3
    for item in VGG_TABLE[name].split():
        if item == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        after = int(item) * width // 64
        layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if with_norm else []), nn.ReLU()]
        before = after
    head = [nn.Linear(49 * before, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, num_classes)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("vgg")])
def test_vgg_is_that_of_the_paper_s_table(name):
    plain = vgg_of_the_table(name.removesuffix("_bn"), 4, 10, with_norm=name.endswith("_bn")).eval()
    ours = small(name, 3, 10).eval()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        copy_in_order(ours, plain)
        torch.testing.assert_close(ours(image), plain(image), rtol=1e-4, atol=1e-6)


def test_the_3x3_convolution_of_a_bottleneck_has_the_stride():
    block = ResidualBlock(8, 4, 2, "batch", 8, is_bottleneck=True)
    assert [layer.conv.stride for layer in block.layers] == [(1, 1), (2, 2), (1, 1)]
    assert [layer.conv.kernel_size for layer in block.layers] == [(1, 1), (3, 3), (1, 1)]


def test_a_shortcut_is_the_identity_where_nothing_changes_and_is_not_counted_where_it_does():
    assert isinstance(ResidualBlock(4, 4, 1, "batch", 8, is_bottleneck=False).shortcut, nn.Identity)
    assert count_layers(ResidualBlock(4, 8, 2, "batch", 8, is_bottleneck=False)) == 2


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
def test_convolutions_of_resnet_have_a_bias_where_no_norm_follows(norm):
    model = small("resnet18", norm=norm)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all((layer.bias is not None) == (norm == "none") for layer in convolutions)


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_channels_and_any_size_is_classified(name):
    model = small(name, 1, 5).eval()
    assert model(torch.zeros(1, 1, 33, 47)).shape == (1, 5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11"])
def test_every_parameter_of_a_classifier_gets_a_finite_gradient(name):
    model = small(name, 3, 5)
    model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", UNETS)
def test_the_encoder_of_a_unet_is_the_classifier_s_backbone(name):
    classifier = name.removeprefix("unet-") + ("_bn" if "vgg" in name else "")
    with torch.device("meta"):
        unet, other = registry.load("model", name)(3, 4), registry.load("classifier", classifier)()
    shapes = [{key: value.shape for key, value in model.backbone.state_dict().items()} for model in (unet, other)]
    assert shapes[0] == shapes[1]
    assert [part for part, _ in unet.named_children()] == ["backbone", "neck", "head", "dropouts"]
    layers = unet.weighted_layers()
    assert list(layers)[-2:] == ["neck", "head"]
    assert list(layers.items())[:-2] == list(other.weighted_layers().items())[:-1]


@pytest.mark.parametrize("name", ["unet-resnet18", "unet-vgg11"])
@pytest.mark.parametrize("where", ["every", "decoder", "bottleneck"])
def test_dropout_follows_stages_and_blocks_that_were_asked_for_and_each_is_called_once(name, where):
    model = small(name, 2, 4, DropoutSpec(p=0.5, where=where))
    calls = []
    for module in dropout_modules(model):
        module.register_forward_hook(lambda module, args, output: calls.append(module))
    model(torch.randn(2, 2, 32, 32))
    blocks = 2 * len(model.neck)
    assert len(calls) == len(set(calls)) == {"every": 5 + blocks, "decoder": blocks, "bottleneck": 1}[where]
    assert all(isinstance(module, Dropout) for module in calls)


def test_the_neck_ends_at_the_size_of_the_image_and_takes_every_map():
    # by hand, width 4: maps of 4, 4, 8, 16 and 32 channels at 1/2 to 1/32, then a level of half the width without one
    neck = small("unet-resnet18", 2, 4).neck
    shapes = [[(block.conv.in_channels, block.conv.out_channels) for block in level] for level in neck]
    assert shapes == [[(32, 16), (32, 16)], [(16, 8), (16, 8)], [(8, 4), (8, 4)], [(4, 4), (8, 4)], [(4, 2), (2, 2)]]


@pytest.mark.parametrize(("name", "args"), [("resnet18", {"width": 0}), ("vgg16", {"norm": "layer"})])
def test_a_setting_of_a_classifier_that_does_not_fit_is_named(name, args):
    with pytest.raises(SettingError, match=next(iter(args))):
        bind_arguments("classifier", name, registry.load("classifier", name), args)
