"""Losses: values worked by hand, torch's and MONAI's, and properties that every registered loss must have."""

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss
from torch import nn

from dlx.settings import registry
from dlx.settings.binding import bind_arguments
from dlx.system.errors import SettingError
from dlx.training.losses import CrossEntropy, Focal, SoftDice, SumLoss
from dlx.training.lovasz import LovaszSoftmax, binned_steps, jaccard_steps

K = 4
NOTES_WEIGHTS = [0.1, 0.4, 0.2, 0.3]
every_loss = pytest.mark.parametrize("name", sorted(registry.PARTS["loss"]))


def build(name, **args):
    factory = registry.load("loss", name)
    return factory(K, **bind_arguments("loss", name, factory, args))


def some_logits(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_mask(*shape, seed=1, num_classes=K):
    mask = torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(seed))
    mask.view(-1)[:num_classes] = torch.arange(num_classes)  # every class is there
    return mask


def answer(mask, confidence, dtype=torch.float64):
    return confidence * nn.functional.one_hot(mask, K).movedim(-1, 1).to(dtype)


def two_voxels():
    """One image of two voxels: classes 1 and 0, given p of class 1 = 3/4 and 1/2."""
    logits = torch.tensor([[0.25, 0.5], [0.75, 0.5]], dtype=torch.float64).log().unsqueeze(0)
    return logits, torch.tensor([[1, 0]])


@every_loss
@pytest.mark.parametrize("size", [(6, 5), (3, 4, 5)])
def test_a_perfect_answer_costs_almost_nothing_and_worse_ones_more(name, size):
    loss, mask = build(name), some_mask(2, *size)
    perfect, unsure, wrong = (
        loss(answer(m, confidence), mask).item() for m, confidence in ((mask, 40.0), (mask, 1.0), ((mask + 1) % K, 1.0))
    )
    assert 0.0 <= perfect < 1e-10
    assert 0.01 < unsure < wrong


@every_loss
def test_a_small_step_against_the_gradient_lowers_it_by_what_the_gradient_says(name):
    loss, mask = build(name), some_mask(2, 6, 5)
    logits = some_logits(2, K, 6, 5).requires_grad_()
    before = loss(logits, mask)
    (gradient,) = torch.autograd.grad(before, logits)
    length = 1e-4 / gradient.norm()
    with torch.no_grad():
        drop = before - loss(logits - length * gradient, mask)
    assert drop.item() == pytest.approx((length * gradient.norm() ** 2).item(), rel=1e-2)


@every_loss
def test_its_gradient_is_that_of_finite_differences(name):
    logits, mask = some_logits(2, K, 3, 3).requires_grad_(), some_mask(2, 3, 3)
    assert torch.autograd.gradcheck(lambda x: build(name)(x, mask), (logits,))


@every_loss
def test_the_order_of_the_batch_does_not_matter(name):
    loss, logits, mask = build(name), some_logits(3, K, 4, 5), some_mask(3, 4, 5)
    order = torch.tensor([2, 0, 1])
    assert loss(logits[order], mask[order]).item() == pytest.approx(loss(logits, mask).item(), rel=1e-12)


@every_loss
def test_a_volume_costs_what_its_slices_laid_side_by_side_cost(name):
    loss, logits, mask = build(name), some_logits(2, K, 3, 4, 5), some_mask(2, 3, 4, 5)
    flat = loss(logits.reshape(2, K, 12, 5), mask.reshape(2, 12, 5))
    assert loss(logits, mask).item() == pytest.approx(flat.item(), rel=1e-12)


@every_loss
def test_half_precision_and_autocast_give_the_float32_loss(name):
    loss, mask = build(name), some_mask(2, 8, 8)
    logits = some_logits(2, K, 8, 8).bfloat16()
    expected = loss(logits.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = loss(logits, mask)
    assert expected.dtype == torch.float32
    assert torch.equal(loss(logits, mask), expected)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, expected)


