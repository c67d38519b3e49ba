"""Instance normalisation against torch's own, and its gradients."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from dlx.models.layers.instance_norm import InstanceNorm


def draw(*sizes, dtype=torch.float64):
    return (3 * torch.randn(sizes, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 1).requires_grad_()


def made(channels, dtype=torch.float64):
    norm = InstanceNorm(channels).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels))
        norm.bias.copy_(torch.linspace(-1, 1, channels))
    return norm


@pytest.mark.parametrize("sizes", [(2, 3, 4, 5), (1, 4, 3, 2, 5), (3, 4, 3, 2, 5), (3, 1, 2, 2)])
@pytest.mark.parametrize("is_channels_last", [True, False])
def test_it_and_its_gradients_equal_torchs(sizes, is_channels_last):
    norm, features = made(sizes[1]), draw(*sizes)
    format_ = torch.channels_last if len(sizes) == 4 else torch.channels_last_3d
    given = features.contiguous(memory_format=format_) if is_channels_last else features
    expected = F.instance_norm(features, weight=norm.weight, bias=norm.bias)
    upstream = torch.randn(sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = [features, norm.weight, norm.bias]
    wanted = torch.autograd.grad(expected, inputs, upstream)
    result = norm(given)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    for gradient, reference in zip(torch.autograd.grad(result, inputs, upstream), wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-12)


def test_with_and_without_gradients_it_computes_the_same():
    norm, features = made(3), draw(2, 3, 4, 5, 6)
    with torch.no_grad():
        without = norm(features)
    trained = norm(features)
    assert "PerSampleNorm" in type(trained.grad_fn).__name__
    torch.testing.assert_close(trained, without, rtol=0, atol=1e-12)


def test_it_keeps_channels_last_memory_and_bf16():
    norm = made(3, torch.float32)
    features = draw(2, 3, 4, 5, 6, dtype=torch.float32).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    result = norm(features)
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(result.float(), norm(features.float()), rtol=0.01, atol=0.01)


def test_its_gradients_in_bf16_are_those_of_float32_rounded():
    norm = made(3, torch.float32)
    features = draw(3, 3, 4, 5, 6, dtype=torch.float32)
    upstream = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    inputs = [features, norm.weight, norm.bias]
    wanted = torch.autograd.grad(norm(features), inputs, upstream)
    found = torch.autograd.grad(norm(features.bfloat16()), inputs, upstream.bfloat16())
    for gradient, reference in zip(found, wanted, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, reference, rtol=0.02, atol=0.02 * reference.abs().max().item())
