"""The two U-Nets: parameters worked by hand, their blocks, ways down and up, and where dropout is."""

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dlx.models.architectures.unet import unet, unet2
from dlx.models.layers.blocks import ConvBlock, make_down, make_norm
from dlx.models.layers.dropout import Dropout, dropout_modules
from dlx.settings.spec import DropoutSpec
from dlx.system.errors import SettingError
from made_networks import fitting, image_for, make


@pytest.mark.parametrize("factory", [unet, unet2])
@pytest.mark.parametrize("levels", [1, 2, 7])
def test_stride_is_two_to_the_levels_less_one(factory, levels):
    model = factory(2, 4, width=1, levels=levels).eval()
    assert model.stride == 2 ** (levels - 1)
    assert model(torch.zeros(1, 2, 5, 5)).shape == (1, 4, 5, 5)


def test_parameters_of_the_two_networks_worked_by_hand():
    def block(before, after):
        return 9 * before * after + after + 2 * after  # 3x3 weights, bias, batch norm's scale and shift

    encoder = sum(block(a, b) for a, b in [(2, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)])
    encoder += block(256, 512) + block(512, 512)
    narrowing = block(512, 256) + block(256, 128) + block(128, 64)
    keeping = block(64, 64) + block(128, 128) + block(256, 256)
    head = 64 * 4 + 4
    count = [sum(p.numel() for p in factory(2, 4).parameters()) for factory in (unet, unet2)]
    assert count == [encoder + narrowing + head, encoder + 2 * narrowing + keeping + head]
    assert count[1] - count[0] == 2_325_120


def test_parameters_of_the_other_ways_worked_by_hand():
    def block(before, after, taps=27):
        return taps * before * after + after + 2 * after  # weights, bias, the norm's scale and shift

    def up(before, after):
        return 8 * before * after + after  # a transposed 2 x 2 x 2 convolution with bias, without a norm

    options = {"width": 32, "levels": 6, "dims": 3, "norm": "instance", "up": "transposed", "max_width": 320}
    with torch.device("meta"):
        model = unet2(1, 3, **options, activation="leaky-relu")
    widths = [32, 64, 128, 256, 320, 320]
    expected = sum(block(a, b) + block(b, b) for a, b in itertools.pairwise([1, *widths]))
    expected += sum(up(b, a) + block(2 * a, a) + block(a, a) for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == expected + 32 * 3 + 3


@pytest.mark.parametrize("dims", [2, 3])
def test_a_transposed_convolution_and_a_leaky_relu_are_where_they_belong(dims):
    torch.manual_seed(0)
    model = unet2(2, 4, width=4, levels=2, dims=dims, norm="none", up="transposed", activation="leaky-relu")
    weights, image = model.state_dict(), image_for(model, *[8] * dims)
    conv, pool, transposed = {
        2: (F.conv2d, F.max_pool2d, F.conv_transpose2d),
        3: (F.conv3d, F.max_pool3d, F.conv_transpose3d),
    }[dims]

    def layer(function, name, x, **options):
        return function(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def block(name, x):
        x = layer(conv, f"{name}.conv", x, padding=1)
        return torch.where(x > 0, x, 0.01 * x)

    skip = block("encoder.0.1", block("encoder.0.0", image))
    deep = block("encoder.1.1", block("encoder.1.0", pool(skip, 2)))
    merged = block("decoder.0.1", torch.cat([skip, layer(transposed, "decoder.0.0", deep, stride=2)], 1))
    expected = layer(conv, "head", block("decoder.0.2", merged))
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("options", [{"up": "transposed"}, {"activation": "leaky-relu"}, {"max_width": 6}], ids=str)
def test_every_other_way_trains_in_channels_last(dims, norm, options):
    model = unet2(2, 4, DropoutSpec(p=0.1), width=4, levels=3, dims=dims, norm=norm, **options)
    memory_format = torch.channels_last if dims == 2 else torch.channels_last_3d
    image = image_for(model, *[13] * dims).to(memory_format=memory_format)
    logits = model.to(memory_format=memory_format)(image)
    assert logits.shape == (2, 4, *[13] * dims)
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"up": "transposed"}, {"max_width": 6}], ids=str)
def test_what_shared_blocks_cannot_be_is_refused(options):
    with pytest.raises(SettingError, match=f"{next(iter(options))}=.*unet2"):
        unet(2, 4, width=4, levels=3, **options)


