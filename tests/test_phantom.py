"""The phantom: what is drawn, that it never changes unseen, and that it is what a brain data set must be."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dlx.data.phantom.case import PHANTOM_VERSION, phantom, phantom_case
from dlx.data.phantom.noise import Draw, Stream, sample
from dlx.data.phantom.shapes import frame_for
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError

Case = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]

CSF, GM, WM = 1, 2, 3


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [phantom_case(index, seed=0, size_px=(64, 64, 64)) for index in range(5)]


def digest(case: Case) -> str:
    image, mask = case
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


def contrast(values: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> float:
    """How far the means of GM and WM lie apart, over the root mean square of their spreads."""
    grey, white = values[mask == GM], values[mask == WM]
    return float(abs(grey.mean() - white.mean()) / np.sqrt((grey.var() + white.var()) / 2))


# Who changes a hash changes the data of every study: PHANTOM_VERSION goes up in the same commit.
@pytest.mark.parametrize(
    ("size_px", "index", "expected"),
    [
        ((24, 32, 24), 3, "f1c77d82a85d5ec8a8a5deeff1f7afb691a01a8c0ef35354b5bd858f078d7bbd"),
        ((48, 64, 32), 0, "020a905a91c76ce0d1c50f9601845c2598f73b0dedbfe3ea3895c50c956b7622"),
    ],
)
def test_a_subject_has_the_pinned_bytes(size_px: tuple[int, int, int], index: int, expected: str) -> None:
    assert PHANTOM_VERSION == 1
    assert digest(phantom_case(index, seed=7, size_px=size_px)) == expected


def test_a_subject_does_not_depend_on_which_others_are_drawn() -> None:
    few, many = phantom(subjects=3, size=24, seed=5), phantom(subjects=8, size=24, seed=5)
    many.case(7), many.case(0)
    assert digest(few.case(2)) == digest(many.case(2)) == digest(phantom_case(2, seed=5, size_px=(24, 24, 24)))


def test_subjects_and_seeds_each_give_another_head() -> None:
    digests = {digest(phantom_case(index, seed=seed, size_px=(16, 16, 16))) for index in range(3) for seed in range(3)}
    assert len(digests) == 9


def test_shapes_types_and_axes_are_those_of_the_contract() -> None:
    image, mask = phantom_case(0, seed=0, size_px=(20, 32, 24))
    assert image.shape == (2, 24, 32, 20)
    assert mask.shape == (24, 32, 20)
    assert (image.dtype, mask.dtype) == (np.float32, np.uint8)
    assert image.flags.c_contiguous


@settings(max_examples=25, deadline=None)
@given(
    size_px=st.tuples(*[st.integers(16, 40)] * 3),
    seed=st.integers(0, 2**64 - 1),
    index=st.integers(0, 1000),
)
def test_any_size_gives_one_connected_head_with_every_class(
    size_px: tuple[int, int, int], seed: int, index: int
) -> None:
    image, mask = phantom_case(index, seed=seed, size_px=size_px)
    assert set(np.unique(mask)) == {0, CSF, GM, WM}
    assert ndimage.label(mask > 0)[1] == 1
    assert ((image > 0) == (mask > 0)).all()


def test_intensities_are_whole_16_bit_numbers_and_positive_only_in_the_head(cases: list[Case]) -> None:
    for image, mask in cases:
        assert (image == np.rint(image)).all()
        assert 0 <= image.min() < image.max() < 2**15
        assert ((image > 0) == (mask > 0)).all()


def test_the_head_fills_about_a_third_of_a_cube_and_touches_no_side(cases: list[Case]) -> None:
    for _, mask in cases:
        assert 0.25 < (mask > 0).mean() < 0.4
        assert not any(np.take(mask, side, axis).any() for axis in range(3) for side in (0, -1))


def test_each_tissue_has_a_sensible_share_of_the_head(cases: list[Case]) -> None:
    for _, mask in cases:
        csf, grey, white = (np.mean(mask[mask > 0] == label) for label in (CSF, GM, WM))
        assert 0.2 < csf < 0.4
        assert 0.35 < grey < 0.5
        assert 0.15 < white < 0.35


def test_white_matter_hangs_together_and_has_no_specks(cases: list[Case]) -> None:
    for _, mask in cases:
        sizes = np.bincount(ndimage.label(mask == WM)[0].ravel())[1:]
        assert sizes.size <= 5
        assert sizes.min() > 5
        assert sizes.max() > 0.85 * sizes.sum()


def test_cortex_lies_between_fluid_and_white_matter(cases: list[Case]) -> None:
    """Most WM has no fluid beside it: the sulci are lined with GM."""
    for _, mask in cases:
        white = mask == WM
        beside_fluid = white & ndimage.binary_dilation(mask == CSF)
        assert beside_fluid.sum() < 0.15 * white.sum()


def test_grey_and_white_matter_are_nearly_alike_in_t1_and_further_apart_in_t2(cases: list[Case]) -> None:
    t1 = [contrast(image[0], mask) for image, mask in cases]
    t2 = [contrast(image[1], mask) for image, mask in cases]
    assert max(t1) < 1.3
    assert np.mean(t1) < 1.0 < np.mean(t2) < 2.0


def test_fluid_is_dark_in_t1_and_bright_in_t2(cases: list[Case]) -> None:
    for image, mask in cases:
        for channel, sign in ((image[0], -1), (image[1], 1)):
            assert sign * (channel[mask == CSF].mean() - channel[mask == GM].mean()) > 0


def test_subjects_differ_in_anatomy(cases: list[Case]) -> None:
    for label in (CSF, GM, WM):
        one, other = (cases[index][1] == label for index in (0, 1))
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) < 0.75


def test_a_larger_volume_has_more_folds_and_not_only_larger_ones() -> None:
    """Surface between CSF and GM over the area of the head's outline, in one slice."""
    wrinkles = []
    for size in (32, 96):
        _, mask = phantom_case(0, seed=0, size_px=(size, size, size))
        middle = mask[int(0.58 * size)]
        inside = middle == GM
        inner = inside & ndimage.binary_dilation(middle == CSF)
        head = middle > 0
        outline = head & ~ndimage.binary_erosion(head)
        wrinkles.append(inner.sum() / outline.sum())
    assert wrinkles[1] > 1.3 * wrinkles[0]


