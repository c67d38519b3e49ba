"""Blur, contrast, low resolution and gamma against scipy, torch and the formulas of batchgenerators in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import gaussian_filter

from dlx.data.batches.intensity_changes import blur, change_contrast, change_gamma, simulate_low_resolution

every_size = pytest.mark.parametrize("size", [(20, 13), (12, 9, 3)], ids=str)


def images(size, batch=3, channels=2):
    drawn = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(0))
    return drawn.to(memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d)


@every_size
def test_the_blur_is_scipys(size):
    image = images(size)
    sigmas = torch.tensor([[0.5, 1.0], [0.0, 0.73], [0.3, 0.0]])
    blurred = blur(image, sigmas, radius=4)
    for sample in range(3):
        for channel in range(2):
            sigma = sigmas[sample, channel].item()
            voxels = image[sample, channel].double().numpy()
            expected = voxels if sigma == 0 else gaussian_filter(voxels, sigma, mode="nearest", radius=4)
            np.testing.assert_allclose(blurred[sample, channel].numpy(), expected, rtol=0, atol=1e-6)


@every_size
def test_the_contrast_is_batchgenerators_with_its_range_kept(size):
    image, factors = images(size), torch.tensor([[0.75, 1.25], [1.0, 2.0], [0.5, 1.0]])
    changed = change_contrast(image, factors)
    for sample in range(3):
        for channel in range(2):
            voxels = image[sample, channel].double().numpy()
            scaled = (voxels - voxels.mean()) * factors[sample, channel].item() + voxels.mean()
            expected = np.clip(scaled, voxels.min(), voxels.max())
            np.testing.assert_allclose(changed[sample, channel].numpy(), expected, rtol=0, atol=1e-6)


@every_size
def test_the_gamma_is_batchgenerators_with_retained_statistics(size):
    image, exponents = images(size), torch.tensor([[0.7, 1.5], [1.0, 2.0], [0.9, 1.0]])
    changed = change_gamma(image, exponents)
    for sample in range(3):
        for channel in range(2):
            x = image[sample, channel].double().numpy()
            spread = x.max() - x.min()
            powered = ((x - x.min()) / spread) ** exponents[sample, channel].item() * spread + x.min()
            expected = (powered - powered.mean()) / powered.std() * x.std() + x.mean()
            np.testing.assert_allclose(changed[sample, channel].numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("change", [change_gamma, change_contrast])
def test_a_channel_of_one_value_stays(change):
    image = torch.full((1, 1, 8, 8), -3.0)
    assert torch.equal(change(image, torch.tensor([[0.5]])), image)


@every_size
@pytest.mark.parametrize("share", [0.5, 0.61, 0.8, 0.97])
def test_the_low_resolution_is_torchs_down_and_up(size, share):
    image = images(size, batch=2)
    low = [max(1, round(share * side)) for side in size]
    sizes = torch.tensor([low, list(size)])
    changed = simulate_low_resolution(image, sizes)
    down = F.interpolate(image[:1], low, mode="nearest-exact")
    expected = F.interpolate(down, size, mode="bilinear" if len(size) == 2 else "trilinear")
    torch.testing.assert_close(changed[:1], expected, rtol=0, atol=2e-6)
    assert torch.equal(changed[1], image[1])
