from dataclasses import replace

import numpy as np
import pytest
import torch

from dlx.data.batches.voxels import VoxelStore, store_bytes
from dlx.data.cases import Case, Original
from dlx.execution.planning.cost import largest_cases
from dlx.system.errors import DataError


def make_case(name, shape, channels=2, seed=0, pad=(-5.0, 7.0)):
    rng = np.random.default_rng(seed)
    return Case(
        id=name,
        image=rng.normal(size=(*shape, channels)).astype(np.float16),
        mask=rng.integers(0, 3, size=shape).astype(np.uint8),
        spacing_mm=(1.0, 2.0, 3.0),
        pad_value=np.array(pad[:channels], dtype=np.float32),
        content_hash=name,
    )


@pytest.fixture
def cases():
    return [make_case("a", (3, 5, 4), seed=1), make_case("b", (6, 2, 7), seed=2, pad=(1.5, -2.5))]


def test_a_box_inside_a_case_is_its_voxels(cases):
    store = VoxelStore(cases)
    image, mask = store.gather(torch.tensor([1, 0]), torch.tensor([[2, 0, 3], [0, 1, 1]]), (2, 2, 3))
    np.testing.assert_array_equal(image[0], cases[1].image[2:4, 0:2, 3:6].astype(np.float32))
    np.testing.assert_array_equal(image[1], cases[0].image[0:2, 1:3, 1:4].astype(np.float32))
    np.testing.assert_array_equal(mask[0], cases[1].mask[2:4, 0:2, 3:6])
    np.testing.assert_array_equal(mask[1], cases[0].mask[0:2, 1:3, 1:4])


def test_outside_a_case_the_image_is_its_pad_value_and_the_mask_zero(cases):
    store = VoxelStore(cases)
    image, mask = store.gather(torch.tensor([1]), torch.tensor([[-1, -2, 5]]), (8, 5, 4))
    expected = np.empty((8, 5, 4, 2), np.float32)
    expected[:] = (1.5, -2.5)
    expected[1:7, 2:4, 0:2] = cases[1].image[:, :, 5:7]
    expected_mask = np.zeros((8, 5, 4), np.int64)
    expected_mask[1:7, 2:4, 0:2] = cases[1].mask[:, :, 5:7]
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(mask[0], expected_mask)


def test_a_gathered_box_never_reaches_into_the_neighbouring_case(cases):
    store = VoxelStore(cases)
    image, _ = store.gather(torch.tensor([0]), torch.tensor([[0, 0, 0]]), (4, 6, 5))
    assert (image[0, 3] == torch.tensor([-5.0, 7.0])).all()
    assert (image[0, :, 5] == torch.tensor([-5.0, 7.0])).all()


def test_the_mask_of_a_case_is_whole(cases):
    store = VoxelStore(cases)
    for index, case in enumerate(cases):
        np.testing.assert_array_equal(store.mask(index), case.mask)
        assert store.voxels(index) == case.mask.size


@pytest.mark.parametrize("is_wide", [False, True], ids=["float16", "one case in float32"])
@pytest.mark.parametrize("is_resampled", [False, True], ids=["as read", "one case resampled"])
def test_the_bytes_of_a_store_are_known_before_it_is_made(cases, is_wide, is_resampled):
    first, second = cases
    if is_wide:
        first = replace(first, image=first.image.astype(np.float32))
    if is_resampled:
        second = replace(second, original=Original(np.zeros((9, 2, 5), np.uint8), (1.0, 1.0, 1.0)))
    assert store_bytes([first, second]) == VoxelStore([first, second]).nbytes


def test_the_memory_of_evaluation_is_measured_on_the_largest_case_before_and_after_resampling():
    fine = replace(make_case("b", (3, 3, 3)), original=Original(np.zeros((9, 9, 9), np.uint8), (1.0, 1.0, 1.0)))
    store = VoxelStore([make_case("a", (4, 4, 4)), fine, make_case("c", (2, 2, 2))])
    assert [(store.voxels(case), store.measured_voxels(case)) for case in range(3)] == [(64, 64), (27, 729), (8, 8)]
    assert largest_cases(store, (0, 1, 2)) == [0, 1]
    assert largest_cases(store, (2, 1)) == [1]


def test_a_store_of_nothing_is_refused():
    with pytest.raises(DataError, match="no cases"):
        VoxelStore([])
