"""What `auto` means for these data: a network of slices or of volumes, its norm, and the size and number of patches."""

from collections.abc import Callable, Sequence
from math import prod
from weakref import WeakKeyDictionary

from torch import nn

from dlx.data.batches.sampler import fit_patch_size, median_patch, slice_sizes
from dlx.data.cases import Case, Dataset
from dlx.data.geometry.common_grid import spell_spacing
from dlx.data.geometry.resample import Size, Spacing, coarse_axis, median_shape, median_spacing
from dlx.data.layouts.listing import name_some
from dlx.data.splits.split import Split
from dlx.engine.device import Compute
from dlx.engine.footprint import training_bytes
from dlx.models.layers.blocks import Dims, fitted_norm
from dlx.settings.part import Part
from dlx.settings.spec import BatchSpec, Spec
from dlx.settings.text import counted
from dlx.trial.factories import make_training_loss, model_geometry, outputs_of
from dlx.trial.memory import PARALLEL_FRACTION, Fitted
from dlx.trial.own_network import fit_own_network
from dlx.trial.sanity import spell_size

SHOWN = 3  # names in a line
MIN_SIDE_3D = 8  # voxels: the median volume of a 3D network is at least as thick
MIN_PATCHES = {2: 8, 3: 2}  # of a step with `batch.size=auto`: the patch shrinks until as many fit
STEP_WORKSPACE = 2  # measured: a step took up to 1.9 times its tensors in float32, and 1.2 times in bf16 (docs/log.md)
ROOMY_STEP_BYTES_PER_VOXEL = 32_768  # of a U-Net of width 256: a step that fits even then needs no tracing
MAX_STEP_FRACTION = 0.5  # of the device's memory, for the patches of a step; the rest: voxels, weights, evaluation

Patches = tuple[tuple[int, ...], int]  # the size of a patch, and how many a step has


def fit_network(spec: Spec, dataset: Dataset) -> tuple[Spec, list[str]]:
    """The spec with `auto` replaced in `model.dims`, `norm` and `down_norm`, and remarks. The spec's model is bound.

    A network of the user's own gets its geometry.
    """
    if spec.model.is_own:
        part, remarks = fit_own_network(spec, dataset, fitting_dims(dataset.cases))
        return spec.model_copy(update={"model": part}), remarks
    args, remarks = dict(spec.model.args), []
    if args.get("dims") == "auto":
        args["dims"], cause = fitting_dims(dataset.cases)
        remarks = [f"model.dims=auto: {args['dims']} ({cause})"]
    for key in ("norm", "down_norm"):
        if args.get(key) == "auto":
            args[key] = fitted_norm("auto", args.get("dims", 2))
    return spec.model_copy(update={"model": Part(name=spec.model.name, args=args)}), remarks


def median_of(cases: Sequence[Case]) -> tuple[Spacing, Size]:
    """The median voxel size and the median shape of cases, (d, h, w)."""
    shapes = [case.mask.shape for case in cases]
    return median_spacing([case.spacing_mm for case in cases], shapes), median_shape(shapes)


def fitting_dims(cases: Sequence[Case]) -> tuple[Dims, str]:
    """3 for volumes, 2 for slices and thick slices, and why.

    2 if the median voxel has a coarse axis (`coarse_axis`), or if the median volume is thinner than MIN_SIDE_3D voxels.
    The medians are over all cases, so that the folds of a cross-validation agree.
    """
    spacing, shape = median_of(cases)
    if min(shape) == 1:
        return 2, "single slices"
    if coarse_axis(spacing, shape) is not None:
        return 2, f"thick slices, voxels of {spell_spacing(spacing)} (x, y, z)"
    if min(shape) < MIN_SIDE_3D:
        return 2, f"the volumes are {min(shape)} voxels thick"
    single = [case.id for case in cases if min(case.mask.shape) == 1]
    though = f"; single slices, though: {name_some(single, SHOWN)}" if single else ""
    return 3, f"the median of {counted(len(cases), 'case')} is {spell_size(shape)} voxels (D, H, W){though}"


def fit_slice_axis(spec: Spec, dataset: Dataset, split: Split, dims: int) -> tuple[Spec, list[str]]:
    """The spec with `batch.slice_axis` as a number, and a remark if the slices are not those along the first axis.

    `auto` is for a 2D network the axis that `_axis_of_slices` finds.
    """
    if spec.batch.slice_axis != "auto":
        return spec, []
    axis, cause = _axis_of_slices(dataset, split) if dims == 2 else (0, "")
    fitted = spec.model_copy(update={"batch": spec.batch.model_copy(update={"slice_axis": axis})})
    if axis == 0:
        return fitted, []
    return fitted, [f"batch.slice_axis=auto: slices are taken along array axis {axis} of (D, H, W), {cause}"]