def test_a_cap_below_the_first_level_is_refused():
    with pytest.raises(SettingError, match=r"max_width 8 .* 16"):
        unet2(2, 4, width=16, max_width=8)


def reference_logits(weights, image, is_shared):
    """The notes' network of two levels in plain functions, evaluated: the blocks are named as in their description."""

    def block(name, x):
        w = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        x = F.conv2d(x, w["conv.weight"], w["conv.bias"], padding=1)
        mean, var = w["norm.running_mean"], w["norm.running_var"]
        return F.relu(F.batch_norm(x, mean, var, w["norm.weight"], w["norm.bias"]))

    skip = block("encoder.0.1", block("encoder.0.0", image))
    deep = block("encoder.1.1", block("encoder.1.0", F.max_pool2d(skip, 2)))
    up = block("decoder.0.0", deep.repeat_interleave(2, 2).repeat_interleave(2, 3))
    merged = block("decoder.0.0" if is_shared else "decoder.0.1", torch.cat([skip, up], 1))
    last = block("encoder.0.1" if is_shared else "decoder.0.2", merged)
    return F.conv2d(last, weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize(("factory", "is_shared"), [(unet, True), (unet2, False)])
def test_logits_are_those_of_the_same_network_written_in_plain_functions(factory, is_shared):
    torch.manual_seed(0)
    model = factory(2, 4, width=5, levels=2)
    image = image_for(model, 8, 12)
    model(image)  # running statistics that are not 0 and 1
    model.eval()
    torch.testing.assert_close(model(image), reference_logits(model.state_dict(), image, is_shared))


def test_the_two_networks_start_with_the_same_encoder():
    torch.manual_seed(3)
    first = unet(2, 4, width=4).encoder.state_dict()
    torch.manual_seed(3)
    second = unet2(2, 4, width=4).encoder.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("factory", [unet, unet2])
@pytest.mark.parametrize(("where", "count"), [("every", 8 + 9), ("decoder", 9), ("bottleneck", 2)])
def test_dropout_is_where_it_was_asked_for_and_each_is_called_once(factory, where, count):
    model = factory(2, 4, DropoutSpec(p=0.5, where=where), width=2)
    calls = []
    for module in dropout_modules(model):
        module.register_forward_hook(lambda module, args, output: calls.append(module))
    model(image_for(model, 16, 16))
    assert len(calls) == len(set(calls)) == count


@pytest.mark.parametrize("factory", [unet, unet2])
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("where", ["every", "decoder", "bottleneck"])
def test_a_dropout_follows_each_block_that_was_asked_for_and_no_other(factory, levels, where):
    model = factory(2, 4, DropoutSpec(p=0.0, where=where), width=2, levels=levels).eval()
    order = []
    for module in model.modules():
        if isinstance(module, ConvBlock | Dropout):
            module.register_forward_hook(lambda module, args, output: order.append(type(module)))
    model(image_for(model, 16, 16))
    encoder, decoder = 2 * levels, 3 * (levels - 1)  # blocks that are called
    has_dropout = {
        "every": [True] * (encoder + decoder),
        "decoder": [False] * encoder + [True] * decoder,
        "bottleneck": [False] * (encoder - 2) + [True] * 2 + [False] * decoder,
    }[where]
    assert order == list(itertools.chain(*([ConvBlock, Dropout] if has else [ConvBlock] for has in has_dropout)))


@pytest.mark.parametrize("dims", [2, 3])
def test_unet2_with_the_weights_of_unet_in_each_place_gives_the_same_logits(dims):
    shared, mended = make("unet", {"dims": dims}).eval(), make("unet2", {"dims": dims}).eval()
    image = image_for(shared, *fitting(shared))
    assert not torch.equal(shared(image), mended(image))
    mended.load_state_dict(shared.state_dict())
    assert torch.equal(shared(image), mended(image))


def test_dropout_in_the_decoder_leaves_what_a_shared_block_gives_the_encoder():
    model = unet(2, 4, DropoutSpec(p=0.9, where="decoder"), width=4, levels=2)
    pooled = []
    model.downs[0].register_forward_pre_hook(lambda module, args: pooled.append(args[0].clone()))
    image = image_for(model, 8, 8)
    model(image)
    model.dropouts.clear()
    model(image)
    assert torch.equal(*pooled)


@pytest.mark.parametrize("factory", [unet, unet2])
def test_in_3d_convolutions_norms_and_dropout_are_of_volumes(factory):
    model = factory(2, 4, DropoutSpec(p=0.5, kind="dropout3d"), width=4, levels=2, dims=3)
    layers = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(layer, nn.Conv3d) for layer in layers)
    assert all(isinstance(norm, nn.BatchNorm3d) for norm in norms)
    features = model.dropouts["encoder0_0"](torch.ones(4, 8, 4, 4, 4)).flatten(2)
    assert ((features == 0).all(2) | (features == 2).all(2)).all()  # whole channels
    model(image_for(model, 8, 8, 8)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_dropout_in_the_decoder_of_one_level_is_refused():
    with pytest.raises(SettingError, match="one level"):
        unet2(2, 4, DropoutSpec(p=0.5, where="decoder"), levels=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_is_torch_s_own(dims):
    theirs = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](6, affine=True)
    ours = make_norm("instance", 6, dims)
    features = torch.randn(2, 6, *[5] * dims, generator=torch.Generator().manual_seed(1))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factory", [unet, unet2])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("down", ["max", "average", "conv"])
@pytest.mark.parametrize("down_norm", ["none", "batch", "instance", "group"])
def test_every_way_down_trains_with_and_without_a_norm_after_it(factory, dims, down, down_norm):
    model = factory(2, 4, width=4, levels=3, dims=dims, down=down, down_norm=down_norm)
    logits = model(image_for(model, *fitting(model)))
    logits.square().mean().backward()
    assert logits.shape == (2, 4, *fitting(model))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert len(model.parameter_groups()["encoder"]) == len(list(model.encoder.parameters())) + len(
        list(model.downs.parameters())
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_each_way_down_halves_as_torch_does(dims):
    features = torch.randn(2, 6, *[4] * dims, generator=torch.Generator().manual_seed(1))
    pools = {2: (F.max_pool2d, F.avg_pool2d, F.conv2d), 3: (F.max_pool3d, F.avg_pool3d, F.conv3d)}[dims]
    assert torch.equal(make_down("max", "none", 6, dims)(features), pools[0](features, 2))
    assert torch.equal(make_down("average", "none", 6, dims)(features), pools[1](features, 2))
    conv = make_down("conv", "none", 6, dims)
    expected = pools[2](features, conv.weight, conv.bias, stride=2, padding=1)
    assert torch.equal(conv(features), expected)
    normed = make_down("conv", "batch", 6, dims)
    after = normed(features).transpose(0, 1).flatten(1)
    torch.testing.assert_close(after.mean(1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.var(1, correction=0), torch.ones(6), rtol=1e-2, atol=1e-2)


def test_networks_that_differ_in_the_way_down_start_with_the_same_blocks():
    torch.manual_seed(3)
    pooled = unet2(2, 4, width=4).state_dict()
    torch.manual_seed(3)
    strided = unet2(2, 4, width=4, down="conv", down_norm="batch").state_dict()
    assert all(torch.equal(strided[key], pooled[key]) for key in pooled)
    assert {key.split(".")[0] for key in strided.keys() - pooled.keys()} == {"downs"}


def test_strided_convolutions_without_norms_let_the_features_fall_and_batch_norm_holds_them():
    # the notes' claim, at torch's default initialisation: the mean absolute value of the features at each level
    def magnitudes(norm, down_norm):
        torch.manual_seed(0)
        model = unet2(2, 4, width=8, levels=5, norm=norm, down="conv", down_norm=down_norm)
        return [features.abs().mean().item() for features in model.encode(image_for(model, 64, 64, batch=4))]

    bare, normed = magnitudes("none", "none"), magnitudes("batch", "batch")
    assert bare[-1] < 0.1 * bare[0]
    assert normed[-1] > 0.5 * normed[0]