@every_loss
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_stay_finite_for_extreme_logits(name, sign):
    mask = some_mask(2, 4, 4)
    logits = answer(mask, sign * 1e4, torch.float32).requires_grad_()
    loss = build(name)(logits, mask)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_a_batch_of_background_alone_has_a_finite_loss_that_rewards_background(name):
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    good, bad = (build(name)(answer(m, 3.0).requires_grad_(), mask).item() for m in (mask, torch.full_like(mask, 2)))
    assert math.isfinite(good)
    assert good < bad


def test_cross_entropy_is_the_mean_of_minus_log_p():
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert CrossEntropy(2)(*two_voxels()).item() == pytest.approx(expected, rel=1e-12)


def test_weighted_cross_entropy_divides_by_the_weights():
    expected = -(3 * math.log(0.75) + math.log(0.5)) / 4
    assert CrossEntropy(2, class_weights=[1.0, 3.0])(*two_voxels()).item() == pytest.approx(expected, rel=1e-12)


def test_weighted_cross_entropy_is_that_of_torch():
    logits, mask = some_logits(2, K, 3, 4, 5, dtype=torch.float32), some_mask(2, 3, 4, 5)
    expected = nn.functional.cross_entropy(logits, mask, weight=torch.tensor(NOTES_WEIGHTS))
    loss = CrossEntropy(K, class_weights=NOTES_WEIGHTS)(logits, mask)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_soft_dice_of_the_foreground_worked_by_hand():
    # sum p g = 0.75, sum p = 1.25, sum g = 1: Dice 1.5 / 2.25
    assert SoftDice(2)(*two_voxels()).item() == pytest.approx(1 / 3, abs=1e-5)


def test_soft_dice_per_sample_averages_the_dice_of_each():
    logits, mask = two_voxels()
    logits, mask = logits.permute(2, 1, 0), mask.permute(1, 0)  # two images of one voxel: Dice 6/7 and 0
    assert SoftDice(2, batch=False)(logits, mask).item() == pytest.approx(1 - 3 / 7, abs=2e-5)
    assert SoftDice(2, batch=True)(logits, mask).item() == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("include_background", [True, False])
def test_soft_dice_is_that_of_monai(batch, include_background):
    logits, mask = some_logits(3, K, 4, 5, 6), some_mask(3, 4, 5, 6)
    peer = DiceLoss(include_background, to_onehot_y=True, softmax=True, smooth_nr=0.3, smooth_dr=0.3, batch=batch)
    loss = SoftDice(K, include_background=include_background, smooth=0.3, batch=batch)(logits, mask)
    assert loss.item() == pytest.approx(peer(logits, mask.unsqueeze(1)).item(), rel=1e-6)


def test_soft_dice_without_any_class_is_refused():
    with pytest.raises(SettingError, match="no class is left"):
        SoftDice(1)


def test_focal_loss_worked_by_hand():
    easy, hard = -(0.25**2) * math.log(0.75), -(0.5**2) * math.log(0.5)
    assert Focal(2)(*two_voxels()).item() == pytest.approx((easy + hard) / 2, rel=1e-12)
    weighted = Focal(2, class_weights=[0.5, 2.0])(*two_voxels()).item()
    assert weighted == pytest.approx((2 * easy + 0.5 * hard) / 2, rel=1e-12)


def test_focal_loss_with_gamma_0_is_cross_entropy():
    logits, mask = some_logits(2, K, 5, 5), some_mask(2, 5, 5)
    loss = Focal(K, gamma=0.0)(logits, mask).item()
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, mask).item(), rel=1e-12)


def test_focal_loss_is_that_of_monai_times_the_classes_it_averages_over():
    logits, mask = some_logits(2, K, 3, 4, 5, dtype=torch.float32), some_mask(2, 3, 4, 5)
    peer = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=1.5, weight=NOTES_WEIGHTS)
    loss = Focal(K, gamma=1.5, class_weights=NOTES_WEIGHTS)(logits, mask)
    assert loss.item() == pytest.approx(K * peer(logits, mask.unsqueeze(1)).item(), rel=1e-5)


