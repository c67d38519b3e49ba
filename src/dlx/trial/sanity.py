"""Warnings about settings that are legal but probably mistakes; those about data are in `dlx.data.remarks`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from dlx.data.cases import Case, Dataset
from dlx.data.split import Split
from dlx.models.dropout import Dropout, dropout_modules
from dlx.settings.spec import Spec
from dlx.settings.text import counted
from dlx.trial.factories import model_geometry

THIN = 4  # slices whose sides are so unlike were hardly meant to be cut along this axis


def odd_patches(spec: Spec, dataset: Dataset, split: Split, dims: int) -> list[str]:
    """Slices cut along the wrong axis, and patches that are mostly padding."""
    assert spec.batch.patch_size_px is not None
    sizes = np.array([case.mask.shape for case in _training(dataset, split)])
    spanned = sizes
    remarks = []
    if dims == 2:
        median = np.median(sizes, axis=0)
        others = [axis for axis in range(3) if axis != spec.batch.slice_axis]
        thinnest = int(np.argmin(median))
        if thinnest in others and THIN * median[thinnest] < median[others].max() and median[spec.batch.slice_axis] > 1:
            small, large = (f"{median[axis]:.0f}" for axis in sorted(others, key=lambda axis: median[axis]))
            remarks.append(
                f"slices along array axis {spec.batch.slice_axis} are {large} x {small}: "
                f"was batch.slice_axis={thinnest} meant?"
            )
        spanned = sizes[:, others]
    patch = np.array(spec.batch.patch_size_px)
    if (patch >= 2 * spanned.max(axis=0)).any():
        asked, largest = spell_size(patch.tolist()), spell_size(spanned.max(axis=0).tolist())
        remarks.append(f"patches of {asked} are mostly padding: nothing there is larger than {largest}")
    return remarks


def odd_dropout(model: nn.Module, num_channels: int) -> list[str]:
    """Dropout whose output reaches a batch norm: known by one forward pass on the meta device, where the model is.

    In training dropout raises the variance of what the norm sees, and its running variance with it; in evaluation,
    without dropout, the features are scaled by too large a variance (Li et al. 2018, arXiv 1801.05134).
    """
    dropped: list[Dropout] = []
    norms: list[nn.Module] = []

    def note(module: nn.Module, *_: object) -> None:
        if isinstance(module, Dropout):
            dropped.append(module)
        elif dropped:
            norms.append(module)

    batch_norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    watched = [*batch_norms, *(module for module in dropout_modules(model) if module.is_active)]
    hooks = [module.register_forward_hook(note) for module in watched]
    dims, stride = model_geometry(model)
    try:
        with torch.no_grad(), torch.device("meta"):
            model(torch.empty(2, num_channels, *[2 * stride] * dims))  # of two: a norm needs several values a channel
    finally:
        for hook in hooks:
            hook.remove()
    if not norms:
        return []
    return [
        "dropout comes before batch norm, whose running variance is then too large in evaluation (arXiv 1801.05134); "
        "model.norm=group keeps none"
    ]


def odd_threads(threads: int, cores: int) -> list[str]:
    """More threads than cores: they wait for each other."""
    return [f"{threads} threads on {counted(cores, 'core')} train slower than {cores} would"] if threads > cores else []


def spell_size(size: Sequence[int]) -> str:
    """`48 x 36`."""
    return " x ".join(map(str, size))


def _training(dataset: Dataset, split: Split) -> list[Case]:
    wanted = set(split.train)
    return [case for case in dataset.cases if case.id in wanted]
