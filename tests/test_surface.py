"""Surface distances: worked by hand, and against MONAI's Hausdorff distance and surface Dice."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from dlx.scoring.surface import SurfaceScores, bounding_box, surface, surface_distances, surface_scores

# MONAI calls a function of its own with an argument that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")


def cube(start, edge=4, shape=(12, 12, 12)):
    volume = np.zeros(shape, dtype=bool)
    volume[tuple(slice(first, first + edge) for first in start)] = True
    return volume


def blob(shape, seed, share=0.5):
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    return smooth > np.quantile(smooth, 1 - share)


def monai_scores(prediction, mask, spacing, tolerance):
    pair = [torch.from_numpy(volume)[None, None] for volume in (prediction, mask)]
    options = {"include_background": True, "spacing": spacing}
    hd95 = compute_hausdorff_distance(*pair, percentile=95, directed=False, **options)
    return SurfaceScores(hd95.item(), compute_surface_dice(*pair, [tolerance], **options).item())


def test_a_mask_with_itself_has_distance_0_and_surface_dice_1():
    assert surface_scores(blob((9, 9, 9), 0), blob((9, 9, 9), 0), (1.0, 1.0, 1.0), 1.0) == (0.0, 1.0)


# Each cube of 4 has 56 surface voxels. Shifted by two voxels of 1.5 mm along d, from one to the other: the far face
# (16) is 3 mm away, the ring next to it (12) 1.5 mm, the inner voxels of the near face (4) 1 mm, and 24 coincide.
@pytest.mark.parametrize(
    ("tolerance", "share"), [(0.5, 24 / 56), (1.0, 28 / 56), (1.5, 40 / 56), (2.9, 40 / 56), (3.0, 1.0)]
)
def test_two_cubes_a_known_shift_apart(tolerance, share):
    scores = surface_scores(cube((3, 4, 4)), cube((5, 4, 4)), (1.5, 1.0, 1.0), tolerance)
    assert scores == pytest.approx((3.0, share), rel=1e-12)


def test_hd95_is_the_larger_of_the_two_directions_and_not_the_maximum():
    # 39 shared voxels in a row, one that only the prediction has, far off: 1 of 40 distances is above 0.
    mask = np.zeros((1, 1, 60), dtype=bool)
    mask[..., :39] = True
    prediction = mask.copy()
    prediction[..., 58] = True
    assert surface_scores(prediction, mask, (1.0, 1.0, 1.0), 1.0).hd95_mm == 0.0
    # Three of 42: the 95th percentile (place 38.95 of 0..41) is 0.95 of the way from 0 to the nearest, 18 mm away.
    prediction[..., 56:58] = True
    for pair in ((prediction, mask), (mask, prediction)):
        assert surface_scores(*pair, (1.0, 1.0, 1.0), 1.0).hd95_mm == pytest.approx(0.95 * 18)


def test_a_class_in_neither_mask_has_no_scores():
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert surface_scores(empty, empty, (1.0, 1.0, 1.0), 1.0) == (None, None)


def test_a_class_in_one_mask_only_has_no_distance_and_surface_dice_0():
    empty, full = np.zeros((3, 4, 5), dtype=bool), np.ones((3, 4, 5), dtype=bool)
    assert surface_scores(empty, full, (1.0, 1.0, 1.0), 1.0) == (None, 0.0)
    assert surface_scores(full, empty, (1.0, 1.0, 1.0), 1.0) == (None, 0.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 1.1)])
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_scores_of_blobs_are_those_of_monai(seed, spacing):
    prediction, mask = blob((13, 17, 15), seed), blob((13, 17, 15), seed + 1, share=0.2)
    for tolerance in (0.9, 2.0):
        scores = surface_scores(prediction, mask, spacing, tolerance)
        assert scores == pytest.approx(monai_scores(prediction, mask, spacing, tolerance), rel=1e-6)
        assert 0 < scores.surface_dice < 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 10])
def test_a_single_slice_has_its_border_in_the_plane_whichever_axis_it_lies_across(seed, axis):
    prediction, mask = blob((40, 50), seed), blob((40, 50), seed + 1, share=0.2)
    spacing = [0.7, 1.3]
    spacing.insert(axis, 9.0)
    scores = surface_scores(np.expand_dims(prediction, axis), np.expand_dims(mask, axis), tuple(spacing), 1.5)
    assert scores == pytest.approx(monai_scores(prediction, mask, (0.7, 1.3), 1.5), rel=1e-6)


def test_a_volume_whose_masks_lie_in_one_slice_is_still_a_volume():
    # Both squares are surface through and through: the centre of the larger is in the other's reach.
    small, large = np.zeros((5, 9, 9), dtype=bool), np.zeros((5, 9, 9), dtype=bool)
    small[2, 4:5, 4:5], large[2, 3:6, 3:6] = True, True
    assert surface_scores(small, large, (3.0, 1.0, 1.0), 0.5).surface_dice == pytest.approx(2 / 10)


def test_where_in_the_volume_the_masks_lie_does_not_matter():
    inside = surface_scores(cube((4, 4, 4)), cube((5, 6, 4), edge=3), (1.0, 2.0, 1.5), 1.0)
    at_the_edge = surface_scores(cube((0, 0, 0)), cube((1, 2, 0), edge=3), (1.0, 2.0, 1.5), 1.0)
    assert at_the_edge == inside


def test_axes_and_their_spacing_can_be_exchanged_together():
    prediction, mask = blob((9, 11, 13), 0), blob((9, 11, 13), 1)
    scores = surface_scores(prediction, mask, (3.0, 1.0, 2.0), 2.0)
    turned = surface_scores(prediction.transpose(2, 0, 1), mask.transpose(2, 0, 1), (2.0, 3.0, 1.0), 2.0)
    assert turned == pytest.approx(scores, rel=1e-12)


def test_three_voxels_of_a_tenth_of_a_millimetre_are_within_three_tenths():
    one, other = (cube((0, 0, start), edge=1, shape=(1, 1, 9)) for start in (2, 5))
    assert surface_scores(one, other, (1.0, 1.0, 0.1), 0.3).surface_dice == 1.0


def test_masks_of_unlike_shapes_are_refused():
    # Where the annotations are checked, that check comes first.
    with pytest.raises((ValueError, TypeCheckError)):
        surface_scores(np.ones((2, 3, 4), dtype=bool), np.ones((2, 3, 5), dtype=bool), (1.0, 1.0, 1.0), 1.0)


def test_the_surface_is_what_an_erosion_takes_away():
    mask = blob((10, 11, 12), 5)
    assert np.array_equal(surface(mask), mask & ~binary_erosion(mask))


def test_distances_are_those_of_the_distance_transform():
    start, target = surface(blob((10, 11, 12), 5)), surface(blob((10, 11, 12), 6))
    expected = distance_transform_edt(~target, sampling=(2.0, 1.0, 0.5))[start]
    distances = surface_distances(start, target, (2.0, 1.0, 0.5))
    assert np.sort(distances) == pytest.approx(np.sort(expected), rel=1e-12)


def test_the_bounding_box_holds_every_voxel_and_no_empty_margin():
    assert bounding_box(cube((3, 0, 8))) == (slice(3, 7), slice(0, 4), slice(8, 12))