def test_focal_loss_of_softmax_applied_twice_has_the_floor_that_the_notes_report():
    mask = torch.arange(K).repeat(6).view(1, 4, 6)  # as much of each class
    p = math.e / (math.e + 3)
    floor = -sum(NOTES_WEIGHTS) / 4 * (1 - p) ** 2 * math.log(p)
    perfect = answer(mask, 100.0)
    twice = Focal(K, class_weights=NOTES_WEIGHTS, double_softmax=True)(perfect, mask).item()
    assert twice == pytest.approx(floor, rel=1e-6)
    assert round(floor, 2) == 0.05
    assert Focal(K, class_weights=NOTES_WEIGHTS)(perfect, mask).item() == pytest.approx(0.0, abs=1e-12)


def naive_lovasz(probabilities, mask):
    """The definition on one flattened image (N, K): sum over i of m_(i) (J(i) - J(i-1)), m sorted to fall.

    J(i) is the Jaccard loss of the prediction that gets exactly the i voxels with the largest errors wrong.
    """
    losses = []
    for label in np.unique(mask):
        truth = {v for v in range(len(mask)) if mask[v] == label}
        errors = [1 - p if v in truth else p for v, p in enumerate(probabilities[:, label])]
        order = sorted(range(len(mask)), key=lambda v: -errors[v])
        total, previous = 0.0, 0.0
        for i, voxel in enumerate(order):
            predicted = truth ^ set(order[: i + 1])
            jaccard = 1 - len(truth & predicted) / len(truth | predicted)
            total += errors[voxel] * (jaccard - previous)
            previous = jaccard
        losses.append(total)
    return float(np.mean(losses))


@pytest.mark.parametrize("num_present", [1, 2, 4])
def test_lovasz_softmax_equals_its_definition(num_present):
    logits = 2.0 * some_logits(2, K, 5, 6)
    mask = some_mask(2, 5, 6, num_classes=num_present)
    p = torch.softmax(logits, 1).movedim(1, -1).reshape(-1, K).numpy()
    expected = naive_lovasz(p, mask.reshape(-1).numpy())
    assert LovaszSoftmax(K, bins=None)(logits, mask).item() == pytest.approx(expected, rel=1e-12)


def test_lovasz_softmax_worked_by_hand():
    # class 1: errors 1/2 (J 0 -> 1/2) and 1/4 (J 1/2 -> 1): 0.375; class 0: errors 1/2 (J 0 -> 1) and 1/4: 0.5
    assert LovaszSoftmax(2, bins=None)(*two_voxels()).item() == pytest.approx((0.375 + 0.5) / 2, rel=1e-12)


def test_lovasz_softmax_of_background_alone_leaves_the_absent_class_out():
    # errors of class 0: 3/4 and 1/2, each a half of the Jaccard loss
    logits, _ = two_voxels()
    loss = LovaszSoftmax(2, bins=None)(logits, torch.zeros(1, 2, dtype=torch.int64)).item()
    assert loss == pytest.approx((0.75 + 0.5) / 2, rel=1e-12)


def test_lovasz_softmax_of_hard_predictions_is_the_mean_jaccard_loss():
    mask, predicted = some_mask(2, 6, 6), some_mask(2, 6, 6, seed=7)
    jaccard = [
        1 - ((mask == k) & (predicted == k)).sum().item() / ((mask == k) | (predicted == k)).sum().item()
        for k in range(K)
    ]
    loss = LovaszSoftmax(K, bins=None)(answer(predicted, 100.0), mask).item()
    assert loss == pytest.approx(sum(jaccard) / K, rel=1e-12)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
