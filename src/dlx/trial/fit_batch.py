"""What `auto` means for these data: a network of slices or of volumes, its norm, and the size and number of patches."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from torch import nn

from dlx.data.batches.sampler import fit_patch_size, median_patch
from dlx.data.cases import Case, Dataset
from dlx.data.common_grid import spell_spacing
from dlx.data.resample import coarse_axis, median_spacing
from dlx.data.splits.split import Split
from dlx.engine.device import Compute, memory_bytes
from dlx.engine.footprint import training_bytes
from dlx.models.blocks import Dims, fitted_norm
from dlx.settings.spec import BatchSpec, Part, Spec
from dlx.trial.evaluation_memory import slice_sizes
from dlx.trial.factories import model_geometry

MIN_SIDE_3D = 8  # voxels: the median volume of a 3D network is at least as thick
MIN_PATCHES = {2: 8, 3: 2}  # of a step with `batch.size=auto`: the patch shrinks until as many fit
WORKSPACE = 2  # measured: training took up to 1.9 times its tensors in float32, and 1.2 times in bf16 (docs/log.md)
MEMORY_FRACTION = 0.5  # of the device's memory, for the patches of a step; the rest is for voxels, weights, evaluation


def fit_network(spec: Spec, dataset: Dataset) -> tuple[Spec, list[str]]:
    """The spec with `auto` replaced in `model.dims`, `norm` and `down_norm`, and remarks. The spec's model is bound."""
    args, remarks = dict(spec.model.args), []
    if args.get("dims") == "auto":
        args["dims"], cause = fitting_dims(dataset.cases)
        remarks = [f"model.dims=auto: {args['dims']} ({cause})"]
    for key in ("norm", "down_norm"):
        if args.get(key) == "auto":
            args[key] = fitted_norm("auto", args.get("dims", 2))
    return spec.model_copy(update={"model": Part(name=spec.model.name, args=args)}), remarks


def fitting_dims(cases: Sequence[Case]) -> tuple[Dims, str]:
    """3 for volumes, 2 for slices and thick slices, and why.

    2 if the median voxel has a coarse axis (`coarse_axis`), or if the median volume is thinner than MIN_SIDE_3D voxels.
    The medians are over all cases, so that the folds of a cross-validation agree.
    """
    spacing = median_spacing([case.spacing_mm for case in cases], [case.mask.shape for case in cases])
    shape = np.median([case.mask.shape for case in cases], axis=0)
    if shape.min() == 1:
        return 2, "single slices"
    if coarse_axis(spacing, cases[0].mask.shape) is not None:
        return 2, f"thick slices, voxels of {spell_spacing(spacing)} (x, y, z)"
    if shape.min() < MIN_SIDE_3D:
        return 2, f"the volumes are {shape.min():g} voxels thick"
    return 3, f"volumes of about {' x '.join(f'{side:g}' for side in shape)} voxels"


def fit_batch(spec: Spec, model: nn.Module, dataset: Dataset, split: Split, compute: Compute) -> tuple[Spec, list[str]]:
    """The spec with the size of a patch and the number of patches filled in, and a remark if memory limits them.

    With `batch.size=auto` patches start from the training cases' median shape. A step has `batch.max_patches` patches
    and `batch.max_voxels` voxels at most, fewer if these would take more than MEMORY_FRACTION of the memory of the
    device (not of what is free now: the same trial then gets the same id again); the longest sides are shortened until
    MIN_PATCHES fit. `model` is on the meta device.
    """
    dims, stride = model_geometry(model)
    shapes: list[tuple[int, ...]] = [case.mask.shape for case in dataset.cases_of(split.train)]
    if dims == 2:
        shapes = slice_sizes(shapes, spec.batch.fitted_slice_axis)
    asked, remarks = spec.batch.patch_size_px, []
    if spec.batch.size != "auto":
        remarks = [
            f"batch.{limit}: has no effect, because batch.size is not auto"
            for limit in ("max_voxels", "max_patches")
            if getattr(spec.batch, limit) != getattr(BatchSpec(), limit)
        ]
        patch, count = fit_patch_size(asked, shapes, stride), spec.batch.size
    else:
        memory = memory_bytes(compute.device)
        patch, fitting, room = filled(
            asked or median_patch(shapes, stride),
            stride if asked is None else None,
            MIN_PATCHES[dims],
            spec.batch.max_voxels,
            lambda patch: voxels_in_memory(model, len(dataset.channels), patch, memory),
        )
        count = min(fitting, spec.batch.max_patches)
        if room is None:
            remarks = [
                "batch.size=auto: not limited by memory: how much the network takes or the device has is unknown"
            ]
        elif room < spec.batch.max_voxels and fitting <= spec.batch.max_patches:
            remarks = [
                f"batch.size=auto: {count} patches of {' x '.join(map(str, patch))}, because batch.max_voxels="
                f"{spec.batch.max_voxels:,} would take more than half of the memory"
            ]
    batch = spec.batch.model_copy(update={"patch_size_px": patch, "size": count})
    return spec.model_copy(update={"batch": batch}), remarks


def filled(
    patch: tuple[int, ...],
    stride: int | None,
    min_patches: int,
    max_voxels: int,
    in_memory: Callable[[tuple[int, ...]], int | None],
) -> tuple[tuple[int, ...], int, int | None]:
    """The size of a patch, the number of patches, one or more, and what `in_memory` says.

    They have at most `max_voxels`, and at most as many as `in_memory` says of the size (None: no limit). The size is
    that of `patch`; with a stride it is `shortened` until `min_patches` fit.
    """
    patch = shortened(patch, stride, max_voxels // min_patches)
    room = in_memory(patch)
    allowed = max_voxels if room is None else min(max_voxels, room)
    patch = shortened(patch, stride, allowed // min_patches)
    return patch, max(1, allowed // prod(patch)), room


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


def voxels_in_memory(model: nn.Module, channels: int, patch: tuple[int, ...], memory: int | None) -> int | None:
    """How many voxels of patches can be trained on at once within MEMORY_FRACTION of `memory` bytes.

    None if the memory is None, or if the model cannot run on the meta device.
    """
    if memory is None:
        return None
    one, two = (training_bytes(model, (count, channels, *patch)) for count in (1, 2))
    if one is None or two is None:
        return None
    each = WORKSPACE * (two - one)  # what is taken once, such as the gradients of the weights, is small beside a step
    return int(memory * MEMORY_FRACTION * prod(patch) / each)
