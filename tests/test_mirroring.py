"""Mirrored prediction: the mean over explicit flips, which axes it takes, and what it leaves alone."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from dlx.engine import evaluate
from dlx.engine.fit import TrialProgress, fit
from dlx.settings.spec import Spec
from dlx.system.errors import SettingError
from dlx.trial.evaluation_memory import bytes_of_each
from dlx.trial.factories import make_model
from small import small_job, small_resolved

WINDOWS = {"model": {"dims": 3}, "batch": {"patch_size_px": [8, 16, 12], "size": 2}}
CUT = {"data": {"source": "phantom:subjects=3,size=22"}, "model": {"levels": 3}}  # 22 is no multiple of 4
CASES = {
    "slices": ({}, (0, 1)),
    "slices, one axis": ({}, (1,)),
    "slices, padded": (CUT | {"batch": {"slice_axis": 2}}, (0, 1)),
    "windows": (WINDOWS, (0, 1, 2)),
    "windows, two axes": (WINDOWS, (0, 2)),
}


class MeanOverFlips(nn.Module):
    """The logarithm of the mean probability over all flips, so that its softmax is the mean itself."""

    def __init__(self, model, axes):
        super().__init__()
        self.model, self.axes = model, axes

    def forward(self, image):
        probabilities = []
        for flags in itertools.product([False, True], repeat=len(self.axes)):
            axes = [2 + axis for axis, is_flipped in zip(self.axes, flags, strict=True) if is_flipped]
            probabilities.append(self.model(image.flip(axes)).softmax(1).flip(axes))
        return torch.stack(probabilities).mean(0).log()


def probabilities_of(evaluator, model, case):
    whole = torch.empty(evaluator.outputs.num_outputs, *evaluator.store.shapes[case])
    model.eval()
    with torch.inference_mode():
        for place, piece in evaluator.pieces(model, case):
            whole[(slice(None), *place)] = piece
    return whole


@pytest.mark.parametrize(("changes", "axes"), CASES.values(), ids=CASES)
def test_a_mirrored_prediction_is_the_mean_of_explicit_flips(changes, axes):
    job = small_job(changes, {"evaluate": {"mirror": list(axes), "batch_size": 3}})
    assert job.evaluator.mirrored_axes == axes
    case = job.val_cases[0]
    plain = dataclasses.replace(job.evaluator, mirrored_axes=())
    mirrored = probabilities_of(job.evaluator, job.model, case)
    torch.testing.assert_close(
        mirrored, probabilities_of(plain, MeanOverFlips(job.model, axes), case), rtol=0, atol=1e-6
    )
    assert not torch.allclose(mirrored, probabilities_of(plain, job.model, case), rtol=0, atol=1e-4)
    torch.testing.assert_close(mirrored.sum(0), torch.ones(mirrored.shape[1:]), rtol=0, atol=1e-5)


def test_the_probabilities_of_regions_are_averaged_over_the_flips_each_by_itself():
    regions = {"data": {"source": "phantom:subjects=3,size=24,regions=true"}}
    job = small_job(regions, {"evaluate": {"mirror": [0]}})
    case = job.val_cases[0]
    found = probabilities_of(job.evaluator, job.model, case)
    plain = dataclasses.replace(job.evaluator, mirrored_axes=())

    class Flipped(nn.Module):
        def forward(self, image):
            return job.model(image.flip(2)).flip(2)

    once, twice = probabilities_of(plain, job.model, case), probabilities_of(plain, Flipped(), case)
    assert found.shape[0] == 3
    torch.testing.assert_close(found, (once + twice) / 2, rtol=0, atol=1e-6)
    assert not torch.allclose(found.sum(0), torch.ones(found.shape[1:]), rtol=0, atol=1e-2)  # they may overlap


def test_a_network_of_single_voxels_predicts_the_same_mirrored():
    plain, mirrored = (small_job({"model": "voxel:width=4", "evaluate": {"mirror": m}}) for m in (False, True))
    case = plain.val_cases[0]
    expected = probabilities_of(plain.evaluator, plain.model, case)
    torch.testing.assert_close(probabilities_of(mirrored.evaluator, mirrored.model, case), expected, rtol=0, atol=1e-6)


def test_pieces_change_no_bit(monkeypatch):
    job = small_job({"evaluate": {"mirror": True}})
    monkeypatch.setattr(evaluate, "PIECE_SIZE", 2**40)
    whole = job.evaluator.measure(job.model, job.val_cases)
    monkeypatch.setattr(evaluate, "PIECE_SIZE", 1)
    assert torch.equal(job.evaluator.measure(job.model, job.val_cases).counts, whole.counts)


@pytest.mark.parametrize(
    ("evaluated", "augmented", "dims", "axes"),
    [
        (False, None, 2, ()),
        (True, None, 2, (0, 1)),
        (True, None, 3, (0, 1, 2)),
        (True, [0], 3, (0,)),
        ([1], [0], 2, (1,)),
        ([1, 0, 1], None, 2, (0, 1)),
    ],
)
def test_the_axes_are_those_asked_for_or_those_of_the_flips(evaluated, augmented, dims, axes):
    spec = Spec.model_validate({"evaluate": {"mirror": evaluated}, "augment": {"flip_axes": augmented}})
    assert spec.mirrored_axes(dims) == axes


@pytest.mark.parametrize("asked", [1, "left", [3], []])
def test_what_are_no_axes_is_refused(asked):
    with pytest.raises(ValueError, match=r"evaluate\.mirror"):
        Spec.model_validate({"evaluate": {"mirror": asked}})


def test_an_axis_that_slices_do_not_have_is_refused():
    with pytest.raises(SettingError, match=r"evaluate\.mirror.*2D.*got 2"):
        small_resolved({"evaluate": {"mirror": [0, 2]}})


def test_mirroring_names_another_trial_and_is_in_its_settings_only_where_it_is_on():
    plain, mirrored = small_resolved(), small_resolved({"evaluate": {"mirror": True}})
    assert "mirror" not in plain.settings(0)["evaluate"]
    assert mirrored.settings(0)["evaluate"]["mirror"] is True
    assert plain.trial_id(0) != mirrored.trial_id(0)


def test_training_is_the_same_and_only_the_measured_dice_differs():
    plain, mirrored = small_job(), small_job({"evaluate": {"mirror": True}})
    pairs = [[e.result for e in fit(job, TrialProgress()) if hasattr(e, "result")] for job in (plain, mirrored)]
    assert [result.loss for result in pairs[0]] == [result.loss for result in pairs[1]]
    assert [result.val_dice for result in pairs[0]] != [result.val_dice for result in pairs[1]]


def test_validations_are_as_many_times_rarer_as_there_are_flips():
    many = {"train": {"epochs": 100, "steps_per_epoch": 40}, "evaluate": {"every": None}}
    plain, mirrored = small_resolved(many), small_resolved(many, {"evaluate": {"mirror": True}})
    assert plain.spec.evaluate.every > 1
    assert mirrored.spec.evaluate.every == pytest.approx(4 * plain.spec.evaluate.every, abs=4)


@pytest.mark.parametrize(
    ("source", "outputs"), [("phantom:subjects=4,size=24", 4), ("phantom:subjects=4,size=24,regions=true", 3)]
)
def test_the_flipped_image_and_the_sum_over_flips_count_in_the_memory_of_an_evaluated_slice(source, outputs):
    found = []
    for mirror in (False, True):
        resolved = small_resolved({"data": {"source": source}, "evaluate": {"mirror": mirror}})
        with torch.device("meta"):
            model = make_model(resolved.spec, resolved.dataset)
        found.append(bytes_of_each(resolved.spec, model, resolved.dataset, (24, 24)))
    assert found[1] - found[0] == 4 * 24 * 24 * (2 + outputs)  # float32, two channels