def test_binned_lovasz_is_the_sorted_one_within_its_bins(sharpness):
    mask = torch.randint(0, K, (8, 48, 48), generator=torch.Generator().manual_seed(1))
    logits = torch.randn(8, K, 48, 48, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * sharpness
    logits = (logits + 2.0 * torch.nn.functional.one_hot(mask, K).movedim(-1, 1)).requires_grad_()
    values, gradients = [], []
    for bins in (None, 4096):
        loss = LovaszSoftmax(K, bins=bins)(logits, mask)
        values.append(loss.item())
        gradients.append(torch.autograd.grad(loss, logits)[0])
    assert values[1] == pytest.approx(values[0], abs=1 / 4096)
    assert (gradients[1] - gradients[0]).abs().sum() <= 0.004 * gradients[0].abs().sum()


def test_binned_lovasz_grows_in_all_by_the_jaccard_loss():
    errors = torch.rand(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    is_class = torch.rand(2, 500, generator=torch.Generator().manual_seed(1)) < 0.3
    steps = binned_steps(errors, is_class, 256)
    assert (steps >= 0).all()
    # all voxels wrong: the intersection is gone, and the loss has grown from 0 to 1
    torch.testing.assert_close(steps.sum(1), torch.ones(2, dtype=torch.float64))


def test_a_voxel_alone_in_its_bin_has_its_exact_step():
    errors = torch.tensor([[0.9, 0.7, 0.5, 0.3, 0.1]], dtype=torch.float64)
    is_class = torch.tensor([[True, False, True, False, False]])
    torch.testing.assert_close(binned_steps(errors, is_class, 256), jaccard_steps(is_class, torch.float64))


def test_binned_lovasz_leaves_an_absent_class_out():
    mask = torch.zeros(1, 64, dtype=torch.int64)
    logits = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sorted_, binned = (LovaszSoftmax(3, bins=bins)(logits, mask).item() for bins in (None, 4096))
    assert binned == pytest.approx(sorted_, abs=1 / 4096)


def test_lovasz_softmax_in_float32_is_exact_for_a_batch_of_a_quarter_million_voxels():
    logits, mask = some_logits(4, K, 256, 256), some_mask(4, 256, 256)
    logits = logits + answer(mask, 4.0)
    in_float32 = LovaszSoftmax(K, bins=None)(logits.float(), mask).item()
    assert in_float32 == pytest.approx(LovaszSoftmax(K, bins=None)(logits, mask).item(), rel=1e-5)


def test_a_sum_of_losses_is_their_sum():
    logits, mask = some_logits(2, K, 4, 4), some_mask(2, 4, 4)
    terms = [LovaszSoftmax(K), Focal(K), CrossEntropy(K)]
    expected = sum(term(logits, mask).item() for term in terms)
    assert SumLoss(terms)(logits, mask).item() == pytest.approx(expected, rel=1e-12)


def test_a_sum_of_no_losses_is_refused():
    with pytest.raises(ValueError, match="needs a term"):
        SumLoss([])


@pytest.mark.parametrize("factory", [CrossEntropy, Focal])
def test_as_many_class_weights_as_classes_are_asked_for(factory):
    with pytest.raises(SettingError, match="3 weights for 4 classes"):
        factory(K, class_weights=[1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        ("focal", {"gamma": -1.0}, "gamma"),
        ("ce", {"class_weights": [0.0, 1.0, 1.0, 1.0]}, "class_weights"),
        ("dice", {"smooth": 0.0}, "smooth"),
        ("lovasz", {"gamma": 2.0}, "has no argument"),
    ],
)
def test_an_argument_out_of_range_is_named(name, args, complaint):
    with pytest.raises(SettingError, match=complaint):
        build(name, **args)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_loss
def test_forward_and_backward_do_not_wait_for_the_device(name):
    loss = build(name).cuda()
    logits, mask = some_logits(2, K, 8, 8).float().cuda().requires_grad_(), some_mask(2, 8, 8).cuda()
    loss(logits, mask).backward()  # the first call may set up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(logits, mask).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