def _axis_of_slices(dataset: Dataset, split: Split) -> tuple[int, str]:
    """The axis along which slices are taken if it is not given, and why.

    The axis of one voxel of single slices; or the coarse axis of the training cases' median spacing (`coarse_axis`); or
    the thinnest axis if the median volume of all cases is thinner than MIN_SIDE_3D voxels, for which `fitting_dims`
    chooses slices; else the first one.
    """
    spacing, shape = median_of(dataset.cases_of(split.train))
    if 1 in shape:
        return shape.index(1), "which has one voxel"
    coarse = coarse_axis(spacing, shape)
    if coarse is not None:
        return coarse, f"whose voxels are the longest, {spacing[coarse]:.3g} mm"
    _, shape = median_of(dataset.cases)
    thickness = min(shape)
    if thickness < MIN_SIDE_3D:
        return shape.index(thickness), f"along which the volumes are {counted(thickness, 'voxel')} thick"
    return 0, ""


# for variants and folds whose networks take the same memory: by what `make_model` and `make_loss` read
_voxels_in_memory: WeakKeyDictionary[Dataset, dict[tuple[object, ...], int | None]] = WeakKeyDictionary()


def fit_batch(spec: Spec, model: nn.Module, dataset: Dataset, split: Split, compute: Compute) -> Fitted:
    """Fills in the size of a patch and the number of patches.

    With `batch.size=auto` patches start from the training cases' median shape. A step has `batch.max_patches` patches
    and `batch.max_voxels` voxels at most, fewer if these would take more than MAX_STEP_FRACTION of the memory of the
    device (not of what is free now: the same trial then gets the same id again); the longest sides are shortened until
    MIN_PATCHES fit. `model` is on the meta device.
    """
    dims, stride = model_geometry(model)
    shapes: list[tuple[int, ...]] = [case.mask.shape for case in dataset.cases_of(split.train)]
    if dims == 2:
        shapes = slice_sizes(shapes, spec.batch.fitted_slice_axis)
    asked, memory = spec.batch.patch_size_px, compute.memory
    loss = make_training_loss(spec, outputs_of(dataset), model).to("meta")

    def in_memory(patch: tuple[int, ...]) -> int | None:
        known = _voxels_in_memory.setdefault(dataset, {})
        key = (*(repr(part) for part in (spec.model, spec.dropout, spec.loss)), patch, memory)
        if key not in known:
            known[key] = voxels_in_memory(model, loss, len(dataset.channels), patch, memory)
        return known[key]

    if spec.batch.size != "auto":
        remarks = [
            f"batch.{limit}: has no effect, because batch.size is not auto"
            for limit in ("max_voxels", "max_patches")
            if getattr(spec.batch, limit) != getattr(BatchSpec(), limit)
        ]
        patch = fit_patch_size(asked, shapes, stride)
        room = None if is_small(spec.batch.size * prod(patch), compute) else in_memory(patch)
        fraction = None if room is None else MAX_STEP_FRACTION * spec.batch.size * prod(patch) / room
        return Fitted(with_patches(spec, patch, spec.batch.size), remarks, fraction)

    def fill(limit: Callable[[tuple[int, ...]], int | None]) -> tuple[tuple[int, ...], int, int | None]:
        return filled(
            asked or median_patch(shapes, stride),
            stride if asked is None else None,
            min(MIN_PATCHES[dims], spec.batch.max_patches),
            spec.batch.max_voxels,
            spec.batch.max_patches,
            limit,
        )

    patch, count, room = fill(in_memory)
    fraction = None if room is None else MAX_STEP_FRACTION * count * prod(patch) / room
    wanted_patch, wanted_count, _ = fill(lambda _: None)
    remarks = remarks_on_limits(spec, (patch, count), (wanted_patch, wanted_count), room)
    return Fitted(with_patches(spec, patch, count), remarks, fraction)


def is_small(num_voxels: int, compute: Compute) -> bool:
    """Whether as many steps of so many voxels as there are cores fit the memory even with a wide network."""
    if compute.memory is None:
        return True
    return num_voxels * ROOMY_STEP_BYTES_PER_VOXEL * compute.cores <= compute.memory * PARALLEL_FRACTION


