"""Voxels under an ignore label: in no loss, no gradient, no metric and no sample, and no output of the network."""

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from torch import nn

from dlx.data import cache_file
from dlx.data.batches.sampler import Foreground, PatchSampler, PatchSource
from dlx.data.batches.valid_voxels import ValidVoxels
from dlx.data.cases import IGNORED
from dlx.data.checks.remarks import ignored_voxels
from dlx.data.dataset import open_dataset
from dlx.data.prepare import to_classes
from dlx.engine import checkpoint
from dlx.engine.fit import TrialProgress, fit
from dlx.engine.randomness import generator
from dlx.engine.score import score_trial
from dlx.records.schema import EpochRecord
from dlx.scoring.outputs import Outputs
from dlx.settings import registry
from dlx.settings.part import Part
from dlx.settings.spec import DataSpec
from dlx.system.errors import DataError, SettingError
from dlx.training.deep_supervision import DeepSupervision
from dlx.training.losses import SumLoss
from dlx.trial.build import make_job
from dlx.trial.factories import make_loss
from small import make_store, small_job, small_resolved
from step_settings import LEAVING_OUT, SPARSE
from test_losses import K, build, some_logits, some_mask
from test_voxel_store import make_case

LOSSES = {name: (name, {}) for name in LEAVING_OUT} | {
    "lovasz, sorted": ("lovasz", {"bins": None}),
    "dice of each sample": ("dice", {"batch": False, "include_background": True}),
    "weighted ce": ("ce", {"class_weights": [0.1, 0.4, 0.2, 0.3]}),
    "weighted focal": ("focal", {"class_weights": [0.1, 0.4, 0.2, 0.3], "gamma": 0.5}),
}
every_loss = pytest.mark.parametrize(("name", "args"), LOSSES.values(), ids=LOSSES)


def test_all_losses_of_dlx_can_leave_voxels_out():
    assert set(LEAVING_OUT) >= {"ce", "dice", "focal", "lovasz"}


def leaving_out(name, args):
    return SumLoss([build(name, **args)], has_ignored=True)


