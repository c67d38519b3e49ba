"""Labels that are regions, which may overlap: read, trained with sigmoids, measured one by one, written back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from monai.metrics import compute_dice
from torch import nn

from dlx.data.batches.sampler import Foreground
from dlx.data.cases import IGNORED
from dlx.data.dataset import open_dataset
from dlx.data.layouts.listing import folder
from dlx.engine.fit import TrialProgress, fit
from dlx.engine.randomness import generator
from dlx.engine.score import score_trial
from dlx.records.schema import EpochRecord
from dlx.scoring.outputs import Outputs
from dlx.scoring.overlap import dice_from_counts
from dlx.scoring.surface import surface_scores
from dlx.settings.part import Part
from dlx.settings.spec import DataSpec
from dlx.system.errors import SettingError
from dlx.training.losses import CrossEntropy, SoftDice, SumLoss
from dlx.trial.factories import make_loss
from small import small_job, small_resolved
from step_settings import NESTED
from test_layouts import NNUNET, nnunet_folder
from test_losses import some_logits

# whole tumour, core, enhancing as in BraTS: classes 1 oedema, 2 necrosis, 3 enhancing
BRATS = ((1, 2, 3), (2, 3), (3,))
OUTPUTS = Outputs(4, regions=BRATS, region_order=(1, 2, 3))


def some_mask(*shape, seed=0):
    return torch.randint(4, shape, generator=torch.Generator().manual_seed(seed))


def region_masks(mask):
    """(B, 3, ...) by hand."""
    return torch.stack([mask > 0, mask > 1, mask > 2], 1)


# reading


def test_the_regions_of_an_nnunet_folder_keep_their_order_and_name_classes_of_the_masks(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 5}
    nnunet_folder(tmp_path, {**NNUNET, "labels": labels, "regions_class_order": [1, 2, 4]})
    listing = folder(path=str(tmp_path))
    assert listing.class_names == ("background", "whole", "core", "enhancing")
    assert (listing.label_values, listing.ignored_value) == ((0, 1, 2, 4), 5)
    assert (listing.regions, listing.region_order) == (((1, 2, 3), (2, 3), (3,)), (1, 2, 3))


def test_a_list_of_one_value_is_a_label(tmp_path: Path) -> None:
    nnunet_folder(tmp_path, {**NNUNET, "labels": {"background": 0, "left": [1], "right": 2}})
    listing = folder(path=str(tmp_path))
    assert (listing.class_names, listing.regions) == (("background", "left", "right"), ())


def test_regions_of_drawn_data_survive_the_cache_and_have_a_fingerprint_of_their_own(tmp_path):
    spec = DataSpec(source="phantom:subjects=2,size=16,regions=true")
    first, again = (open_dataset(spec, cache_dir=tmp_path) for _ in range(2))
    assert first.regions == again.regions == ((1, 2, 3), (2, 3), (3,))
    assert first.region_order == again.region_order == (1, 2, 3)
    plain = open_dataset(DataSpec(source="phantom:subjects=2,size=16"), cache_dir=tmp_path)
    assert plain.cases[0].mask_hash == first.cases[0].mask_hash
    assert plain.fingerprint != first.fingerprint == again.fingerprint


def test_the_voxels_of_a_region_are_those_of_its_classes():
    resolved = small_resolved(NESTED)
    case = resolved.dataset.cases[0]
    background, csf, gm, wm = np.bincount(case.mask.ravel(), minlength=4)
    assert resolved.dataset.class_voxels(case) == (background, csf + gm + wm, gm + wm, wm)


# losses


@pytest.mark.parametrize("batch", [True, False])
def test_soft_dice_of_regions_is_that_of_monai(batch):
    logits, mask = some_logits(2, 3, 6, 5), some_mask(2, 6, 5)
    theirs = DiceLoss(sigmoid=True, batch=batch, smooth_nr=1e-5, smooth_dr=1e-5)(logits, region_masks(mask).double())
    assert SumLoss([SoftDice(4, batch=batch)], regions=BRATS)(logits, mask).item() == pytest.approx(theirs.item())


def test_cross_entropy_of_regions_is_torchs_binary_one():
    logits, mask = some_logits(2, 3, 6, 5), some_mask(2, 6, 5)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, region_masks(mask).double())
    assert SumLoss([CrossEntropy(4)], regions=BRATS)(logits, mask).item() == pytest.approx(expected.item())
    each = nn.functional.binary_cross_entropy_with_logits(logits, region_masks(mask).double(), reduction="none")
    weighted = (each.mean((0, 2, 3)) * torch.tensor([1.0, 2.0, 5.0])).sum() / 8
    loss = SumLoss([CrossEntropy(4, class_weights=[7.0, 1.0, 2.0, 5.0])], regions=BRATS)
    assert loss(logits, mask).item() == pytest.approx(weighted.item())


@pytest.mark.parametrize("term", [SoftDice(4), CrossEntropy(4)])
def test_ignored_voxels_change_no_bit_of_loss_and_gradient_of_regions(term):
    mask = some_mask(2, 6, 5)
    mask[:, :, 3:] = IGNORED
    logits = some_logits(2, 3, 6, 5)
    other = logits.clone()
    other[:, :, :, 3:] *= -20
    loss = SumLoss([term], has_ignored=True, regions=BRATS)
    found = []
    for each in (logits.requires_grad_(), other.requires_grad_()):
        value = loss(each, mask)
        found.append((value.detach(), *torch.autograd.grad(value, each)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not found[0][1][..., 3:].any()
    alone = SumLoss([term], regions=BRATS)(logits[..., :3], mask[..., :3])
    assert found[0][0].item() == pytest.approx(alone.item(), rel=1e-12)


def test_a_loss_of_exclusive_classes_is_refused():
    make_loss((Part(name="dice", args={}), Part(name="ce", args={})), OUTPUTS)
    for name in ("lovasz", "focal"):
        with pytest.raises(SettingError, match=f"loss '{name}' needs exclusive classes"):
            make_loss((Part(name="dice", args={}), Part(name=name, args={})), OUTPUTS)


def test_one_region_alone_is_trained_with_one_output():
    outputs = Outputs(2, regions=((1, 2),), region_order=(1,))
    assert outputs.num_outputs == 1
    loss = make_loss((Part(name="dice", args={}), Part(name="ce", args={})), outputs)
    mask = some_mask(2, 6, 5).clamp(max=2)
    assert loss(80.0 * (mask > 0).double().unsqueeze(1) - 40.0, mask).item() < 1e-8


# metrics


def test_dice_of_each_region_is_that_of_monai_on_the_same_masks():
    probabilities = torch.rand(3, 6, 7, 8, generator=torch.Generator().manual_seed(1))
    mask = some_mask(6, 7, 8).to(torch.uint8)
    prediction = OUTPUTS.predict(probabilities)
    dice = dice_from_counts(OUTPUTS.counts(prediction, mask))
    theirs = compute_dice((probabilities > 0.5).float()[None], region_masks(mask[None]).float())
    torch.testing.assert_close(dice[1:], theirs[0].double(), rtol=1e-6, atol=0)
    assert dice[0].isnan()  # regions have no background


def test_regions_are_predicted_independently_and_written_one_over_the_other():
    """The third voxel is core but not whole: regions need not be nested in a prediction."""
    probabilities = torch.tensor([[0.9, 0.9, 0.4, 0.5, 0.9], [0.1, 0.8, 0.9, 0.5, 0.9], [0.2, 0.3, 0.1, 0.5, 0.6]])
    prediction = OUTPUTS.predict(probabilities)
    found = [OUTPUTS.is_predicted(prediction, k).tolist() for k in (1, 2, 3)]
    assert found == [[True, True, False, False, True], [False, True, True, False, True], [False] * 4 + [True]]
    assert OUTPUTS.labels(prediction).tolist() == [1, 2, 2, 0, 3]
    reverse = Outputs(4, regions=BRATS, region_order=(1, 2, 1))  # the last region overwrites with another class
    assert reverse.labels(prediction).tolist() == [1, 2, 2, 0, 1]


def test_a_mask_that_is_predicted_perfectly_is_written_back_as_it_was():
    mask = some_mask(6, 7, 8).to(torch.uint8)
    prediction = OUTPUTS.predict(region_masks(mask[None])[0].float())
    assert torch.equal(OUTPUTS.labels(prediction), mask)
    assert dice_from_counts(OUTPUTS.counts(prediction, mask))[1:].tolist() == [1.0] * 3


def test_eight_regions_fit_a_prediction_also_with_ignored_voxels():
    regions = tuple((k,) for k in range(1, 9))
    outputs = Outputs(9, has_ignored=True, regions=regions, region_order=tuple(range(1, 9)))
    prediction = outputs.predict(torch.ones(8, 2, 1, 1))
    mask = torch.tensor([8, IGNORED], dtype=torch.uint8).view(2, 1, 1)
    outputs.leave_out(prediction, mask)
    assert outputs.counts(prediction, mask)[:, 1:].tolist() == [[0] * 7 + [1], [1] * 8, [0] * 7 + [1]]


def test_a_phantom_of_regions_trains_and_its_scores_are_those_of_monai_and_of_each_region_alone():
    job = small_job(NESTED, {"train": {"epochs": 8, "steps_per_epoch": 10}, "evaluate": {"soft_dice": True}})
    assert job.model.head.out_channels == 3
    records = [event.result for event in fit(job, TrialProgress()) if isinstance(event, EpochRecord)]
    assert list(records[-1].val_dice_per_class) == ["head", "brain", "white matter"]
    assert records[-1].val_dice_per_class["head"] > 0.9
    assert records[-1].val_dice > records[0].val_dice
    assert records[-1].val_soft_dice > 0.5
    _, val = score_trial(job, 1.0)
    outputs, store = job.evaluator.outputs, job.evaluator.store
    measured = job.evaluator.measure(job.evaluated_model, job.val_cases, keep_predictions=True)
    for case, prediction in zip(job.val_cases, measured.predictions, strict=True):
        scores, mask = val.cases[store.ids[case]], store.mask(case)
        predicted = torch.stack([outputs.is_predicted(prediction, k) for k in (1, 2, 3)])
        theirs = compute_dice(predicted[None].float(), region_masks(mask[None]).float())[0]
        for r, name in enumerate(("head", "brain", "white matter")):
            assert scores.dice[name] == pytest.approx(theirs[r].item(), rel=1e-6)
            alone = surface_scores(predicted[r].numpy(), (mask > r).numpy(), (1.0, 1.0, 1.0), 1.0)
            assert (scores.hd95_mm[name], scores.surface_dice[name]) == alone


def test_a_3d_network_learns_regions_too():
    volumes = {"model": {"dims": 3}, "batch": {"patch_size_px": [16, 16, 16], "size": 2}}
    job = small_job(NESTED, volumes, {"train": {"epochs": 2}})
    records = [event.result for event in fit(job, TrialProgress()) if isinstance(event, EpochRecord)]
    assert records[-1].val_dice_per_class.keys() == {"head", "brain", "white matter"}
    assert records[-1].loss < records[0].loss


# sampling


def test_a_region_is_drawn_first_and_then_any_of_its_voxels():
    """30 voxels of class 1 and 10 of class 3: the regions (1, 3) and (3,) are drawn equally often, (2,) never."""
    mask = torch.zeros(4, 4, 4, dtype=torch.uint8)
    mask.view(-1)[:30] = 1
    mask.view(-1)[30:40] = 3
    foreground = Foreground([mask], by_class=True, regions=((1, 3), (3,), (2,)))
    at = torch.zeros(4000, dtype=torch.int64)
    draws = torch.rand(2, 4000, generator=generator(0, "order", 1), dtype=torch.float64)
    positions = foreground.position(at, foreground.draw(at, draws[0], draws[1]))
    found = mask[tuple(positions.T)]
    # of class 3: half of the draws, and a quarter of the other half; standard deviation 30.6; four of them
    assert abs(int((found == 3).sum()) - 2500) < 123
    assert set(found.tolist()) == {1, 3}


# the whole program


def test_dlx_trains_on_regions_and_says_so(dlx):
    args = ["--data", "phantom:subjects=4,size=24,regions=true", "--val-fraction", "0.25", "--device", "cpu"]
    args += ["--model", "unet2:width=4,levels=2", "--batch-size", "4", "--set", "batch.patch_size_px=[16,16]"]
    args += ["--steps-per-epoch", "3", "--precision", "float32", "--threads", "1", "--epochs", "2", "--json"]
    shown = dlx("train", *args)
    record = json.loads(shown.stdout)
    assert "white matter" in json.dumps(record)
    with pytest.raises(SettingError, match="loss 'lovasz' needs exclusive classes"):
        dlx("train", *args, "--loss", "lovasz", "--dry-run")
