"""Augmentation: what each kind does to a batch, and that it draws from a stream of its own."""

import math
from dataclasses import replace

import pytest
import torch

from dlx.data.batches.augment import Augmenter, rotations
from dlx.engine import checkpoint
from dlx.engine.fit import TrialProgress, begin_epoch, fit
from dlx.settings.spec import AugmentSpec
from dlx.system.errors import SettingError
from dlx.trial.build import make_job
from dlx.trial.resolve import resolve
from small import make_store, small_job, small_resolved, small_spec

OLD = {"flip": 0.5, "rotate_deg": 30.0, "scale": 0.3, "intensity": 0.2, "noise": 0.1}
CHANCES = {"blur": 0.5, "contrast": 0.5, "low_resolution": 0.5, "gamma_inverted": 0.5, "gamma": 0.5}
ALL = OLD | CHANCES


def augmenter(dims=2, batch=4, channels=2, steps=3, seed=0, size=None, **asked):
    made = Augmenter(AugmentSpec(**asked), steps, batch, channels, size or (12,) * dims, torch.device("cpu"))
    made.begin_epoch(torch.Generator().manual_seed(seed), seed)
    return made


def batch(dims=2, size=12, batch=4):
    """Smooth images and masks that follow from them, so that moving both alike keeps them in step."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size)] * dims, indexing="ij")
    first = sum((index + 1) * axis for index, axis in enumerate(axes))
    image = torch.stack([first, first**2]).expand(batch, 2, *[size] * dims).clone()
    return image, (image[:, 0] > 0.2).long()


AT = torch.zeros(1, dtype=torch.int64)


def test_nothing_is_changed_unless_asked_for():
    image, mask = batch()
    moved, labels = augmenter()(image, mask, AT)
    assert torch.equal(moved, image)
    assert torch.equal(labels, mask)
    assert small_job().step.augmenter is None


def test_a_sure_flip_turns_every_axis():
    image, mask = batch()
    moved, labels = augmenter(flip=1.0)(image, mask, AT)
    assert torch.equal(moved, image.flip(2, 3))
    assert torch.equal(labels, mask.flip(1, 2))


@pytest.mark.parametrize(("axes", "turned"), [([0], [2]), ([1], [3]), ([0, 1], [2, 3])])
def test_flips_are_along_the_axes_that_are_asked_for(axes, turned):
    image, mask = batch()
    moved, labels = augmenter(flip=1.0, flip_axes=axes)(image, mask, AT)
    assert torch.equal(moved, image.flip(turned))
    assert torch.equal(labels, mask.flip([axis - 1 for axis in turned]))


def test_an_axis_that_patches_do_not_have_is_refused():
    with pytest.raises(SettingError, match=r"augment\.flip_axes.*2D.*got 2"):
        small_resolved({"augment": {"flip_axes": [0, 2]}})


def test_flips_are_coins_for_each_patch_and_axis():
    flips = augmenter(flip=0.25, batch=64, steps=40).flips.double()
    assert flips.mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / flips.numel()))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_torchs(quarters):
    image, mask = batch()
    turning = augmenter(rotate_deg=180.0)
    angles = torch.full((3, 4, 3), quarters * math.pi / 2)
    turning.affine[..., :-1].copy_(rotations(angles, 2))
    moved, labels = turning(image, mask, AT)
    torch.testing.assert_close(moved, image.rot90(quarters, (2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(labels, mask.rot90(quarters, (1, 2)))


def test_turns_of_a_patch_that_is_no_square_keep_its_shapes():
    # a disc stays a disc only if both axes are turned in pixels and not in shares of their sides
    rows, columns = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(96.0) - 47.5, indexing="ij")
    radius = (rows**2 + columns**2).sqrt()
    disc = (radius < 16).long().expand(4, 48, 96)
    turning = augmenter(rotate_deg=180.0, size=(48, 96))
    turning.affine[..., :-1].copy_(rotations(torch.full((3, 4, 3), 0.7), 2))
    _, labels = turning(torch.zeros(4, 2, 48, 96), disc, AT)
    turned = (labels != disc) & (radius < 24)  # farther out the reflected patch comes in
    assert turned.double().mean() < 0.01


def test_turns_of_voxels_of_unlike_sides_keep_shapes_in_mm():
    rows, columns = torch.meshgrid(3 * (torch.arange(32.0) - 15.5), torch.arange(96.0) - 47.5, indexing="ij")
    radius = (rows**2 + columns**2).sqrt()
    disc = (radius < 32).long().expand(4, 32, 96)
    turned_wrongly = []
    for voxel_size in ((3.0, 1.0), None):
        turning = Augmenter(AugmentSpec(rotate_deg=180.0), 3, 4, 2, (32, 96), torch.device("cpu"), voxel_size)
        turning.affine[..., :-1].copy_(rotations(torch.full((3, 4, 3), 0.7), 2))
        _, labels = turning(torch.zeros(4, 2, 32, 96), disc, AT)
        turned_wrongly.append(((labels != disc) & (radius < 48)).double().mean().item())
    assert turned_wrongly[0] < 0.02 < 0.1 < turned_wrongly[1]


def test_a_trial_turns_patches_by_the_voxel_sizes_of_its_axes():
    resolved = small_resolved()
    cases = tuple(replace(case, spacing_mm=(2.5, 1.0, 2.0)) for case in resolved.dataset.cases)
    dataset = replace(resolved.dataset, cases=cases)
    turns = {"augment": {"rotate_deg": 10.0}}
    unlike = resolve(small_spec(turns), dataset)
    assert unlike.patch_voxel_size == (1.0, 2.0)
    assert "rotation in mm" in unlike.settings(0)["revisions"]
    assert "revisions" not in small_resolved(turns).settings(0)
    assert "revisions" not in resolve(small_spec(), dataset).settings(0)
    sides = make_job(unlike, make_store(unlike), 0).step.augmenter.side_ratios
    assert sides.tolist() == [[1.0, 0.5], [2.0, 1.0]]  # x of 2 mm, y of 1 mm, 16 voxels each


def test_twice_the_size_is_twice_the_size():
    image, mask = batch(size=16)
    growing = augmenter(scale=1.0)
    growing.affine[..., :-1].copy_(torch.eye(2) / 2)
    _, labels = growing(image, mask, AT)
    expected = mask[:, 4:12, 4:12].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(labels, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_mask_move_together(dims):
    image, mask = batch(dims, size=16)
    moved, labels = augmenter(dims, flip=0.5, rotate_deg=25.0, scale=0.2)(image, mask, AT)
    assert not torch.equal(moved, image)
    assert ((moved[:, 0] > 0.2).long() != labels).double().mean() < 0.06  # the voxels at the edge: linear and nearest
    assert set(labels.unique().tolist()) <= {0, 1}
    format_ = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert moved.is_contiguous(memory_format=format_)


def test_intensities_are_scaled_and_shifted_within_what_is_asked_for():
    made = augmenter(intensity=0.25, batch=50, steps=20)
    assert 0.8 <= made.gain.min() < 0.82 < 1.23 < made.gain.max() <= 1.25
    assert -0.25 <= made.shift.min() < -0.24 < 0.24 < made.shift.max() <= 0.25
    image, mask = batch(batch=50)
    moved, labels = made(image, mask, AT)
    expected = image * made.gain[0].view(50, 2, 1, 1) + made.shift[0].view(50, 2, 1, 1)
    torch.testing.assert_close(moved, expected)
    assert torch.equal(labels, mask)


def test_noise_has_the_deviation_that_was_drawn():
    made = augmenter(noise=0.5)
    image, mask = batch(size=64)
    change = made(image, mask, AT)[0] - image
    torch.testing.assert_close(change.flatten(1).std(1), made.noise_sd[0], rtol=0.05, atol=0)


def test_rotations_turn_lengths_into_equal_lengths():
    turns = rotations(torch.rand(5, 6, 3, dtype=torch.float64) * 6, 3)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand(5, 6, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(5, 6, dtype=torch.float64))


def test_one_kind_leaves_the_draws_of_another_as_they_are():
    both, alone = augmenter(**ALL), augmenter(flip=0.5)
    assert torch.equal(both.flips, alone.flips)
    assert torch.equal(augmenter(intensity=0.2).gain, both.gain)


def test_the_draws_of_the_first_kinds_are_those_of_a_fixed_order():
    # a table of the stream as it was before other kinds were added: recorded trials depend on it
    made = augmenter(seed=5, **OLD)
    stream = torch.Generator().manual_seed(5)

    def uniform(*sizes):
        return torch.rand((3, 4, *sizes), generator=stream, dtype=torch.float64)

    flips, angles, sizes, gain, shift, noise = uniform(2), uniform(3), uniform(1), uniform(2), uniform(2), uniform()
    assert torch.equal(made.flips, flips < 0.5)
    turned = rotations((2 * angles - 1) * math.radians(30), 2) / (1.3 ** (2 * sizes - 1)).unsqueeze(-1)
    assert torch.equal(made.affine[..., :-1], turned.float())
    assert torch.equal(made.gain, (1.2 ** (2 * gain - 1)).float())
    assert torch.equal(made.shift, ((2 * shift - 1) * 0.2).float())
    assert torch.equal(made.noise_sd, (noise * 0.1).float())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", CHANCES)
def test_each_chance_changes_its_share_of_the_patches_and_leaves_the_others_bit_for_bit(kind, dims):
    made = augmenter(dims, batch=400, size=(6,) * dims, **{kind: 0.25})
    format_ = torch.channels_last if dims == 2 else torch.channels_last_3d
    image = torch.randn(400, 2, *[6] * dims, generator=torch.Generator().manual_seed(1)).to(memory_format=format_)
    mask = torch.zeros(400, *[6] * dims, dtype=torch.int64)
    before = image.clone()
    changed, labels = made(image, mask, AT)
    is_changed = (changed != before).flatten(1).any(1)
    assert is_changed.double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))
    assert torch.equal(image, before)  # not in place: the batch may be the store's
    assert torch.equal(labels, mask)
    assert changed.isfinite().all()
    assert changed.is_contiguous(memory_format=format_)
    drawn = {"blur": "blur_sigmas", "low_resolution": "low_sizes", "gamma_inverted": "inverted_exponents"}
    drawn |= {"contrast": "contrast", "gamma": "exponents"}
    neutral = {"blur": 0, "low_resolution": 6}.get(kind, 1)
    asked = (getattr(made, drawn[kind])[0] != neutral).any(1)
    assert not (is_changed & ~asked).any()


def test_half_of_the_factors_are_below_one_and_all_are_between_the_ends():
    made = augmenter(contrast=1.0, contrast_range=[0.5, 4.0], gamma=1.0, gamma_range=[2.0, 3.0], batch=200)
    assert 0.5 <= made.contrast.min() < 0.52 < 3.9 < made.contrast.max() <= 4.0
    assert (made.contrast < 1).double().mean().item() == pytest.approx(0.5, abs=0.06)
    assert 2.0 <= made.exponents.min() < 2.05 < 2.95 < made.exponents.max() <= 3.0


def test_ends_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="lower end first"):
        AugmentSpec(gamma_range=(1.5, 0.7))


def results(job):
    return [event.result for event in fit(job, TrialProgress()) if hasattr(event, "result")]


def test_an_augmented_trial_starts_alike_sees_the_same_patches_and_repeats():
    plain, one, other = small_job(), small_job({"augment": ALL}), small_job({"augment": ALL})
    assert checkpoint.weights_hash(plain.model) == checkpoint.weights_hash(one.model)
    a, b = TrialProgress(), TrialProgress()
    begin_epoch(plain, a, 1)
    begin_epoch(one, b, 1)
    assert a.batches_hash == b.batches_hash
    expected = results(one)
    assert results(other) == expected
    assert expected != results(plain)


def test_an_augmentation_that_is_off_leaves_a_trials_name_alone():
    assert small_resolved().trial_id(0) == small_resolved({"augment": {"flip": 0.0}}).trial_id(0)
    assert small_resolved().trial_id(0) != small_resolved({"augment": {"flip": 0.5}}).trial_id(0)
