"""The loop and its step: what repeats, what is paired, what evaluation leaves alone."""

import copy
from itertools import pairwise

import pytest
import torch

from dlx.engine import checkpoint
from dlx.engine.evaluate import gaussian_weight, window_starts
from dlx.engine.fit import Diverged, StepDone, TrialProgress, begin_epoch, check_finite, fit
from dlx.engine.score import score_trial
from dlx.engine.step import StepMeasurements
from dlx.records.schema import EpochRecord
from small import small_job


def run(job, progress=None):
    """Trains to the end and gives the epochs' results."""
    return [e.result for e in fit(job, progress or TrialProgress()) if isinstance(e, EpochRecord)]


def weights(job):
    return checkpoint.weights_hash(job.model)


def test_the_same_seed_gives_the_same_records_and_weights_bit_for_bit():
    first, second = small_job(), small_job()
    assert run(first) == run(second)
    assert weights(first) == weights(second)


def test_another_seed_gives_other_weights_and_other_batches():
    first, second = small_job(), small_job(seed=1)
    assert weights(first) != weights(second)
    ours, theirs = TrialProgress(), TrialProgress()
    run(first, ours)
    run(second, theirs)
    assert ours.batches_hash != theirs.batches_hash


@pytest.mark.parametrize(
    "change", [{"dropout": {"p": 0.5}}, {"optimizer": {"lr": 0.1}}, {"scheduler": "exponential:gamma=0.5"}]
)
def test_trials_of_one_seed_start_alike_and_see_the_same_batches(change):
    control, variant = small_job(), small_job(change)
    assert weights(control) == weights(variant)
    a, b = TrialProgress(), TrialProgress()
    images = []
    for job, progress in ((control, a), (variant, b)):
        begin_epoch(job, progress, 1)
        images.append([job.step.source.batch(step) for step in range(4)])
    assert a.batches_hash == b.batches_hash
    for (image, mask), (other_image, other_mask) in zip(*images, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(mask, other_mask)
    control_results, variant_results = run(control), run(variant)
    assert weights(control) != weights(variant)
    assert control_results != variant_results


def test_dropout_of_zero_is_no_dropout_bit_for_bit():
    plain, zero = small_job(), small_job({"dropout": {"p": 0.0, "where": "decoder"}})
    assert run(plain) == run(zero)
    assert weights(plain) == weights(zero)


def test_every_step_and_every_epoch_is_yielded_in_order():
    events = list(fit(small_job(), TrialProgress()))
    steps = [(e.epoch, e.step) for e in events if isinstance(e, StepDone)]
    assert steps == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)]
    assert [e.result.epoch for e in events if isinstance(e, EpochRecord)] == [1, 2, 3]


def test_one_batch_is_learnt_by_heart():
    job = small_job({"optimizer": {"lr": 0.02}, "train": {"steps_per_epoch": 1}})
    begin_epoch(job, TrialProgress(), 1)
    losses = []
    for _ in range(150):
        job.step(0)
        losses.append(float(job.step.losses[0]))
    assert losses[-1] < 0.1 * losses[0]


def probabilities_of(job, case):
    """The class probabilities of a whole case, put together from their pieces."""
    evaluator = job.evaluator
    whole = torch.full((evaluator.outputs.num_outputs, *evaluator.store.shapes[case]), torch.nan)
    with torch.no_grad():
        for place, piece in evaluator.pieces(job.model, case):
            assert whole[(slice(None), *place)].isnan().all(), "a voxel that is there twice"
            whole[(slice(None), *place)] = piece
    return whole


def test_evaluation_changes_neither_weights_nor_statistics_nor_streams():
    job = small_job({"dropout": {"p": 0.3}})
    begin_epoch(job, TrialProgress(), 1)
    job.step(0)
    before = copy.deepcopy(job.model.state_dict())
    noise, default = job.noise.get_state(), torch.get_rng_state()
    first = job.evaluator.measure(job.model, job.val_cases).counts
    second = job.evaluator.measure(job.model, job.val_cases).counts
    assert torch.equal(first, second)
    assert job.model.training
    assert torch.equal(job.noise.get_state(), noise)
    assert torch.equal(torch.get_rng_state(), default)
    assert all(torch.equal(before[name], tensor) for name, tensor in job.model.state_dict().items())


def test_a_case_scores_the_same_in_whatever_company_it_is_measured():
    job = small_job()
    run(job)
    together = job.evaluator.measure(job.model, job.train_cases).counts
    alone = [job.evaluator.measure(job.model, [case]).counts[0] for case in job.train_cases]
    assert torch.equal(together, torch.stack(alone))


def test_whole_slices_are_scored_voxel_by_voxel_as_the_network_sees_them():
    job = small_job()
    run(job)
    job.model.eval()
    case = job.val_cases[0]
    probabilities = probabilities_of(job, case)
    depth, height, width = job.evaluator.store.shapes[case]
    image, mask = job.evaluator.store.gather(torch.tensor([case]), torch.zeros(1, 3, dtype=int), (depth, height, width))
    with torch.no_grad():
        one = job.model(image[0, 7:8].movedim(-1, 1)).softmax(1)[0]
    torch.testing.assert_close(probabilities[:, 7], one, rtol=0, atol=1e-5)
    counts = job.evaluator.measure(job.model, [case]).counts[0]
    predicted = probabilities.argmax(0)
    for k in range(4):
        both = ((predicted == k) & (mask[0] == k)).sum()
        assert counts[:, k].tolist() == [int(both), int((predicted == k).sum()), int((mask[0] == k).sum())]