def with_patches(spec: Spec, patch: tuple[int, ...], count: int) -> Spec:
    """The spec with this size and number of patches."""
    return spec.model_copy(update={"batch": spec.batch.model_copy(update={"patch_size_px": patch, "size": count})})


def voxel_size_of_patch(spec: Spec, dataset: Dataset) -> tuple[float, ...]:
    """The median voxel size along the axes of a patch, (d, h, w) or those of a slice; ones if they agree within 1 %.

    `spec` is resolved.
    """
    spacing, _ = median_of(dataset.cases)
    left_out = {spec.batch.fitted_slice_axis} if len(spec.batch.fitted_patch_size_px) == 2 else set()
    size = tuple(spacing[axis] for axis in range(3) if axis not in left_out)
    return size if max(size) > 1.01 * min(size) else (1.0,) * len(size)


def remarks_on_limits(spec: Spec, fitted: Patches, wanted: Patches, room: int | None) -> list[str]:
    """What limits the patches of a step beside `batch.max_voxels` and `batch.max_patches`, or does not although it
    should.

    `wanted` are the patches of a step if the memory were unlimited; `room` is the number of voxels that fit the memory,
    as `voxels_in_memory` gives it.
    """
    asked, voxels = spec.batch.max_voxels, prod(fitted[0])
    one = f"batch.size=auto: one patch of {spell_size(fitted[0])}"
    remarks = [f"{one} has {voxels:,} voxels, more than batch.max_voxels={asked:,}"] if voxels > asked else []
    if room is None:
        unknown = "the memory of this network or device cannot be measured, so it does not limit the patches"
        remarks.append(f"batch.size=auto: {unknown}")
    elif voxels > room:
        remarks.append(f"{one} alone takes more than half of the memory: set a smaller batch.patch_size_px")
    elif fitted != wanted:
        few, many = spell_patches(fitted), spell_patches(wanted)
        remarks.append(f"batch.size=auto: {few}, because {many} would take more than half of the memory")
    return remarks


def spell_patches(patches: Patches) -> str:
    """`3 patches of 24 x 24`."""
    patch, count = patches
    return f"{counted(count, 'patch', 'patches')} of {spell_size(patch)}"


def filled(
    patch: tuple[int, ...],
    stride: int | None,
    min_patches: int,
    max_voxels: int,
    max_patches: int,
    in_memory: Callable[[tuple[int, ...]], int | None],
) -> tuple[tuple[int, ...], int, int | None]:
    """The size of a patch, the number of patches, 1 to `max_patches`, and what `in_memory` gives for the size.

    All patches together have at most `max_voxels` voxels, and at most `in_memory(size)` (None: no limit). Without a
    stride the size is `patch`; with one it is `shortened` until `min_patches` fit.
    """
    patch = shortened(patch, stride, max_voxels // min_patches)
    room = in_memory(patch)
    allowed = max_voxels if room is None else min(max_voxels, room)
    patch = shortened(patch, stride, allowed // min_patches)
    return patch, min(max(1, allowed // prod(patch)), max_patches), room


def shortened(patch: tuple[int, ...], stride: int | None, max_voxels: int) -> tuple[int, ...]:
    """The patch with its longest side shortened by `stride` again and again until it has at most `max_voxels`.

    No side becomes shorter than `stride`, so the result may have more. Without a stride the patch stays.
    """
    if stride is None:
        return patch
    sides = list(patch)
    while prod(sides) > max_voxels and max(sides) > stride:
        sides[sides.index(max(sides))] -= stride
    return tuple(sides)


def voxels_in_memory(
    model: nn.Module, loss: nn.Module, channels: int, patch: tuple[int, ...], memory: int | None
) -> int | None:
    """How many voxels of patches can be trained on at once within MAX_STEP_FRACTION of `memory` bytes.

    None if the memory is None, or if the model cannot run on the meta device.
    """
    if memory is None:
        return None
    # not of one patch: where that is one voxel at the deepest level, batch norm raises an error
    two, three = (training_bytes(model, loss, (count, channels, *patch)) for count in (2, 3))
    if two is None or three is None:
        return None
    each = STEP_WORKSPACE * (three - two)  # what is taken once, as the gradients of the weights, is small beside a step
    return int(memory * MAX_STEP_FRACTION * prod(patch) / each)
