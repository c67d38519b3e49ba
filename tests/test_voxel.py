"""The voxel classifier: its features beside scipy's, and that a voxel sees no more than it should."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dlx.models.architectures.voxel import SIGMAS_PX, VoxelClassifier, gaussian_features


def image_of(*sizes):
    return torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(0))


def slope(values, axis):
    return ndimage.correlate1d(values, [-0.5, 0.0, 0.5], axis, mode="nearest")


def bend(values, axis):
    return ndimage.correlate1d(values, [1.0, -2.0, 1.0], axis, mode="nearest")


@pytest.mark.parametrize("sizes", [(33, 20), (5, 1), (9, 12, 7)], ids=str)
def test_gaussian_features_are_scipys(sizes):
    image = image_of(*sizes)
    features = gaussian_features(image)
    assert features.shape == (2, 30, *sizes)
    for case, channel in np.ndindex(2, 3):
        plain = image[case, channel].double().numpy()
        expected = [plain]
        for sigma in SIGMAS_PX:
            smooth = ndimage.gaussian_filter(plain, sigma, mode="nearest", truncate=3.0)
            slopes = [slope(smooth, axis) for axis in range(len(sizes))]
            bends = [bend(smooth, axis) for axis in range(len(sizes))]
            expected += [smooth, sigma * np.sqrt(np.square(slopes).sum(0)), sigma**2 * np.sum(bends, axis=0)]
        found = features[case, channel::3].double().numpy()
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_features_are_in_float32_under_autocast():
    image = image_of(16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = gaussian_features(image)
    assert features.dtype == torch.float32
    assert torch.equal(features, gaussian_features(image))


@pytest.mark.parametrize(("features", "reach"), [("raw", 0), ("gaussian", 13)])
def test_a_voxel_sees_no_farther_than_its_features(features, reach):
    torch.manual_seed(0)
    model = VoxelClassifier(1, 2, features=features, width=32).eval()
    image = torch.randn(1, 1, 41, 41, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model(image)[0, 1, 20, 20].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen - 20).abs().max() <= reach
    assert len(seen) == 1 if reach == 0 else len(seen) > 500
