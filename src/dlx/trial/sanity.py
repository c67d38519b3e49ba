"""Warnings about settings that are legal but probably mistakes; `dlx.data.checks.remarks` has those about data."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import nn

from dlx.data.cases import Dataset
from dlx.data.splits.split import Split
from dlx.models.layers.dropout import Dropout, dropout_modules
from dlx.models.own.network import MIN_SIZE, OwnNetwork
from dlx.settings.spec import Spec
from dlx.settings.text import counted
from dlx.trial.factories import model_geometry

MAX_SIDE_RATIO = 4  # of a slice: one that is longer was probably cut along the wrong axis (chosen, not measured)

# A setting -> those of which one must be on for it to change anything. The kind and place of dropout are not here: they
# are set for a whole sweep, in which the control has p = 0.
NEEDS = {
    "batch.foreground_by": ("batch.foreground_fraction",),
    "augment.flip_axes": ("augment.flip", "evaluate.mirror"),
    "augment.blur_sigma_px": ("augment.blur",),
    "augment.contrast_range": ("augment.contrast",),
    "augment.low_resolution_range": ("augment.low_resolution",),
    "augment.gamma_range": ("augment.gamma", "augment.gamma_inverted"),
    "optimizer.decay_norms_and_biases": ("optimizer.weight_decay",),
}


def warn_of_patches(spec: Spec, dataset: Dataset, split: Split, dims: int) -> list[str]:
    """Slices cut along the wrong axis, and patches that are mostly padding."""
    sizes = np.array([case.mask.shape for case in dataset.cases_of(split.train)])
    spanned = sizes
    remarks = []
    if dims == 2:
        median = np.median(sizes, axis=0)
        others = [axis for axis in range(3) if axis != spec.batch.fitted_slice_axis]
        thinnest = int(np.argmin(median))
        is_thin = MAX_SIDE_RATIO * median[thinnest] < median[others].max()
        if thinnest in others and is_thin and median[spec.batch.fitted_slice_axis] > 1:
            small, large = (f"{median[axis]:.0f}" for axis in sorted(others, key=lambda axis: median[axis]))
            remarks.append(
                f"batch.slice_axis: slices along array axis {spec.batch.fitted_slice_axis} are {large} x {small}; "
                f"did you mean batch.slice_axis={thinnest}?"
            )
        spanned = sizes[:, others]
    patch = np.array(spec.batch.fitted_patch_size_px)
    if (patch >= 2 * spanned.max(axis=0)).any():
        asked, largest = spell_size(patch.tolist()), spell_size(spanned.max(axis=0).tolist())
        remarks.append(f"batch.patch_size_px: patches of {asked} are mostly padding; no image is larger than {largest}")
    return remarks


def warn_of_settings_without_effect(spec: Spec) -> list[str]:
    """Settings that were set, but whose effect another setting switches off; see `NEEDS`."""
    defaults = Spec()
    return [
        f"{key}: has no effect, because {' and '.join(needed)} {'is' if len(needed) == 1 else 'are'} off"
        for key, needed in NEEDS.items()
        if _value(spec, key) != _value(defaults, key) and not any(_is_on(_value(spec, one)) for one in needed)
    ]


def warn_of_mirroring(spec: Spec, dims: int) -> list[str]:
    """Predictions mirrored along axes that training does not flip: the network has never seen such images."""
    flipped = (spec.augment.flip_axes or range(dims)) if spec.augment.flip > 0 else ()
    unseen = [axis for axis in spec.mirrored_axes(dims) if axis not in flipped]
    if not unseen:
        return []
    axes = f"{'axis' if len(unseen) == 1 else 'axes'} {', '.join(map(str, unseen))}"
    return [
        f"evaluate.mirror: predictions are mirrored along {axes}, along which training flips no image, so they may be "
        "worse: set augment.flip=0.5, or evaluate.mirror=false"
    ]


def _value(spec: Spec, key: str) -> Any:
    return reduce(getattr, key.split("."), spec)


def _is_on(value: Any) -> bool:
    """Whether a number is above 0, or a switch is on; axes of `evaluate.mirror` take the place of `flip_axes`."""
    return value is True or (isinstance(value, float) and value > 0)


def warn_of_dropout(model: nn.Module, num_channels: int) -> list[str]:
    """Dropout before batch norm, found by one forward pass of the model, which is on the meta device; nothing if a
    network of the user's own cannot run there.

    In training, dropout raises the variance of the norm's input, and with it the running variance; in evaluation, where
    nothing is dropped, that variance is too large (Li et al. 2018, arXiv 1801.05134).
    """
    dropped: list[Dropout] = []
    norms: list[nn.Module] = []

    def note(module: nn.Module, *_: object) -> None:
        if isinstance(module, Dropout):
            dropped.append(module)
        elif dropped:
            norms.append(module)

    batch_norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not batch_norms:
        return []
    watched = [*batch_norms, *(module for module in dropout_modules(model) if module.is_active)]
    hooks = [module.register_forward_hook(note) for module in watched]
    dims, stride = model_geometry(model)
    is_own = isinstance(model, OwnNetwork)
    size = stride * max(2, -(-MIN_SIZE // stride)) if is_own else 2 * stride
    try:
        with torch.no_grad(), torch.device("meta"):
            model(torch.empty(2, num_channels, *[size] * dims))  # two: a norm needs several values a channel
    except Exception:
        if not is_own:
            raise
    finally:
        for hook in hooks:
            hook.remove()
    if not norms:
        return []
    how = "with group norm" if is_own else "with model.norm=group"
    return [
        "dropout comes before batch norm, whose running variance is then too large in evaluation (arXiv 1801.05134); "
        f"{how} there is no running variance, which shows whether this matters"
    ]


def warn_of_threads(threads: int, cores: int) -> list[str]:
    """More threads than cores: they wait for each other."""
    if threads <= cores:
        return []
    return [f"compute.threads: {threads} threads on {counted(cores, 'core')} train slower than {cores} would"]


def spell_size(size: Sequence[int]) -> str:
    """`48 x 36`."""
    return " x ".join(map(str, size))
