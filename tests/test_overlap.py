"""Overlap and Dice: worked by hand, and against MONAI's compute_dice."""

import math

import pytest
import torch
from monai.metrics import compute_dice

from dlx.scoring import overlap
from dlx.scoring.outputs import Outputs
from dlx.scoring.overlap import (
    DiceSummary,
    dice_from_counts,
    mean_foreground,
    overlap_counts,
    soft_dice_from_sums,
    soft_overlap,
    summarize,
)

NAN = math.nan


def random_mask(*shape, seed, num_classes=4):
    return torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(seed))


def one_hot(mask, num_classes):
    return torch.nn.functional.one_hot(mask, num_classes).movedim(-1, 1)


def test_overlap_counts_worked_by_hand():
    prediction = torch.tensor([[[0, 1, 1, 2]]])
    mask = torch.tensor([[[0, 1, 2, 2]]])
    counts = overlap_counts(prediction, mask, 4)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[1, 1, 1, 0], [1, 2, 1, 0], [1, 1, 2, 0]]


def test_overlap_counts_take_the_uint8_masks_of_the_data():
    prediction, mask = random_mask(2, 5, 6, seed=0), random_mask(2, 5, 6, seed=1)
    expected = overlap_counts(prediction, mask, 4)
    assert torch.equal(overlap_counts(prediction.to(torch.uint8), mask.to(torch.uint8), 4), expected)


def test_counts_of_the_slices_add_up_to_those_of_the_volume():
    prediction, mask = random_mask(5, 6, 7, seed=0), random_mask(5, 6, 7, seed=1)
    slices = sum(overlap_counts(p, m, 4) for p, m in zip(prediction, mask, strict=True))
    assert torch.equal(slices, overlap_counts(prediction, mask, 4))


def test_labels_beyond_the_classes_count_nowhere():
    prediction, mask = torch.tensor([[0, 1, 255]]), torch.tensor([[0, 7, 255]])
    assert overlap_counts(prediction, mask, 2).tolist() == [[1, 0], [1, 1], [1, 0]]


def test_dice_of_a_mask_with_itself_is_one():
    mask = random_mask(2, 5, 6, seed=3)
    assert dice_from_counts(overlap_counts(mask, mask, 4)).tolist() == [1.0] * 4


@pytest.mark.parametrize("outputs", [Outputs(4), Outputs(4, regions=((1, 2, 3), (2, 3), (3,)), region_order=(1, 2, 3))])
def test_counts_of_parts_add_up_to_those_of_the_whole(monkeypatch, outputs):
    prediction = random_mask(5, 6, 7, seed=0, num_classes=8).byte()  # bits of regions
    mask = random_mask(5, 6, 7, seed=1).byte()
    whole = outputs.counts(prediction, mask)
    assert whole[1:, 1:].min() > 0
    monkeypatch.setattr(overlap, "COUNTED_AT_ONCE", 13)
    assert torch.equal(outputs.counts(prediction, mask), whole)


def test_dice_is_nan_where_the_class_is_in_neither_mask_and_0_where_in_one_only():
    prediction, mask = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 2]])
    dice = dice_from_counts(overlap_counts(prediction, mask, 4))
    assert dice.dtype == torch.float64
    assert dice.tolist() == pytest.approx([1.0, 2 / 3, 0.0, NAN], nan_ok=True)


def test_dice_is_that_of_monai_for_a_batch_of_cases():
    prediction, mask = random_mask(5, 6, 7, 8, seed=0), random_mask(5, 6, 7, 8, seed=1)
    peer = compute_dice(one_hot(prediction, 4), one_hot(mask, 4), include_background=True)
    counts = torch.stack([overlap_counts(p, m, 4) for p, m in zip(prediction, mask, strict=True)])
    assert torch.allclose(dice_from_counts(counts), peer.double(), rtol=1e-6, atol=0)


def test_mean_foreground_leaves_out_the_background_and_what_is_absent():
    dice = torch.tensor([[1.0, 0.5, NAN, 0.7], [1.0, NAN, NAN, NAN]])
    assert mean_foreground(dice).tolist() == pytest.approx([0.6, NAN], nan_ok=True, rel=1e-6)


def test_soft_overlap_of_hard_probabilities_is_the_count():
    prediction, mask = random_mask(2, 5, 6, seed=0), random_mask(2, 5, 6, seed=1)
    sums = soft_overlap(one_hot(prediction, 4).float(), mask)
    assert torch.equal(sums, overlap_counts(prediction, mask, 4).float())


def test_soft_dice_worked_by_hand():
    # p of class 1: 3/4 and 1/2, the first voxel is of class 1; class 2 has a little p and no voxel
    probabilities = torch.tensor([[[0.25, 0.25], [0.75, 0.5], [0.0, 0.25]]])
    sums = soft_overlap(probabilities, torch.tensor([[1, 0]], dtype=torch.uint8))
    assert sums.tolist() == [[0.25, 0.75, 0.0], [0.5, 1.25, 0.25], [1.0, 1.0, 0.0]]
    assert soft_dice_from_sums(sums).tolist() == pytest.approx([1 / 3, 2 / 3, NAN], nan_ok=True)


def test_soft_overlap_of_half_precision_is_summed_in_float32():
    probabilities = torch.full((1, 2, 64, 64), 0.5, dtype=torch.bfloat16)
    sums = soft_overlap(probabilities, torch.zeros(1, 64, 64, dtype=torch.uint8))
    assert sums.dtype == torch.float32
    assert sums.tolist() == [[2048.0, 0.0], [2048.0, 2048.0], [4096.0, 0.0]]


def test_the_headline_averages_over_cases_first_and_then_over_classes():
    # Class 1 is in all cases, class 2 in one: the mean of the case means would be (0.5 + 0.9 + 0.4) / 3 = 0.6.
    dice = torch.tensor([[1.0, 0.6, 0.4], [1.0, 0.9, NAN], [1.0, 0.4, NAN]], dtype=torch.float64)
    mean, per_class = summarize(dice)
    assert per_class == pytest.approx((1.0, 1.9 / 3, 0.4))
    assert mean == pytest.approx((1.9 / 3 + 0.4) / 2)


def test_a_class_that_no_case_has_is_none_and_out_of_the_headline():
    assert summarize(torch.tensor([[1.0, 0.5, NAN], [0.5, 0.5, NAN]])) == DiceSummary(0.5, (0.75, 0.5, None))


def test_without_any_foreground_there_is_no_headline():
    assert summarize(torch.tensor([[1.0, NAN]])) == DiceSummary(None, (1.0, None))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counting_does_not_wait_for_the_device():
    mask = random_mask(2, 5, 6, seed=0).cuda()
    probabilities = one_hot(mask, 4).float()
    torch.cuda.set_sync_debug_mode("error")
    try:
        counts, sums = overlap_counts(mask, mask, 4), soft_overlap(probabilities, mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(counts.float(), sums)