def partly_ignored(*shape, seed=3):
    mask = some_mask(*shape)
    is_ignored = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    return torch.where(is_ignored, IGNORED, mask), is_ignored


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_the_network_says_of_ignored_voxels_changes_no_bit_of_loss_and_gradient(name, args, dtype):
    mask, is_ignored = partly_ignored(3, 8, 8)
    logits = some_logits(3, K, 8, 8, dtype=dtype)
    other = torch.where(is_ignored.unsqueeze(1), 50.0 * some_logits(3, K, 8, 8, seed=9, dtype=dtype), logits)
    found = []
    for each in (logits.requires_grad_(), other.requires_grad_()):
        loss = leaving_out(name, args)(each, mask)
        found.append((loss.detach(), *torch.autograd.grad(loss, each)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not found[0][1][is_ignored.unsqueeze(1).expand_as(logits)].any()
    assert found[0][1].any()


@every_loss
def test_a_loss_that_leaves_voxels_out_is_the_loss_of_the_others(name, args):
    """Everything but a box is ignored, so that the other voxels can be given to the plain loss alone."""
    logits, mask = some_logits(2, K, 9, 7), some_mask(2, 9, 7)
    boxed = torch.full_like(mask, IGNORED)
    boxed[:, 2:8, 1:6] = mask[:, 2:8, 1:6]
    expected = build(name, **args)(logits[:, :, 2:8, 1:6], mask[:, 2:8, 1:6])
    assert leaving_out(name, args)(logits, boxed).item() == pytest.approx(expected.item(), rel=1e-12)


@every_loss
def test_a_batch_of_ignored_voxels_alone_has_no_loss_and_no_gradient(name, args):
    logits = some_logits(2, K, 4, 4).requires_grad_()
    loss = leaving_out(name, args)(logits, torch.full((2, 4, 4), IGNORED))
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, logits)[0].any()


@every_loss
def test_a_sample_of_ignored_voxels_alone_counts_as_if_it_were_not_in_the_batch(name, args):
    logits, mask = some_logits(2, K, 9, 7).requires_grad_(), some_mask(2, 9, 7)
    mask[1] = IGNORED
    together, alone = leaving_out(name, args)(logits, mask), leaving_out(name, args)(logits[:1], mask[:1])
    assert together.item() == pytest.approx(alone.item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (together, alone)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("regions", [(), ((1, 2, 3), (2, 3), (3,))])
@pytest.mark.parametrize("num_ignored", [1, 3])
def test_dice_of_each_sample_is_the_mean_over_samples_with_a_valid_voxel_to_the_bit(regions, num_ignored):
    logits, mask = some_logits(1 + num_ignored, len(regions) or K, 9, 7), some_mask(1 + num_ignored, 9, 7)
    mask[1:] = IGNORED
    loss = SumLoss([build("dice", batch=False)], has_ignored=True, regions=regions)
    assert loss(logits, mask).item() == loss(logits[:1], mask[:1]).item() > 0.1


def test_deep_supervision_is_the_mean_over_the_levels_that_have_a_valid_voxel():
    """Only an even row is valid, in which no centre of a coarse voxel lies: the second level has no valid voxel."""
    logits = [some_logits(1, K, 8, 8), some_logits(1, K, 4, 4)]
    mask = torch.full((1, 8, 8), IGNORED)
    mask[:, 2] = some_mask(1, 8)
    for name in LEAVING_OUT:
        loss = leaving_out(name, {})
        assert DeepSupervision(loss)(logits, mask).item() == loss(logits[0], mask).item() > 0.0
        assert DeepSupervision(loss)(logits, torch.full_like(mask, IGNORED)).item() == 0.0


class NoValid(nn.Module):
    def __init__(self, num_classes):
        super().__init__()

    def forward(self, logits, mask):
        return logits.mean()


def test_a_loss_that_cannot_leave_voxels_out_is_refused_for_such_data_only(monkeypatch):
    monkeypatch.setitem(registry.PARTS["loss"], "mine", f"{__name__}:NoValid")
    make_loss((Part(name="mine"),), Outputs(K))
    with pytest.raises(SettingError, match="loss 'mine' cannot leave out"):
        make_loss((Part(name="mine"),), Outputs(K, has_ignored=True))


class Contrary(nn.Module):
    """Says the opposite of a network in the slices that have no labels."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, slices):
        signs = torch.ones(len(slices), 1, 1, 1)
        signs[torch.arange(len(slices)) % 3 != 1] = -1.0
        return signs * self.model(slices)


def test_predictions_of_ignored_voxels_change_no_metric():
    job = small_job(SPARSE, {"evaluate": {"soft_dice": True}})
    job.model.eval()
    found = []
    for model in (job.model, Contrary(job.model)):
        job.model = model
        measured = job.evaluator.measure(model, job.val_cases, keep_predictions=True)
        found.append((score_trial(job, 1.0), measured))
    assert found[0][0] == found[1][0]
    assert found[0][0][1].dice is not None
    assert torch.equal(found[0][1].counts, found[1][1].counts)
    assert torch.equal(found[0][1].soft, found[1][1].soft)


def test_dice_is_that_of_the_labelled_voxels_by_hand():
    prediction = torch.tensor([[[0, 1, 1, 2, 2, 1]]], dtype=torch.uint8)
    mask = torch.tensor([[[1, 1, IGNORED, 2, 0, IGNORED]]], dtype=torch.uint8)
    outputs = Outputs(3, has_ignored=True)
    outputs.leave_out(prediction, mask)
    # without the third and the sixth voxel: 0 1 2 2 against 1 1 2 0; rows: both, prediction, mask
    assert outputs.counts(prediction, mask).tolist() == [[0, 1, 1], [1, 1, 2], [1, 2, 1]]


def images_under_ignore_changed(store):
    """Noise in all slices without labels."""
    for case in range(len(store.ids)):
        start, (depth, height, width) = store.offsets[case], store.shapes[case]
        voxels = store.images[start : start + store.voxels(case)].view(depth, height * width, -1)
        slices = torch.arange(depth) % 3 != 1
        voxels[slices] = torch.randn(voxels[slices].shape, generator=torch.Generator().manual_seed(case)).half()


@pytest.mark.parametrize("loss", ["dice+ce", "focal+lovasz"])
def test_training_on_slices_apart_is_the_same_whatever_lies_under_the_ignore_label(loss):
    """To the bit, in weights and in all records: without batch norm a 2D network sees each slice by itself."""
    resolved = small_resolved(SPARSE, {"loss": loss, "model": {"norm": "instance"}, "evaluate": {"soft_dice": True}})
    found = []
    for change in (lambda _: None, images_under_ignore_changed):
        store = make_store(resolved)
        change(store)
        job = make_job(resolved, store, 0)
        start = checkpoint.weights_hash(job.model)
        records = [event.result for event in fit(job, TrialProgress()) if isinstance(event, EpochRecord)]
        found.append((records, score_trial(job, 1.0), checkpoint.weights_hash(job.model)))
        assert start != found[-1][2]
    assert found[0] == found[1]


def test_ignored_voxels_are_no_foreground_and_in_no_box_and_no_class():
    case = make_case("a", (5, 6, 7))
    case.mask[:] = IGNORED
    case.mask[2, 3, 1:4] = (0, 2, 0)
    assert case.class_voxels == (2, 0, 1)
    assert case.classes == {0, 2}
    assert case.label_box == ((2, 3), (3, 4), (2, 3))
    assert case.ignored_fraction == pytest.approx(207 / 210)
    for by_class in (False, True):
        assert Foreground([torch.from_numpy(case.mask)], by_class=by_class).counts.tolist() == [1]
    case = make_case("b", (2, 2, 2))
    case.mask[:] = IGNORED
    assert (case.class_voxels, case.ignored_fraction, case.label_box) == ((), 1.0, ((0, 2), (0, 2), (0, 2)))


def test_each_valid_voxel_of_a_box_is_drawn_by_its_number():
    masks = [torch.randint(3, shape, generator=torch.Generator().manual_seed(0)) for shape in [(5, 6, 7), (4, 3, 9)]]
    masks = [torch.where(mask == 2, IGNORED, mask).to(torch.uint8) for mask in masks]
    masks[1][-1, -1, -1] = 1  # a run at the end
    boxes = [((1, 4), (0, 6), (2, 7)), ((0, 4), (0, 3), (0, 9))]
    kept = ValidVoxels([masks[0], torch.full((2, 2, 2), IGNORED), masks[1]], [boxes[0], ((0, 2),) * 3, boxes[1]])
    for case, mask, ((d, d_end), (h, h_end), (w, w_end)) in zip((0, 2), masks, boxes, strict=True):
        expected = (mask[d:d_end, h:h_end, w:w_end] != IGNORED).nonzero() + torch.tensor([d, h, w])
        count = len(expected)
        assert kept.counts.tolist()[case] == count
        uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        assert torch.equal(kept.draw(torch.full((count,), case), uniform), expected)
    assert kept.counts[1] == 0


PATCHES = {
    "slices": {},
    "slices along another axis": {"batch": {"slice_axis": 2}},
    "slices of the labelled box": {"data": {"crop": True}},
    "slices, half on foreground": {"batch": {"foreground_fraction": 0.5}},
    "volumes": {"model": {"dims": 3}, "batch": {"patch_size_px": [1, 16, 16], "size": 4}},
    "block": {"batch": {"kind": "block", "size": 2}},
}


def sources(change):
    """The batches of a trial, and those that it would draw if nothing of its data were ignored."""
    source = small_job(SPARSE, change).step.source
    plain = dataclasses.replace(source.sampler, has_ignored=False)
    batch = small_resolved(SPARSE, change).spec.batch
    other = PatchSource(source.store, plain, batch, source.dims, source.device, source.num_steps)
    return source, other


def valid_patches(source):
    """Whether each patch of two epochs holds a voxel that is not ignored."""
    found = []
    for epoch in (1, 2):
        source.begin_epoch(generator(0, "order", epoch))
        for cases, starts in zip(source.cases, source.starts, strict=True):
            for case, start in zip(cases.tolist(), starts.tolist(), strict=True):
                ends = (at + size for at, size in zip(start, source.sampler.extent, strict=True))
                place = tuple(slice(max(0, at), end) for at, end in zip(start, ends, strict=True))
                found.append(bool((source.store.mask(case)[place] != IGNORED).any()))
    return found


@pytest.mark.parametrize("change", PATCHES.values(), ids=PATCHES)
def test_every_patch_holds_a_voxel_that_is_not_ignored(change):
    source, other = sources(change)
    assert all(valid_patches(source))
    if source.slice_axis == 0:  # the axis along which two of three slices are ignored
        assert not all(valid_patches(other))
    else:
        assert all(valid_patches(other))


def test_patches_are_drawn_uniformly_from_the_valid_voxels_and_cases_as_before():
    source, other = sources({"train": {"steps_per_epoch": 300}})
    for one in (source, other):
        one.begin_epoch(generator(0, "order", 1))
    assert torch.equal(source.cases, other.cases)
    depths = source.starts[..., 0].flatten()
    assert set(depths.tolist()) == set(range(1, 24, 3))
    # 1200 draws of 8 slices: standard deviation 11.5; four of them
    assert (depths.bincount(minlength=24)[1::3] - 150).abs().max() < 46
    # of 24 voxels along an axis, patches of 16 around the first 9 start at 0 and around the last 8 at 8
    assert 0.3 < float((source.starts[..., 1] == 0).float().mean()) < 0.45


def test_patches_on_foreground_are_the_same_whether_or_not_others_avoid_ignored_voxels():
    source, other = sources({"batch": {"foreground_fraction": 1.0}})
    for one in (source, other):
        one.begin_epoch(generator(0, "order", 1))
    assert source.index_bytes() == other.index_bytes()


def test_a_case_of_ignored_voxels_alone_is_drawn_from_as_if_nothing_were_ignored():
    masks, boxes = [torch.full((9, 9, 9), IGNORED, dtype=torch.uint8)], (((0, 9),) * 3,)
    plan = PatchSampler((1, 4, 4), (0,), boxes)
    plain, drawn = (
        plan.draw_epoch(20, 4, generator(0, "order", 1), valid=valid) for valid in (None, ValidVoxels(masks, boxes))
    )
    assert torch.equal(plain[1], drawn[1])


def test_the_network_has_no_output_for_ignored_voxels_and_a_note_says_how_many_there_are():
    resolved = small_resolved(SPARSE)
    assert resolved.dataset.classes == ("background", "CSF", "GM", "WM")
    assert small_job(SPARSE).evaluator.outputs == Outputs(4, has_ignored=True)
    assert [line for line in resolved.remarks if line.startswith("ignore label: 66.7 %")]
    plain = small_resolved()
    assert ignored_voxels(plain.dataset, plain.dataset.cases) == []
    assert plain.dataset.fingerprint != resolved.dataset.fingerprint


def test_data_without_an_ignore_label_are_trained_without_any_of_this():
    job = small_job()
    assert not job.step.loss.has_ignored
    assert not job.evaluator.outputs.has_ignored
    assert job.step.source.valid is None


def test_a_mask_of_labels_becomes_classes_and_ignored_voxels(tmp_path):
    labels = np.array([[[[0, 5, 9, 3]]]])
    assert to_classes(labels, (0, 3, 5), tmp_path, 9).tolist() == [[[0, 2, IGNORED, 1]]]
    with pytest.raises(DataError, match="undeclared label values: 9"):
        to_classes(labels, (0, 3, 5), tmp_path)


@pytest.fixture
def nnunet(tmp_path):
    """Two cases with the values 0, 1 and, in the last plane, 2, which is ignored."""
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for case in ("a", "b"):
        mask = rng.integers(0, 2, (4, 5, 6)).astype(np.uint8)
        mask[-1] = 2
        sitk.WriteImage(sitk.GetImageFromArray(mask), tmp_path / f"labelsTr/{case}.nii.gz")
        image = rng.normal(100, 10, mask.shape).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(image), tmp_path / f"imagesTr/{case}_0000.nii.gz")
    labels = {"background": 0, "left": 1, "ignore": 2}
    description = {"channel_names": {"0": "T1"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def test_an_nnunet_folder_with_an_ignore_label_is_read_also_from_its_cache(nnunet, tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("cache")
    spec = DataSpec(source=str(nnunet))
    first, again = (open_dataset(spec, cache_dir=cache_dir) for _ in range(2))
    for data in (first, again):
        assert (data.classes, data.label_values, data.ignored_value) == (("background", "left"), (0, 1), 2)
        assert all((case.mask[-1] == IGNORED).all() and case.mask[:-1].max() == 1 for case in data.cases)
    assert first.fingerprint == again.fingerprint
    (file,) = cache_dir.glob("*.safetensors")
    assert cache_file.read_cache(file).ignored_value == 2


def test_the_ignore_label_must_have_the_highest_value(nnunet):
    path = nnunet / "dataset.json"
    path.write_text(path.read_text().replace('"left": 1, "ignore": 2', '"ignore": 1, "left": 2'))
    with pytest.raises(DataError, match=r"label 'ignore' has the value 1; .*'left' has 2"):
        open_dataset(DataSpec(source=str(nnunet)), cache_dir=None)
