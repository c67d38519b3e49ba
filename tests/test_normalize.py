"""Normalisers: values worked by hand, what is refused, and what fits into float16."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlx.data.cases import Declaration
from dlx.data.intensities.normalize import minmax, none, percentile, rgb, zscore
from dlx.data.intensities.whiten import describe_correlations, whiten
from dlx.data.prepare import prepare_arrays
from dlx.settings.part import Part
from dlx.settings.registry import PARTS, load
from dlx.system.errors import DataError

# the normalisers that scale each image by itself
SCALING = [name for name in PARTS["normalizer"] if name not in ("none", "rgb", "ct", "mixed")]


def volume(*channels: list[float], dtype: type = np.float32) -> np.ndarray:
    """An image (C, 1, 1, W) of the given channels."""
    return np.array(channels, dtype)[:, None, None, :]


def test_zscore_over_the_foreground_by_hand() -> None:
    # Foreground 2, 4, 6: mean 4, standard deviation sqrt(8 / 3).
    normalized, pad_value = zscore(volume([0, 2, 4, 6]))
    std = np.sqrt(8 / 3)
    np.testing.assert_array_equal(normalized[0, 0, 0], np.array([-4 / std, -2 / std, 0, 2 / std], np.float32))
    np.testing.assert_array_equal(pad_value, np.array([-4 / std], np.float32))
    assert normalized.dtype == pad_value.dtype == np.float32


def test_zscore_over_all_by_hand_pads_with_the_mean() -> None:
    normalized, pad_value = zscore(volume([0, 2, 4, 6]), over="all")
    std = np.sqrt(5)
    np.testing.assert_array_equal(normalized[0, 0, 0], np.array([-3 / std, -1 / std, 1 / std, 3 / std], np.float32))
    assert pad_value.tolist() == [0.0]


def test_the_first_channels_foreground_serves_every_channel() -> None:
    # The second channel's statistics are of 10 and 30 (mean 20, deviation 10), not of its own non-zero voxels.
    normalized, pad_value = zscore(volume([0, 1, 3], [50, 10, 30]))
    assert normalized[1, 0, 0].tolist() == [3.0, -1.0, 1.0]
    assert pad_value.tolist() == [-2.0, -2.0]


def test_values_below_zero_are_background() -> None:
    normalized, _ = zscore(volume([-1000, 1, 3]))
    assert normalized[0, 0, 0].tolist() == [-1002.0, -1.0, 1.0]


def test_an_image_without_zeros_is_taken_whole() -> None:
    image = volume([1, 2, 3, 6])
    whole, pad_value = zscore(image, over="all")
    foreground, foreground_pad = zscore(image)
    np.testing.assert_array_equal(foreground, whole)
    assert pad_value.tolist() == foreground_pad.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64])
def test_the_type_of_the_file_makes_no_difference(dtype: type) -> None:
    np.testing.assert_array_equal(zscore(volume([0, 2, 4, 6], dtype=dtype))[0], zscore(volume([0, 2, 4, 6]))[0])


def test_intensities_in_the_millions_lose_nothing() -> None:
    # In float32 a sum of a million values near 1.7 million is off by far more than their deviation of 1.
    image = np.full((1, 100, 100, 100), 1_700_000.0, np.float32)
    image[:, ::2] -= 1
    image[:, 1::2] += 1
    normalized, _ = zscore(image)
    assert set(np.unique(normalized)) == {-1.0, 1.0}


@pytest.mark.parametrize("over", ["foreground", "all"])
def test_a_constant_channel_is_refused_by_number(over: str) -> None:
    with pytest.raises(DataError, match=r"channel 1 is 0\.1 in all 3 voxels"):
        zscore(volume([1, 2, 3], [0.1, 0.1, 0.1]), over=over)


def test_an_image_without_foreground_is_refused() -> None:
    with pytest.raises(DataError, match=r"no foreground \(data.normalize.over=all takes all voxels\)"):
        zscore(volume([0, -5, -3]))


def test_a_foreground_that_is_constant_is_refused_though_the_image_is_not() -> None:
    with pytest.raises(DataError, match="channel 0 is 5 in all 2 voxels"):
        zscore(volume([0, 5, 5, 0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="channel 0 has values that are not finite"):
        zscore(volume([1, value, 3]), over="all")
    with pytest.raises(DataError, match="not finite"):
        none(volume([1, value, 3]))


def test_a_background_beyond_float16_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"-1\.7e\+06 .*float16.*over=all"):
        zscore(volume([0, 1_700_000, 1_700_002]))
    zscore(volume([0, 1_700_000, 1_700_002]), over="all")


def test_without_normalising_values_stay_and_pad_with_zero() -> None:
    unchanged, pad_value = none(volume([0, 2.5, 65504], [1, 2, -65504], dtype=np.float64))
    assert unchanged[:, 0, 0].tolist() == [[0, 2.5, 65504], [1, 2, -65504]]
    assert unchanged.dtype == np.float32
    assert pad_value.tolist() == [0.0, 0.0]


def test_without_normalising_a_value_beyond_float32_is_refused_with_the_remedy() -> None:
    assert none(volume([0, 1.7e6], dtype=np.float64))[0].max() == 1.7e6
    with pytest.raises(DataError, match=r"float32.*data\.normalize=zscore"):
        none(volume([0, 1e300], dtype=np.float64))


def test_rgb_is_divided_by_255_and_other_ranges_are_refused() -> None:
    image, pad_value = rgb(volume([0, 51, 255]))
    assert image[0, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert pad_value.tolist() == [0.0]
    for beyond in (-1, 256, np.nan):
        with pytest.raises(DataError, match="0 to 255"):
            rgb(volume([0, beyond]))


@settings(max_examples=50)
@given(hnp.arrays(np.int16, (2, 3, 4, 5), elements=st.integers(-2000, 30000), fill=st.nothing()))
def test_over_all_the_mean_is_zero_and_the_deviation_one(image: np.ndarray) -> None:
    assume(all(channel.min() < channel.max() for channel in image))
    normalized, _ = zscore(image, over="all")
    for channel in normalized.astype(np.float64):
        assert abs(channel.mean()) < 1e-6
        assert abs(channel.std() - 1) < 1e-6


def test_minmax_by_hand() -> None:
    normalized, pad_value = minmax(volume([0, 2, 4, 6]))
    assert normalized[0, 0, 0].tolist() == [-0.5, 0.0, 0.5, 1.0]  # over the foreground 2, 4, 6
    assert pad_value.tolist() == [-0.5]
    assert minmax(volume([0, 2, 4, 8]), over="all")[0][0, 0, 0].tolist() == [0.0, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(("low", "high"), [(0.5, 99.5), (10.0, 90.0)])
def test_percentiles_are_monais(low: float, high: float) -> None:
    monai = pytest.importorskip("monai.transforms")
    image = np.random.default_rng(0).gamma(2.0, 100.0, (2, 8, 9, 10)).astype(np.float32)
    theirs = monai.ScaleIntensityRangePercentiles(low, high, 0.0, 1.0, clip=True, channel_wise=True)(image)
    ours, pad_value = percentile(image, low=low, high=high, over="all")
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=5e-6)  # theirs is float32
    assert pad_value.tolist() == [0.0, 0.0]


def test_percentiles_that_are_equal_are_refused() -> None:
    with pytest.raises(DataError, match="percentiles 10 and 90 are both 1"):
        percentile(volume([1] * 98 + [2, 3]), low=10.0, high=90.0)


def mixed(seed: int = 0, shape: tuple[int, ...] = (6, 7, 8)) -> np.ndarray:
    """Two channels that correlate at about 0.8, with air (0) in a corner."""
    random = np.random.default_rng(seed)
    first, noise = random.standard_normal((2, *shape))
    image = np.stack([300 + 40 * first, 900 + 80 * first + 60 * noise])
    image[:, :2] = 0.0
    return image.astype(np.float32)


def test_whitened_channels_are_uncorrelated_with_mean_0_and_variance_1() -> None:
    image = mixed()
    brain = image[0] > 0
    assert np.corrcoef(image[:, brain])[0, 1] > 0.7
    whitened, pad_value = whiten(image)
    values = whitened[:, brain].astype(np.float64)
    np.testing.assert_allclose(np.cov(values, bias=True), np.eye(2), atol=1e-5)
    np.testing.assert_allclose(values.mean(1), 0.0, atol=1e-5)
    np.testing.assert_allclose(whitened[:, 0, 0, 0], pad_value, rtol=1e-5)  # air is what pads
    for before, after in zip(image[:, brain], values, strict=True):
        assert np.corrcoef(before, after)[0, 1] > 0.85  # each channel is still the one it was


def test_whitening_by_hand_takes_the_inverse_root_of_the_correlations() -> None:
    # z-scores (1, 1, -1, -1) and (1, 0, 0, -1) * sqrt(2); correlation r = 1 / sqrt(2)
    image = volume([3, 3, 1, 1], [7, 5, 5, 3])
    scores = np.array([[1, 1, -1, -1], np.sqrt(2) * np.array([1, 0, 0, -1])])
    r = 1 / np.sqrt(2)
    plus, minus = 1 / np.sqrt(1 + r), 1 / np.sqrt(1 - r)
    root = 0.5 * np.array([[plus + minus, plus - minus], [plus - minus, plus + minus]])
    np.testing.assert_allclose(whiten(image, over="all")[0][:, 0, 0], root @ scores, atol=1e-6)


def test_one_channel_is_whitened_as_by_zscore() -> None:
    image = mixed()[:1]
    np.testing.assert_allclose(whiten(image)[0], zscore(image)[0], atol=1e-6)


def test_a_channel_that_echoes_another_is_refused() -> None:
    first = mixed()[0]
    with pytest.raises(DataError, match="mixture"):
        whiten(np.stack([first, 2 * first + 1]))


def test_a_whitened_case_says_how_its_channels_correlated() -> None:
    declaration = Declaration(
        layout="iseg", channels=("T1", "T2"), class_names=("background", "CSF"), label_values=(0, 10),
        normalize=Part(name="whiten", args={"over": "foreground"}),
    )  # fmt: skip
    cases = [
        prepare_arrays(f"s{i}", mixed(i), np.zeros((6, 7, 8), np.uint8), (1.0, 1.0, 1.0), declaration) for i in (1, 2)
    ]
    for case in cases:
        before, after = case.correlations
        assert 0.7 < before < 0.9
        assert abs(after) < 0.01
    (line,) = describe_correlations(cases)
    assert line.startswith("whitened: in the foreground the channels of 2 cases correlate at 0.")


@pytest.mark.parametrize("name", SCALING)
def test_whatever_is_registered_does_not_depend_on_the_unit_of_the_intensities(name: str) -> None:
    image = mixed()
    once, _ = load("normalizer", name)(image)
    again, _ = load("normalizer", name)(image * 8)
    np.testing.assert_allclose(once, again, atol=1e-4)
    assert once.dtype == np.float32
    assert once.shape == image.shape


@pytest.mark.parametrize("name", SCALING)
def test_whatever_is_registered_refuses_constant_values(name: str) -> None:
    with pytest.raises(DataError, match="channel"):
        load("normalizer", name)(np.stack([mixed()[0], np.full((6, 7, 8), 3.0)]))
