"""Resampling of images and masks against SimpleITK, scipy and numbers by hand."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch
from scipy import ndimage

from dlx.data.cases import IGNORED
from dlx.data.geometry.resample import (
    MASK_BYTES_PER_VOXEL,
    coarse_axis,
    median_spacing,
    new_size,
    resample_image,
    resample_mask,
)
from dlx.engine.original_grid import to_original
from made_grids import ONE, Array, boxes, smooth


@pytest.mark.parametrize("wanted", [(0.5, 1.0, 1.0), (1.0, 1.7, 0.8), (2.0, 2.0, 2.0)])
def test_an_image_is_resampled_as_by_the_splines_of_simpleitk(wanted: tuple[float, float, float]) -> None:
    image = smooth((20, 22, 24))
    size = new_size((20, 22, 24), ONE, wanted)
    ours = resample_image(image.astype(np.float16)[..., None], size)[..., 0]
    theirs = by_simpleitk(image.astype(np.float16).astype(np.float32), size, sitk.sitkBSpline3)
    inner = tuple(slice(n // 4, -(n // 4)) for n in size)  # SimpleITK mirrors at the ends, where ours continues them
    np.testing.assert_allclose(ours[inner], theirs[inner], rtol=0, atol=0.25)  # float16 at 100 to 250 has steps of 1/8


def by_simpleitk(array: Array, size: tuple[int, ...], interpolator: int) -> Array:
    """Resampled over the same field of view, from its corner in space; outside, the nearest voxel."""
    volume = sitk.GetImageFromArray(array)
    step = [n / new for n, new in zip(array.shape[::-1], size[::-1], strict=True)]
    start = [(width - 1) / 2 for width in step]  # the first centre: the corner is at -1/2
    filled = sitk.Resample(
        volume, size[::-1], sitk.Transform(), interpolator, start, step, np.eye(3).ravel(), 0.0, sitk.sitkFloat32, True
    )
    return np.asarray(sitk.GetArrayFromImage(filled))


def test_an_image_of_float32_stays_one_and_ignored_voxels_are_a_class_of_their_own() -> None:
    values = np.random.default_rng(0).standard_normal((6, 6, 6, 1)).astype(np.float32) * 1e5  # beyond float16
    resampled = resample_image(values, (12, 6, 6))
    assert resampled.dtype == np.float32
    assert np.isfinite(resampled).all()
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[:3], mask[3:, :3] = IGNORED, 2
    fine = resample_mask(mask, (12, 6, 6))
    np.testing.assert_array_equal(fine, mask.repeat(2, axis=0))


def test_voxels_lie_at_the_edges_of_the_field_of_view() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float16).reshape(1, 1, 8, 1), (4, 4, 8, 1))
    doubled = resample_image(ramp, (4, 4, 16))[0, 0, :, 0]
    np.testing.assert_allclose(doubled[5:11], [2.25, 2.75, 3.25, 3.75, 4.25, 4.75], atol=0.02)  # (k + 1/2) / 2 - 1/2


@pytest.mark.parametrize("size", [(12, 14, 32), (6, 14, 9), (17, 20, 23)])
def test_a_mask_is_resampled_as_each_class_by_itself(size: tuple[int, int, int]) -> None:
    mask = boxes((12, 14, 16))
    shares = np.stack([by_simpleitk((mask == k).astype(np.float32), size, sitk.sitkLinear) for k in range(3)])
    clear = np.sort(shares, 0)
    is_clear = clear[-1] - clear[-2] > 1e-4  # at a tie, rounding decides
    np.testing.assert_array_equal(resample_mask(mask, size)[is_clear], shares.argmax(0)[is_clear])
    assert is_clear.mean() > 0.9


@pytest.mark.parametrize(
    ("old", "new"), [((10, 11, 12), (15, 7, 12)), ((1, 9, 9), (1, 12, 5)), ((2, 2, 2), (40, 1, 3))]
)
def test_an_image_is_resampled_as_by_scipys_zoom_within_its_former_range(old: Any, new: Any) -> None:
    image = np.random.default_rng(0).standard_normal(old).astype(np.float32)
    factors = [after / before for before, after in zip(old, new, strict=True)]
    for is_linear, order in ((False, 3), (True, 1)):
        expected = ndimage.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
        found = resample_image(image[..., None], new, is_linear=[is_linear])[..., 0]
        np.testing.assert_allclose(found, expected.clip(image.min(), image.max()), rtol=0, atol=2e-6)


def test_resampling_stays_finite_in_float16_and_within_the_range_of_each_channel() -> None:
    edge = np.zeros((4, 4, 16, 2), np.float16)
    edge[:, :, 8:, 0], edge[:, :, 8:, 1] = 65000, -1  # a spline overshoots 65000 to more than float16 holds
    resampled = resample_image(edge, (4, 4, 40))
    assert (resampled[..., 0].min(), resampled[..., 0].max()) == (0, 65000)
    assert (resampled[..., 1].min(), resampled[..., 1].max()) == (-1, 0)


@pytest.mark.parametrize("size", [(1, 1024, 1024), (2, 1024, 1024)])
def test_resampling_needs_little_memory_even_for_slices(size: tuple[int, int, int]) -> None:
    image, mask = np.zeros((1, 512, 512, 1), np.float16), np.eye(512, dtype=np.uint8)[None]
    resample_image(image[:, :8, :8], (1, 9, 9))  # loads scipy
    for resample, most in (
        (lambda: resample_image(image, size), 2 + 9),
        (lambda: resample_mask(mask, size), MASK_BYTES_PER_VOXEL),
    ):
        tracemalloc.start()
        resample()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * np.prod(size) + 12 * 2**20


def test_a_mask_that_lacks_low_classes_keeps_those_it_has() -> None:
    mask = np.full((4, 4, 4), 3, np.uint8)
    mask[2:] = 200
    resampled = resample_mask(mask, (8, 4, 4))
    np.testing.assert_array_equal(resampled[:, 0, 0], [3] * 4 + [200] * 4)


def test_the_coarse_axis_takes_the_nearest_plane_and_the_others_splines() -> None:
    image = smooth((6, 20, 20)).astype(np.float16)[..., None]
    apart = resample_image(image, (9, 30, 20), 0)[..., 0]
    nearest = [0, 1, 1, 2, 3, 3, 4, 5, 5]  # floor((k + 1/2) 6 / 9)
    values = image[..., 0].astype(np.float32)
    planes = [ndimage.zoom(values[k], (1.5, 1), mode="nearest", grid_mode=True) for k in nearest]
    np.testing.assert_allclose(apart, np.clip(planes, values.min(), values.max()), rtol=1e-3)
    mask = boxes((6, 20, 20))
    np.testing.assert_array_equal(resample_mask(mask, (9, 20, 20), 0), mask[nearest])


def test_only_a_single_axis_of_more_than_three_times_the_smallest_spacing_is_coarse() -> None:
    size = (2, 3, 4)
    assert coarse_axis((5.0, 0.5, 0.5), size) == 0
    assert coarse_axis((0.5, 0.5, 1.6), size) == 2
    assert coarse_axis((1.5, 0.5, 0.5), size) is None
    assert coarse_axis((5.0, 5.0, 0.5), size) is None
    assert coarse_axis((5.0, 0.5, 0.5), (1, 3, 4)) is None
    assert coarse_axis((0.1, 0.5, 5.0), (1, 3, 4)) == 2


def test_the_median_of_an_axis_is_over_volumes_with_several_voxels_along_it() -> None:
    spacings = [(9.0, 1.0, 2.0), (2.0, 1.0, 4.0), (3.0, 1.0, 6.0)]
    assert median_spacing(spacings, [(1, 8, 1), (4, 8, 1), (4, 8, 1)]) == (2.5, 1.0, 4.0)


# --- measured on the original voxels ---


def cut(volume: torch.Tensor, axis: int, sizes: tuple[int, ...]) -> Any:
    """Pieces of (K, D, H, W) that follow one another along an axis of (D, H, W)."""
    at = 0
    for size in sizes:
        place = [slice(None)] * 3
        place[axis] = slice(at, at + size)
        yield tuple(place), volume[(slice(None), *place)]
        at += size


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("original", [(12, 12, 12), (5, 30, 12), (31, 7, 13), (2, 3, 4)])
@pytest.mark.parametrize("max_size", [1, 2000, 10**9])
def test_probabilities_in_pieces_go_back_as_scipy_zooms_the_whole(
    axis: int, original: tuple[int, int, int], max_size: int
) -> None:
    volume = torch.rand(3, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    found = torch.full((3, *original), torch.nan)
    for place, piece in to_original(cut(volume, axis, (1, 4, 5, 2)), axis, (12, 12, 12), original, max_size):
        assert torch.isnan(found[(slice(None), *place)]).all()  # each voxel once
        found[(slice(None), *place)] = piece
    factors = [new / 12 for new in original]
    for k in range(3):
        expected = ndimage.zoom(volume[k].numpy(), factors, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(found[k], expected, rtol=0, atol=1e-5)