def test_details_grow_with_the_square_root_of_the_head() -> None:
    small, large = (frame_for(Draw(0, 0), (size, size, size)) for size in (64, 256))
    assert small.detail == pytest.approx(1.0, abs=0.01)
    assert large.detail == pytest.approx(2 * small.detail)
    assert large.reach == pytest.approx(8**0.5 * small.reach)


def test_a_long_volume_has_air_at_its_ends_and_not_a_stretched_head() -> None:
    _, mask = phantom_case(0, seed=0, size_px=(24, 32, 64))
    depth, height, width = (np.flatnonzero((mask > 0).any(axis=axes)).size for axes in ((1, 2), (0, 2), (0, 1)))
    assert height > 0.8 * 32
    assert width > 0.8 * 24
    assert depth < height


def test_the_listing_names_what_it_holds() -> None:
    listing = phantom(subjects=11, size=(48, 64, 32), seed=4)
    assert listing.case_ids == tuple(f"subject-{number}" for number in range(1, 12))
    assert listing.channels == ("T1", "T2")
    assert listing.class_names == ("background", "CSF", "GM", "WM")
    assert listing.spacing_mm == (1.0, 1.0, 1.0)
    assert listing.case(10)[1].shape == (32, 64, 48)


@pytest.mark.parametrize(
    ("given_args", "size_px"),
    [({}, (64, 64, 64)), ({"size": 20}, (20, 20, 20)), ({"size": [16, 20, 24]}, (16, 20, 24))],
)
def test_arguments_of_the_data_source_are_bound(given_args: dict[str, object], size_px: tuple[int, int, int]) -> None:
    listing = phantom(**bind_arguments("data", "phantom", phantom, given_args))
    assert listing.case(0)[1].shape == size_px[::-1]


@pytest.mark.parametrize("wrong", [{"subjects": 0}, {"size": 15}, {"size": [64, 64]}, {"seed": -1}, {"size": 513}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        bind_arguments("data", "phantom", phantom, wrong)


@pytest.mark.parametrize(("index", "seed", "size"), [(-1, 0, 16), (0, -1, 16), (0, 2**64, 16), (0, 0, 15)])
def test_a_case_out_of_range_is_refused(index: int, seed: int, size: int) -> None:
    with pytest.raises(SettingError):
        phantom_case(index, seed=seed, size_px=(size, size, size))


def test_gaussian_numbers_have_mean_zero_and_unit_variance() -> None:
    values = np.concatenate([part.ravel() for part in Draw(1, 2).gaussian(Stream.NOISE_T1, (40, 40, 40), 2)])
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / values.size)
    assert abs(values).max() < 3.47
    # The excess kurtosis of a uniform number is -1.2, and a fourth of that for the sum of four.
    assert (values.astype(np.float64) ** 4).mean() - 3 == pytest.approx(-0.3, abs=0.05)


def test_a_gaussian_number_is_the_sum_of_the_quarters_of_its_word() -> None:
    draw = Draw(9, 1)
    words = draw.words(Stream.NOISE_T2, 8).tolist()
    quarters = [sum(word >> shift & 0xFFFF for shift in (0, 16, 32, 48)) for word in words]
    expected = [(total - 131070) * 3**0.5 / 65536 for total in quarters]
    np.testing.assert_allclose(draw.gaussian(Stream.NOISE_T2, (2, 2, 2), 1)[0].ravel(), expected, atol=1e-4)


def test_a_smooth_field_is_the_cubic_b_spline_of_its_lattice() -> None:
    """SciPy's spline_filter-free interpolation of order 3 is the same sum of B-splines."""
    shape, step = (9, 11, 13), 3.5
    field = Draw(3, 4).smooth(Stream.WARP_X, shape, step)
    nodes = [int(size / step) + 5 for size in shape]
    words = Draw(3, 4).words(Stream.WARP_X, int(np.prod(nodes)))
    lattice = (words >> np.uint64(40)).astype(np.float64).reshape(nodes) / 2**23 - 1
    points = np.stack(np.meshgrid(*(np.arange(size) / step + 1 for size in shape), indexing="ij"))
    expected = ndimage.map_coordinates(lattice, points, order=3, prefilter=False)
    np.testing.assert_allclose(field, 5.2 * expected, atol=1e-5)


def test_sampling_is_linear_between_voxels_and_constant_beyond_the_border() -> None:
    field = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    points = np.random.default_rng(1).uniform(-1, 7, (3, 50)).astype(np.float32)
    expected = ndimage.map_coordinates(field.astype(np.float64), points, order=1, mode="nearest")
    np.testing.assert_allclose(sample(field, *points), expected, atol=2e-3)  # the last voxel is left 0.001 early


def test_streams_are_independent_of_one_another() -> None:
    draw = Draw(0, 0)
    firsts = [draw.words(stream, 1)[0] for stream in Stream]
    assert len(set(firsts)) == len(firsts)
    assert draw.words(Stream.POSE, 3)[0] == draw.words(Stream.POSE, 1)[0]