def test_a_3d_network_trains_and_sees_every_voxel():
    job = small_job({"model": {"dims": 3}, "batch": {"patch_size_px": [12, 12, 12], "size": 2}})
    results = run(job)
    assert len(results) == 3
    probabilities = probabilities_of(job, job.val_cases[0])
    assert probabilities.shape == (4, 24, 24, 24)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(24, 24, 24), rtol=0, atol=1e-5)


def test_windows_cover_an_axis_and_overlap_as_asked():
    for size, window in ((24, 12), (25, 12), (100, 48), (49, 48), (48, 48), (10, 48)):
        starts = window_starts(size, window, 0.5)
        assert starts[0] == 0
        assert starts[-1] == max(0, size - window)
        assert all(0 < b - a <= window // 2 for a, b in pairwise(starts))


def test_window_weights_peak_in_the_middle_and_never_vanish():
    weight = gaussian_weight((9, 9, 9))
    assert weight.argmax() == 4 * 81 + 4 * 9 + 4
    assert weight[4, 4, 4] == 1
    assert weight[4, 4, 5] == pytest.approx(2.718281828 ** (-0.5 * (8 / 9) ** 2), rel=1e-6)
    assert weight.min() == pytest.approx(1e-3)


def test_a_loss_that_is_not_finite_ends_the_trial_and_names_epoch_and_step():
    with pytest.raises(Diverged, match="became nan in epoch 4, step 2"):
        check_finite(StepMeasurements([1.0, float("nan"), float("inf")], None, are_weights_finite=True), 4)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_after_the_last_step_end_the_trial(value):
    job = small_job({"train": {"epochs": 1}})
    events = fit(job, TrialProgress())
    while next(events).step < 4:
        pass
    with torch.no_grad():  # as an update would that no loss has seen
        job.model.head.weight.flatten()[3] = value
    with pytest.raises(Diverged, match="the weights became not finite in epoch 1"):
        next(events)


def test_a_rate_that_blows_the_weights_up_in_the_only_step_ends_the_trial():
    job = small_job({"train": {"epochs": 1, "steps_per_epoch": 1}, "optimizer": {"name": "sgd", "lr": 1e39}})
    with pytest.raises(Diverged, match="the weights became not finite in epoch 1"):
        run(job)


def test_patience_stops_after_so_many_epochs_without_a_better_dice():
    job = small_job({"train": {"epochs": 9, "patience": 2}, "optimizer": {"lr": 1e-12}})
    progress = TrialProgress()
    run(job, progress)
    assert progress.epoch == progress.best_epoch + 2 < 9


def test_patience_runs_out_in_an_epoch_that_was_validated():
    change = {"train": {"epochs": 20, "patience": 2}, "evaluate": {"every": 3}, "optimizer": {"lr": 1e-12}}
    job = small_job(change, {"model": {"norm": "none"}})
    progress = TrialProgress()
    results = run(job, progress)
    assert progress.epoch == progress.best_epoch + 3 < 20  # 2 epochs later there is no figure yet
    assert results[-1].val_dice is not None
    assert job.is_finished(progress)
    assert not job.is_finished(TrialProgress(epoch=5, best_epoch=3, best_val_dice=0.1))


def test_predictions_are_kept_on_the_host_where_they_are_asked_for():
    job = small_job()
    assert job.evaluator.measure(job.model, job.val_cases).predictions == ()
    (kept,) = job.evaluator.measure(job.model, job.val_cases, keep_predictions=True).predictions
    assert (kept.dtype, kept.device.type) == (torch.uint8, "cpu")
    assert kept.shape == (24, 24, 24)


def test_the_last_epochs_predictions_are_scored_and_no_others_are_kept():
    job = small_job()
    held = [(e.result.epoch, job.validated) for e in fit(job, TrialProgress()) if isinstance(e, EpochRecord)]
    assert [(epoch, measured is not None) for epoch, measured in held] == [(1, False), (2, False), (3, True)]
    measured = copy.copy(job.validated)
    _, scored = score_trial(job, 1.0)
    job.validated = None
    assert score_trial(job, 1.0)[1] == scored
    assert len(measured.predictions) == len(job.val_cases)


def test_the_rate_recorded_is_the_one_applied():
    results = run(small_job({"scheduler": "exponential:gamma=0.5"}))
    assert [result.lr["encoder"] for result in results] == [0.01, 0.005, 0.0025]


def test_parameter_groups_can_have_their_own_rate():
    results = run(small_job({"optimizer": {"group_lr": {"encoder": 0.001}}, "train": {"epochs": 1}}))
    assert results[0].lr == {"encoder": 0.001, "decoder": 0.01, "head": 0.01}


def test_clipping_bounds_the_gradients_norm():
    job = small_job({"optimizer": {"clip_grad_norm": 1e-3}})
    begin_epoch(job, TrialProgress(), 1)
    job.step(0)
    norm = torch.nn.utils.get_total_norm([p.grad for p in job.model.parameters()])
    assert float(norm) <= 1e-3 * 1.0001


def test_averaged_weights_are_the_ones_that_are_measured():
    job = small_job({"train": {"ema_decay": 0.9}})
    begin_epoch(job, TrialProgress(), 1)
    job.step(0)
    first = job.model.state_dict()["head.weight"].clone()
    job.step(1)
    second = job.model.state_dict()["head.weight"]
    averaged = job.evaluated_model.state_dict()["module.head.weight"]
    torch.testing.assert_close(averaged, 0.9 * first + 0.1 * second)


def test_the_notes_block_batch_and_soft_dice():
    job = small_job({"batch": {"kind": "block", "size": 8}, "evaluate": {"soft_dice": True}, "data": {"crop": True}})
    results = run(job)
    assert all(0 <= r.train_soft_dice_running <= 1 and 0 <= r.val_soft_dice <= 1 for r in results)
