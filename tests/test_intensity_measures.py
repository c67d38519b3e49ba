"""Statistics of a case's intensities, and images that may be masks."""

import numpy as np
import pytest

from dlx.data.intensities.measures import (
    MASK_VALUES,
    MAX_SAMPLED,
    looks_like_mask,
    measure_intensities,
    negative_fraction,
)

ROW = 64  # of an image of MAX_SAMPLED rows, every ROW-th voxel is in the first column


@pytest.fixture(scope="module")
def padded():
    """An image (D, H, W) of noise whose first column is padding."""
    image = np.random.default_rng(0).normal(100.0, 10.0, (400, MAX_SAMPLED // 400, ROW)).astype(np.float32)
    image[..., 0] = 0.0
    return image


def test_the_voxels_from_which_percentiles_are_computed_are_not_those_of_one_column(padded):
    (found,) = measure_intensities(padded[None], None)
    assert found.clipped_std == pytest.approx(found.std, rel=0.05)
    assert negative_fraction(np.where(np.arange(ROW) % 2 == 0, padded, -0.5)) == 0.0  # beside 100, -0.5 is air


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(MASK_VALUES), True),
        (np.arange(MASK_VALUES + 1), False),
        (np.array([0.0, 1.0, 2.0]), True),
        (np.array([0.0, 0.5, 1.0]), False),
        (np.array([7]), False),  # an empty scan, which is refused or noted elsewhere
    ],
)
def test_few_whole_numbers_look_like_a_mask(values, expected):
    image = np.resize(values, (1, 5, 7, 11))
    assert looks_like_mask(image) is expected


def test_an_image_with_padding_at_its_edge_is_no_mask(padded):
    assert not looks_like_mask(padded[None])
    assert looks_like_mask((padded > 100)[None].astype(np.uint8))
