"""What `model.dims=auto` and `batch.size=auto` choose for given data and memory."""

from dataclasses import replace
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import nn

from dlx.engine.footprint import forward_bytes, training_bytes
from dlx.models.architectures.unet import unet2
from dlx.scoring.outputs import Outputs
from dlx.settings.binding import bind_parts
from dlx.system.errors import SettingError
from dlx.trial import fit_batch
from dlx.trial.evaluation_memory import evaluation_bytes
from dlx.trial.factories import make_model, make_training_loss, outputs_of
from dlx.trial.fit_batch import filled, remarks_on_limits, shortened, voxels_in_memory
from dlx.trial.resolve import resolve
from small import small_resolved, small_spec

AUTO = {"model": {"dims": "auto"}, "batch": {"size": "auto", "patch_size_px": None}}


def with_shapes(dataset, shape, spacing):
    """The data with every case cut to `shape`, and voxels of `spacing` mm."""
    window = tuple(slice(0, size) for size in shape)
    cases = [
        replace(case, image=case.image[window], mask=case.mask[window], spacing_mm=spacing) for case in dataset.cases
    ]
    return replace(dataset, cases=tuple(cases))


@pytest.mark.parametrize(
    ("shape", "spacing", "dims"),
    [
        ((24, 24, 24), (1.0, 1.0, 1.0), 3),
        ((24, 24, 24), (3.0, 1.0, 1.0), 3),
        ((24, 24, 24), (3.1, 1.0, 1.0), 2),  # thick slices
        ((24, 24, 24), (1.0, 1.0, 3.1), 2),
        ((8, 24, 24), (1.0, 1.0, 1.0), 3),
        ((7, 24, 24), (1.0, 1.0, 1.0), 2),  # a thin volume
        ((1, 24, 24), (1.0, 1.0, 1.0), 2),  # single slices
    ],
)
def test_dims_auto_is_3_for_volumes_and_2_for_slices(shape, spacing, dims):
    dataset = with_shapes(small_resolved().dataset, shape, spacing)
    resolved = resolve(small_spec(AUTO), dataset)
    assert resolved.spec.model.args["dims"] == dims
    assert len(resolved.spec.batch.patch_size_px) == dims
    (line,) = (remark for remark in resolved.remarks if remark.startswith(f"model.dims=auto: {dims} "))
    assert (f"{' x '.join(map(str, shape))} voxels (D, H, W)" in line) == (dims == 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_single_slices_are_slices_along_the_axis_of_one_voxel(axis):
    shape = tuple(1 if at == axis else 24 for at in range(3))
    spec = resolve(small_spec(AUTO), with_shapes(small_resolved().dataset, shape, (1.0, 1.0, 1.0))).spec
    assert (spec.model.args["dims"], spec.batch.slice_axis) == (2, axis)
    assert spec.batch.patch_size_px == (24, 24)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_thin_volumes_are_cut_across_the_thinnest_axis(axis):
    shape = tuple(5 if at == axis else 24 for at in range(3))
    spacing = tuple(2.0 if at == axis else 1.0 for at in range(3))
    dataset = with_shapes(small_resolved().dataset, shape, spacing)
    resolved = resolve(small_spec(AUTO), dataset)
    assert (resolved.spec.model.args["dims"], resolved.spec.batch.slice_axis) == (2, axis)
    assert resolved.spec.batch.patch_size_px == (24, 24)
    said = [remark for remark in resolved.remarks if remark.startswith("batch.slice_axis")]
    assert len(said) == (axis != 0)  # and none that asks whether another axis was meant
    assert all(f"array axis {axis} of (D, H, W), along which the volumes are 5 voxels thick" in line for line in said)
    given = resolve(small_spec(AUTO, {"model": {"dims": 2}}), dataset)
    assert given.trial_id(0) == resolved.trial_id(0)


@pytest.mark.parametrize("fold", [0, 1])
def test_slices_are_cut_across_the_axis_that_is_thin_in_all_cases_together(fold):
    dataset = small_resolved().dataset
    cases = [
        replace(case, image=case.image[:, :, :width], mask=case.mask[:, :, :width])
        for case, width in zip(dataset.cases, (5, 24, 6, 7), strict=True)
    ]
    split = {"split": {"val_fraction": None, "fold": fold, "folds": 2}}
    spec = resolve(small_spec(AUTO, split), replace(dataset, cases=tuple(cases))).spec
    assert (spec.model.args["dims"], spec.batch.slice_axis) == (2, 2)


def test_dims_given_are_kept_and_give_the_same_trial_as_auto_that_chose_them():
    auto = small_resolved(AUTO)
    given = small_resolved(AUTO, {"model": {"dims": 3}})
    assert auto.trial_id(0) == given.trial_id(0)


def test_the_folds_of_a_cross_validation_agree_in_dims():
    dataset = small_resolved().dataset
    cases = [
        replace(case, image=case.image[:depth], mask=case.mask[:depth])
        for case, depth in zip(dataset.cases, (6, 7, 8, 24), strict=True)
    ]
    dataset = replace(dataset, cases=tuple(cases))
    splits = [{"split": {"val_fraction": None, "fold": fold, "folds": 2}} for fold in (0, 1)]
    assert len({resolve(small_spec(AUTO, split), dataset).spec.model.args["dims"] for split in splits}) == 1


def test_limits_of_a_batch_are_in_no_trial_id_but_through_what_they_chose():
    limits = ({}, {"max_voxels": 200_001}, {"max_patches": 15})
    assert len({small_resolved(AUTO, {"batch": limit}).trial_id(0) for limit in limits}) == 1
    without_auto = small_resolved({"batch": {"max_voxels": 5, "max_patches": 5}})
    assert without_auto.trial_id(0) == small_resolved().trial_id(0)
    for limit in ("max_voxels", "max_patches"):
        assert f"batch.{limit}: has no effect, because batch.size is not auto" in without_auto.remarks


@pytest.mark.parametrize(("dims", "norm"), [(2, "batch"), (3, "instance")])
def test_norm_auto_is_batch_in_2d_and_instance_in_3d(dims, norm):
    auto, given = (
        small_resolved(AUTO, {"model": {"dims": dims, "norm": asked, "down": "conv", "down_norm": asked}})
        for asked in ("auto", norm)
    )
    assert auto.spec.model.args["norm"] == auto.spec.model.args["down_norm"] == norm
    assert auto.trial_id(0) == given.trial_id(0)


@pytest.mark.parametrize("size", [0, -1, "big", 2.5, True])
def test_a_batch_size_that_is_neither_a_number_nor_auto_is_refused_by_its_name(size):
    with pytest.raises(SettingError, match=r"^batch\.size: expected the number of patches.* or auto"):
        small_spec({"batch": {"size": size}})


def test_without_data_auto_is_refused():
    dataset = small_resolved().dataset
    with pytest.raises(SettingError, match=r"model\.dims"):
        make_model(small_spec(AUTO), dataset)


@pytest.mark.parametrize(
    ("dims", "max_voxels", "patch", "size"),
    [
        (3, 3 * 24**3, (24, 24, 24), 3),
        (3, 4 * 24**3 - 1, (24, 24, 24), 3),
        (3, 2 * 22 * 24 * 24, (22, 24, 24), 2),  # two patches must fit: the first of the longest sides is shortened
        (2, 200_000, (24, 24), 16),
        (2, 8 * 576, (24, 24), 8),
        (2, 8 * 576 - 1, (22, 24), 8),
    ],
)
def test_size_auto_fills_the_voxels_with_patches_of_the_median_shape(dims, max_voxels, patch, size):
    resolved = small_resolved(AUTO, {"model": {"dims": dims}, "batch": {"max_voxels": max_voxels}})
    assert (resolved.spec.batch.patch_size_px, resolved.spec.batch.size) == (patch, size)


def test_a_patch_that_is_given_is_kept():
    resolved = small_resolved(AUTO, {"batch": {"patch_size_px": [8, 16, 12], "max_voxels": 10_000}})
    assert (resolved.spec.batch.patch_size_px, resolved.spec.batch.size) == ((8, 16, 12), 6)


@pytest.mark.parametrize(
    ("in_memory", "patch", "size"),
    [
        (None, (24, 24, 24), 14),
        (10**9, (24, 24, 24), 14),
        (50_000, (24, 24, 24), 3),
        (2 * 24 * 24 * 22, (22, 24, 24), 2),
        (1, (2, 2, 2), 1),
    ],
)
def test_little_memory_gives_fewer_and_then_smaller_patches(in_memory, patch, size):
    assert filled((24, 24, 24), 2, 2, 200_000, 100, lambda _: in_memory) == (patch, size, in_memory)


def test_the_voxels_in_memory_are_those_of_half_of_it_and_twice_the_tensors():
    resolved = small_resolved(AUTO)
    with torch.device("meta"):
        model = make_model(resolved.spec, resolved.dataset)
    loss = make_training_loss(resolved.spec, outputs_of(resolved.dataset), model).to("meta")
    taken = [training_bytes(model, loss, (count, 2, 16, 16, 16)) for count in (2, 3, 4)]
    assert taken[0] > 2 * 4 * 4 * 16**3  # the first level alone keeps four float32 features of each voxel
    assert taken[2] - taken[1] == pytest.approx(taken[1] - taken[0], rel=0.01)
    assert voxels_in_memory(model, loss, 2, (16, 16, 16), memory=40 * (taken[1] - taken[0])) == 10 * 16**3
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("levels", [1, 3])
def test_the_memory_of_a_step_has_the_probabilities_of_all_classes_and_levels(levels):
    settings = {"model": {"dims": 3, "levels": levels + 1, "deep_supervision": levels - 1}}
    spec = small_spec(settings, {"loss": "dice+ce"})
    taken = []
    for num_classes in (4, 104):
        with torch.device("meta"):
            model = unet2(1, num_classes, spec.dropout, width=4, levels=levels + 1, dims=3, deep_supervision=levels - 1)
        loss = make_training_loss(bind_parts(spec), Outputs(num_classes), model).to("meta")
        one, two = (training_bytes(model, loss, (count, 1, 16, 16, 16)) for count in (2, 3))
        taken.append(two - one)
    voxels = 16**3 * sum(8.0**-level for level in range(levels))
    assert taken[1] - taken[0] > 2 * 4 * 100 * voxels  # logits and their gradient, in float32


def test_the_memory_of_batch_norm_is_counted_where_one_patch_is_one_voxel_at_the_deepest_level():
    resolved = small_resolved(AUTO, {"model": {"dims": 2, "norm": "batch", "levels": 3}})
    with torch.device("meta"):
        model = make_model(resolved.spec, resolved.dataset)
    loss = make_training_loss(resolved.spec, outputs_of(resolved.dataset), model).to("meta")
    assert voxels_in_memory(model, loss, 2, (4, 4), memory=2**30) > 0


@pytest.mark.parametrize(
    ("fitted", "wanted", "room", "said"),
    [
        (((8, 8), 3), ((8, 8), 3), 10_000, []),
        (((8, 8), 3), ((8, 8), 4), 250, ["3 patches of 8 x 8, because 4 patches of 8 x 8 would take more than half"]),
        (((8, 8), 1), ((8, 8), 2), 64, ["1 patch of 8 x 8, because 2 patches of 8 x 8 would take more than half"]),
        (((8, 8), 1), ((8, 8), 2), 63, ["one patch of 8 x 8 alone takes more than half of the memory"]),
        (((8, 8), 4), ((8, 8), 4), None, ["cannot be measured"]),
        (((32, 32), 1), ((32, 32), 1), 10_000, ["patch of 32 x 32 has 1,024 voxels, more than batch.max_voxels=300"]),
    ],
)
def test_what_limits_a_step_beside_its_voxels_is_reported(fitted, wanted, room, said):
    spec = small_spec({"batch": {"size": "auto", "max_voxels": 300}})
    remarks = remarks_on_limits(spec, fitted, wanted, room)
    assert len(remarks) == len(said)
    for remark, words in zip(remarks, said, strict=True):
        assert remark.startswith("batch.size=auto: ")
        assert words in remark


@pytest.mark.parametrize(
    ("max_patches", "patch", "is_reported"),
    [(1, (24, 24, 24), False), (2, (20, 20, 20), True), (16, (20, 20, 20), True)],
)
def test_patches_that_memory_makes_smaller_are_reported_whatever_their_greatest_number(
    monkeypatch, max_patches, patch, is_reported
):
    monkeypatch.setattr(fit_batch, "voxels_in_memory", lambda *_: 24**3 * 5 // 4)
    monkeypatch.setattr(fit_batch, "_voxels_in_memory", WeakKeyDictionary())
    resolved = small_resolved(AUTO, {"model": {"dims": 3}, "batch": {"max_patches": max_patches}})
    assert (resolved.spec.batch.patch_size_px, resolved.spec.batch.size) == (patch, min(max_patches, 2))
    reduced = [remark for remark in resolved.remarks if "more than half of the memory" in remark]
    assert len(reduced) == is_reported
    did_not_fit = min(max_patches, 14)  # of the patches of 24 x 24 x 24 that have 200,000 voxels
    assert all(f"because {did_not_fit} patches of 24 x 24 x 24 would take" in remark for remark in reduced)


@pytest.mark.parametrize("first", [0, 3])
def test_the_order_of_cases_does_not_change_dims_and_slice_axis(first):
    dataset = small_resolved().dataset
    cases = [replace(case, spacing_mm=(0.5, 0.5, 5.0)) for case in dataset.cases]
    single = replace(cases[0], image=cases[0].image[:, :, :1], mask=cases[0].mask[:, :, :1])
    cases = [single, *cases[1:]] if first == 0 else [*cases[1:], single]
    thick = replace(dataset, cases=tuple(replace(case, id=f"case-{n}") for n, case in enumerate(cases)))
    spec = resolve(small_spec(AUTO), thick).spec
    assert (spec.model.args["dims"], spec.batch.slice_axis) == (2, 2)


class Counting(nn.Module):
    """A network whose computation depends on its values, so that it cannot run on the meta device."""

    def forward(self, images):
        return images * images.sum().item()


def test_the_memory_of_a_network_that_cannot_run_on_the_meta_device_is_unknown():
    assert forward_bytes(Counting(), (1, 1, 8, 8)) is None
    assert training_bytes(Counting(), nn.CrossEntropyLoss(), (1, 1, 8, 8)) is None
    assert evaluation_bytes(Counting(), 1, (8, 8)) is None
    assert voxels_in_memory(Counting(), nn.CrossEntropyLoss(), 1, (8, 8), memory=2**30) is None


def test_a_block_needs_a_number_of_slices():
    with pytest.raises(SettingError, match="block needs a number"):
        small_spec({"batch": {"kind": "block", "size": "auto"}})


@pytest.mark.parametrize(
    ("patch", "max_voxels", "expected"),
    [((40, 56, 40), 10**9, (40, 56, 40)), ((40, 56, 40), 40 * 48 * 40, (40, 48, 40)), ((16, 8), 1, (8, 8))],
)
def test_the_longest_side_is_shortened_by_the_stride(patch, max_voxels, expected):
    assert shortened(patch, 8, max_voxels) == expected


def test_variants_and_folds_whose_networks_take_the_same_memory_are_measured_once(monkeypatch):
    measured = []
    monkeypatch.setattr(fit_batch, "voxels_in_memory", lambda *args: measured.append(args))
    monkeypatch.setattr(fit_batch, "_voxels_in_memory", WeakKeyDictionary())
    for change in ({}, {"optimizer": {"lr": 0.1}}, {"augment": {"flip_axes": (0,)}}, {"init": "orthogonal"}):
        small_resolved(AUTO, change)
    assert len(measured) == 1
    others = [{"model": {"width": 8}}, {"dropout": {"p": 0.1}}, {"loss": "ce"}, {"batch": {"patch_size_px": (8, 8, 8)}}]
    for change in others:
        small_resolved(AUTO, change)
    assert len(measured) == 1 + len(others)
