"""Normalisers: values worked by hand, what is refused, and what fits into float16."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlx.data.normalize import none, zscore
from dlx.errors import DataError


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
    with pytest.raises(DataError, match=r"no foreground \(try over=all\)"):
        zscore(volume([0, -5, -3]))


def test_a_foreground_that_is_constant_is_refused_though_the_image_is_not() -> None:
    with pytest.raises(DataError, match="channel 0 is 5 in all 2 voxels"):
        zscore(volume([0, 5, 5, 0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="channel 0 has values that are not finite"):
        zscore(volume([1, value, 3]), over="all")
    with pytest.raises(DataError, match="beyond what float16 holds"):
        none(volume([1, value, 3]))


def test_a_background_beyond_float16_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"-1\.7e\+06 is beyond what float16 holds \(65504\).*over=all"):
        zscore(volume([0, 1_700_000, 1_700_002]))
    zscore(volume([0, 1_700_000, 1_700_002]), over="all")


def test_without_normalising_values_stay_and_pad_with_zero() -> None:
    unchanged, pad_value = none(volume([0, 2.5, 65504], [1, 2, -65504], dtype=np.float64))
    assert unchanged[:, 0, 0].tolist() == [[0, 2.5, 65504], [1, 2, -65504]]
    assert unchanged.dtype == np.float32
    assert pad_value.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [65505, -1.7e6, 1e300])
def test_without_normalising_a_value_beyond_float16_is_refused_with_the_remedy(value: float) -> None:
    with pytest.raises(DataError, match=r"float16 holds \(65504\); normalise, as with zscore"):
        none(volume([0, value], dtype=np.float64))


@settings(max_examples=50)
@given(hnp.arrays(np.int16, (2, 3, 4, 5), elements=st.integers(-2000, 30000), fill=st.nothing()))
def test_over_all_the_mean_is_zero_and_the_deviation_one(image: np.ndarray) -> None:
    if any(channel.min() == channel.max() for channel in image):
        return
    normalized, _ = zscore(image, over="all")
    for channel in normalized.astype(np.float64):
        assert abs(channel.mean()) < 1e-6
        assert abs(channel.std() - 1) < 1e-6
