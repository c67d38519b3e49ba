"""The fast up-convolution against the plain one: upsample, then convolve."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from dlx.models.layers.blocks import ConvBlock
from dlx.models.layers.upconv import upsample_conv


def plain(features, weight, bias):
    convolve = F.conv2d if features.ndim == 4 else F.conv3d
    return convolve(F.interpolate(features, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def draw(shape, out_channels=5, dtype=torch.float64):
    noise = torch.Generator().manual_seed(0)
    sizes = (shape, (out_channels, shape[1], *[3] * (len(shape) - 2)), (out_channels,))
    return [torch.randn(size, dtype=dtype, generator=noise).requires_grad_() for size in sizes]


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 1), (3, 4, 7, 2), (2, 3, 4, 5, 3), (1, 2, 1, 1, 1)])
def test_it_equals_upsampling_and_convolving_and_so_do_its_gradients(shape):
    inputs = draw(shape)
    expected, result = plain(*inputs), upsample_conv(*inputs)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-13)
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream)
    gradients = torch.autograd.grad(result, inputs, upstream)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-13)


def test_a_row_of_ones_by_hand():
    # one pixel of value 1 becomes 2 x 2 ones; a kernel of ones sums, in each of the four, the four ones it reaches
    ones, weight, bias = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3), torch.full((1,), 0.5)
    result = upsample_conv(ones, weight, bias)
    assert result.tolist() == [[[[4.5, 4.5], [4.5, 4.5]]]]


def test_its_result_lies_channels_last_and_may_be_changed_in_place():
    features, weight, bias = draw((2, 3, 4, 5), dtype=torch.float32)
    result = upsample_conv(features.contiguous(memory_format=torch.channels_last), weight, bias)
    assert result.is_contiguous(memory_format=torch.channels_last)
    F.relu(result, inplace=True).sum().backward()
    assert weight.grad is not None


def test_under_autocast_it_is_bf16_with_gradients_in_float32():
    features, weight, bias = draw((2, 3, 4, 5), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = upsample_conv(features, weight, bias)
        expected = plain(features, weight, bias)
    assert result.dtype == torch.bfloat16
    # bf16 keeps 8 bits: each of the sums' up to 27 terms is rounded once before it is multiplied
    torch.testing.assert_close(result, expected, rtol=0.02, atol=0.1)
    result.float().sum().backward()
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("norm", ["batch", "none", "group"])
def test_a_block_takes_it_and_trains(norm):
    block = ConvBlock(4, 3, norm)
    features = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    enlarged = F.interpolate(features, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(block(features, upsample=True), block(enlarged), rtol=0, atol=1e-5)
    block(features, upsample=True).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
