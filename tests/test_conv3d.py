"""3D convolutions in bf16 on a CPU against float32, for shapes at which oneDNN's own kernels are wrong."""

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from dlx.models.architectures.unet import unet2
from dlx.models.layers.conv3d import Conv3d, ConvTranspose3d, weight_gradient

BF16_TOLERANCE = 0.01  # bf16 rounds each value by up to 0.4 %; the wrong kernel is off by 90 %


def gradients(layer, features, upstream, *, is_bf16):
    """The output and the gradients of features, weight and bias."""
    features = features.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        output = layer(features)
    assert output.dtype == (torch.bfloat16 if is_bf16 else torch.float32)
    found = torch.autograd.grad(output, [features, layer.weight, layer.bias], upstream.to(output.dtype))
    return [output, *found]


def distance(value, reference):
    return float((value.float() - reference).detach().norm() / reference.detach().norm())


def rounded(*sizes):
    """Random values that bf16 represents, so that only the arithmetic differs."""
    values = torch.randn(sizes, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    return values.contiguous(memory_format=torch.channels_last_3d) if len(sizes) == 5 else values


def assert_near_float32(layer, sizes, batch=2):
    layer = layer.to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        layer.weight.copy_(rounded(*layer.weight.shape))
    features = rounded(batch, layer.in_channels, *sizes)
    upstream = rounded(*layer(features).shape)
    names = ["output", "features", "weight", "bias"]
    for name, value, reference in zip(
        names,
        gradients(layer, features, upstream, is_bf16=True),
        gradients(layer, features, upstream, is_bf16=False),
        strict=True,
    ):
        assert distance(value, reference) < BF16_TOLERANCE, name


DEPTHS = [1, 2, 3, 6]
SIDES = [(1, 1), (2, 9), (7, 1), (5, 6)]


@pytest.mark.parametrize(("depth", "sides"), list(itertools.product(DEPTHS, SIDES)))
@pytest.mark.parametrize("channels", [(1, 16), (16, 16), (24, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_in_bf16_has_the_gradients_of_float32(depth, sides, channels, stride):
    torch.manual_seed(0)
    assert_near_float32(Conv3d(*channels, 3, stride, padding=1), (depth, *sides))


@pytest.mark.parametrize(
    "options",
    [{"groups": 4}, {"dilation": 2, "padding": 2}, {"padding": "same"}, {"padding_mode": "replicate"}],
    ids=["groups", "dilation", "padding by name", "padding mode"],
)
def test_a_convolution_with_other_options_has_them_too(options):
    torch.manual_seed(0)
    assert_near_float32(Conv3d(8, 8, 3, **{"padding": 1} | options), (5, 6, 7))


@pytest.mark.parametrize("sizes", [(5, 9, 3), (5, 28, 20), (3, 24, 20)])
@pytest.mark.parametrize("channels", [(16, 1), (3, 33)])
def test_a_kernel_of_two_with_a_stride_has_the_gradients_of_float32(sizes, channels):
    torch.manual_seed(0)
    assert_near_float32(Conv3d(*channels, 2, 2), sizes)


@pytest.mark.parametrize(
    ("channels", "sizes"), [((24, 33), (4, 5, 1)), ((16, 256), (1, 24, 9)), ((5, 256), (2, 28, 16))]
)
def test_a_transposed_convolution_has_the_gradients_of_float32(sizes, channels):
    torch.manual_seed(0)
    layer = ConvTranspose3d(*channels, 2, stride=2)
    assert_near_float32(layer, sizes, batch=3)


@pytest.mark.parametrize(("depth", "sides"), list(itertools.product(DEPTHS, SIDES)))
@pytest.mark.parametrize("kind", ["one by one", "transposed"])
def test_the_other_convolutions_of_our_networks_have_them_too(depth, sides, kind):
    torch.manual_seed(0)
    layer = ConvTranspose3d(16, 8, 2, stride=2) if kind == "transposed" else Conv3d(16, 3, 1)
    assert_near_float32(layer, (depth, *sides))


def test_without_autocast_a_convolution_is_torchs_own():
    layer = Conv3d(2, 3, 3, padding=1)
    features = rounded(2, 2, 4, 5, 6)
    assert torch.equal(layer(features), F.conv3d(features, layer.weight, layer.bias, padding=1))


@pytest.mark.parametrize(("stride", "padding", "kernel"), [(1, 1, 3), (2, 1, 3), (1, 1, 2), (2, 0, 3), (3, 2, 5)])
def test_the_sum_over_2d_convolutions_is_the_weight_gradient(stride, padding, kernel):
    noise = torch.Generator().manual_seed(0)
    features = torch.randn(3, 2, 5, 6, 7, dtype=torch.float64, generator=noise)
    weight = torch.randn(4, 2, *[kernel] * 3, dtype=torch.float64, generator=noise).requires_grad_()
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    output = F.conv3d(features, weight, bias, stride, padding)
    upstream = torch.randn(output.shape, dtype=torch.float64, generator=noise)
    expected = torch.autograd.grad(output, [weight, bias], upstream)
    found = weight_gradient(features, upstream, weight.detach(), [stride] * 3, [padding] * 3)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-4)  # it is summed in float32


def test_a_weight_gradient_by_hand():
    # features 1, 2 along the first axis, output gradients 3, 5: taps 0, 1, 2 see (-, 1), (1, 2), (2, -)
    features = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1)
    upstream = torch.tensor([3.0, 5.0]).view(1, 1, 2, 1, 1)
    weight = torch.zeros(1, 1, 3, 1, 1)
    to_weight, to_bias = weight_gradient(features, upstream, weight, [1, 1, 1], [1, 0, 0])
    assert to_weight.flatten().tolist() == [5.0, 13.0, 6.0]
    assert to_bias.tolist() == [8.0]


@pytest.mark.parametrize("depth", [1, 2, 9])
@pytest.mark.parametrize("up", ["nearest", "transposed"])
def test_a_3d_network_in_bf16_has_the_gradients_of_float32(depth, up):
    torch.manual_seed(0)
    model = unet2(1, 3, None, width=8, levels=3, dims=3, norm="none", down="conv", up=up)
    model = model.to(memory_format=torch.channels_last_3d)
    image = rounded(2, 1, depth, 12, 10)
    mask = torch.randint(3, (2, depth, 12, 10), generator=torch.Generator().manual_seed(1))
    found = []
    for is_bf16 in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            logits = model(image)
        loss = F.cross_entropy(logits.float(), mask)
        gradients_of_all = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([gradient.flatten() for gradient in gradients_of_all]))
    assert distance(*found) < 0.05  # the rounding of 14 layers adds up
