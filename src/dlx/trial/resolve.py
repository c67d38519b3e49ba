"""From a Spec and its data to a Resolved: arguments bound, sizes fitted, everything checked, the trial id computed."""

import hashlib
import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dlx.data.batches.sampler import fit_patch_size
from dlx.data.cases import Dataset
from dlx.data.checks.remarks import remark_on
from dlx.data.common_grid import spell_spacing
from dlx.data.ct import Windows, describe_windows, windows_of
from dlx.data.intensities import ChannelIntensities
from dlx.data.layouts.listing import name_some
from dlx.data.resample import coarse_axis
from dlx.data.splits.choose import split_cases
from dlx.data.splits.groups import load_groups
from dlx.data.splits.split import Split
from dlx.data.whiten import describe_correlations
from dlx.engine import checkpoint
from dlx.engine.checkpoint import InitialWeights
from dlx.engine.device import Compute, choose_compute, memory_bytes
from dlx.settings.binding import bind_part, bind_parts, identifying_settings
from dlx.settings.spec import Part, Spec
from dlx.study.metrics import MIN_POINTS
from dlx.study.results import RESULTS_VERSION
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import SettingError
from dlx.training import schedules
from dlx.trial.evaluation_memory import fit_evaluation_batch
from dlx.trial.factories import make_loss, make_model, make_optimizer, make_scheduler, model_geometry, outputs_of
from dlx.trial.sanity import warn_of_dropout, warn_of_foreground, warn_of_patches, warn_of_threads


@dataclass(frozen=True)
class Resolved:
    """A Spec with every argument filled in and every default chosen, with its data, split and device."""

    spec: Spec
    dataset: Dataset
    split: Split
    compute: Compute
    parameters: int
    initial: InitialWeights | None = None  # from `train.init_from`
    windows: Windows = ()  # of the channels, if they are clipped and scaled by statistics of the training cases
    remarks: tuple[str, ...] = ()
    intensities: tuple[tuple[ChannelIntensities, ...], ...] = ()  # of each case; a dry run shows them
    rounding_error: float | None = None  # the largest of images kept as float16, as a share of their noise

    def settings(self, seed: int) -> dict[str, Any]:
        """Every setting that can change the trial's numbers, as JSON: without paths and device numbers, for example."""
        spec = identifying_settings(self.spec)
        if self.spec.dropout.p == 0.0:  # kind and place then change no number: all sweeps share one control
            spec["dropout"] = {"p": 0.0}
        spec["data"]["source"] = {"fingerprint": self.dataset.fingerprint}
        for key in ("orientation", "spacing_mm"):  # the fingerprint says what they changed
            spec["data"].pop(key, None)
        spec["split"] = {"train": list(self.split.train), "val": list(self.split.val)}
        spec["compute"] = {
            "device": self.compute.device.type,
            "precision": self.compute.precision,
            "threads": self.compute.threads if self.compute.device.type == "cpu" else None,
        }
        if self.compute.device_name is not None:
            spec["compute"]["device_name"] = self.compute.device_name
        if self.compute.device.type == "cuda":
            spec["compute"]["is_captured"] = self.compute.captures
        if self.initial is not None:
            spec["train"]["init_from"] = self.initial.digest
        return {
            "results_version": RESULTS_VERSION,
            "seed": seed,
            "channels": list(self.dataset.channels),
            "classes": list(self.dataset.classes),
            **spec,
        }

    def without_voxels(self) -> "Resolved":
        """A copy that is small enough to send to a worker, which reads the voxels from a VoxelStore."""
        return replace(self, dataset=replace(self.dataset, cases=()))

    def trial_id(self, seed: int) -> str:
        """The trial's id: a hash of its settings."""
        text = json.dumps(self.settings(seed), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def resolve(spec: Spec, dataset: Dataset, *, min_validations: int = MIN_POINTS, fits_batch: bool = True) -> Resolved:
    """Checks everything that can be checked before the first step, and chooses what the spec leaves open.

    `dataset` is opened from `spec.data`, whose path is absolute. `min_validations`: how often at least a trial is
    validated if `evaluate.every` is not given. `fits_batch`: the default `evaluate.batch_size` is halved until it fits
    the memory.
    """
    spec = bind_parts(spec)
    compute = choose_compute(spec.compute)
    groups = load_groups(spec.split, spec.data.path)
    split = split_cases(
        [case.id for case in dataset.cases],
        {case.id: case.value_hash for case in dataset.cases},
        groups,
        spec.split,
        prepared_hashes={case.id: case.prepared_hash for case in dataset.cases if case.prepared_hash},
        classes=_classes(dataset) if spec.split.fold is not None and spec.split.file is None else {},
    )
    spec = _with_normalizer(spec, dataset)
    windows = _windows(spec, dataset, split)
    with torch.device("meta"):
        model = make_model(spec, dataset)
    dims, stride = model_geometry(model)
    compute = _fit_precision(spec, compute, dims)
    spec, axis_remarks = fit_slice_axis(spec, dataset, split, dims)
    _check_axes(spec, dims)
    spec = _fit_patch(spec, dataset, split, dims, stride)
    spec = _fit_evaluation(spec, dataset, split, min_validations, num_flips=2 ** len(spec.mirrored_axes(dims)))
    _check_norms(spec, model, stride)
    spec, batch_remarks = fit_evaluation_batch(spec, model, dataset, split, compute) if fits_batch else (spec, [])
    remarks = [
        *compute.remarks,
        *dataset.remarks,
        *axis_remarks,
        *describe_correlations(dataset.cases),
        *describe_windows(windows, dataset.channels, len(split.train)),
        *remark_on(dataset, split, groups),
        *warn_of_patches(spec, dataset, split, dims),
        *warn_of_foreground(spec.batch),
        *(warn_of_dropout(model, len(dataset.channels)) if spec.dropout.p > 0 else ()),
        *(warn_of_threads(compute.threads, available_cores()) if compute.device.type == "cpu" else ()),
        *_check_parts(spec, model, dataset),
        *batch_remarks,
    ]
    initial = None
    if spec.train.init_from is not None:
        initial = checkpoint.initial_weights(model, Path(spec.train.init_from))
        remarks.append(_describe_initial(initial, len(model.state_dict()), spec.train.init_from))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _check_memory(spec, parameters, compute)
    intensities = tuple(case.intensities for case in dataset.cases)
    return Resolved(
        spec=spec,
        dataset=dataset,
        split=split,
        compute=compute,
        parameters=parameters,
        initial=initial,
        windows=windows,
        remarks=(*remarks, *split.remarks),
        intensities=intensities,
        rounding_error=max(
            (case.rounding_error for case in dataset.cases if case.rounding_error is not None and not case.is_wide),
            default=None,
        ),
    )


def _with_normalizer(spec: Spec, dataset: Dataset) -> Spec:
    """The spec with the normaliser that was chosen for these data in place of `auto`."""
    if spec.data.normalize.name != "auto":
        return spec
    chosen = bind_part("normalizer", Part.model_validate(dataset.normalize))
    return spec.model_copy(update={"data": spec.data.model_copy(update={"normalize": chosen})})


def _windows(spec: Spec, dataset: Dataset, split: Split) -> Windows:
    training = set(split.train)
    return windows_of(spec.data.normalize, dataset.channels, [case for case in dataset.cases if case.id in training])


def _classes(dataset: Dataset) -> dict[str, list[str]]:
    """Case -> the names of the classes that its mask has."""
    return {
        case.id: [name for name, voxels in zip(dataset.classes, dataset.class_voxels(case), strict=True) if voxels]
        for case in dataset.cases
    }


def _describe_initial(initial: InitialWeights, total: int, path: str) -> str:
    missing = f"; not in it or of another shape: {name_some(initial.missing)}" if initial.missing else ""
    return f"{total - len(initial.missing)} of {total} tensors from {path}{missing}"


def _fit_precision(spec: Spec, compute: Compute, dims: int) -> Compute:
    """float32 for 3D networks on a CPU, where oneDNN's bf16 gradients of 3D convolutions are wrong (docs/log.md)."""
    if dims == 2 or compute.device.type != "cpu" or compute.precision == "float32":
        return compute
    if spec.compute.precision == "bf16":
        raise SettingError("compute.precision: bf16 gradients of 3D convolutions are wrong on a CPU; use float32")
    return replace(compute, precision="float32")


def _check_axes(spec: Spec, dims: int) -> None:
    """SettingError if an axis is named that patches of the network do not have."""
    asked = {"augment.flip_axes": spec.augment.flip_axes or (), "evaluate.mirror": spec.mirrored_axes(dims)}
    for key, axes in asked.items():
        if axes and max(axes) >= dims:
            raise SettingError(f"{key}: patches of a {dims}D network have the axes 0 to {dims - 1} (got {max(axes)})")


def _fit_patch(spec: Spec, dataset: Dataset, split: Split, dims: int, stride: int) -> Spec:
    asked = spec.batch.patch_size_px
    if asked is not None and len(asked) != dims:
        raise SettingError(
            f"batch.patch_size_px: expected {dims} sizes for the {dims}D network '{spec.model.name}' (got {len(asked)})"
        )
    if spec.batch.kind == "block" and dims == 3:
        raise SettingError("batch.kind: 'block' is for 2D networks; a 3D network needs 'patches'")
    train = set(split.train)
    trained = [case.mask.shape for case in dataset.cases if case.id in train]
    if dims == 2:
        slice_axis = spec.batch.fitted_slice_axis
        trained = [tuple(size for axis, size in enumerate(shape) if axis != slice_axis) for shape in trained]
    fitted = fit_patch_size(asked, trained, stride)
    return spec.model_copy(update={"batch": spec.batch.model_copy(update={"patch_size_px": fitted})})


def fit_slice_axis(spec: Spec, dataset: Dataset, split: Split, dims: int) -> tuple[Spec, list[str]]:
    """The spec with `batch.slice_axis` as a number, and a remark if the slices are not those along the first axis.

    `auto` is the coarse axis of the training cases' median spacing (see `coarse_axis`), if all of them are volumes.
    """
    if spec.batch.slice_axis != "auto":
        return spec, []
    training = set(split.train)
    trained = [case for case in dataset.cases if case.id in training]
    d, h, w = np.median([case.spacing_mm for case in trained], axis=0).tolist()
    are_volumes = all(min(case.mask.shape) > 1 for case in trained)
    axis = coarse_axis((d, h, w), trained[0].mask.shape) or 0 if dims == 2 and are_volumes else 0
    fitted = spec.model_copy(update={"batch": spec.batch.model_copy(update={"slice_axis": axis})})
    if axis == 0:
        return fitted, []
    return fitted, [
        f"batch.slice_axis=auto: slices are taken along array axis {axis} (D, H, W), the coarse one of "
        f"{spell_spacing((d, h, w))} (x, y, z)"
    ]


def _fit_evaluation(spec: Spec, dataset: Dataset, split: Split, at_least: int, num_flips: int) -> Spec:
    """Fills in `evaluate.every`, if it is not given: validation then costs a tenth of training.

    The cost is the number of voxels that pass through the network; a training voxel counts three times (forward and
    backward), a mirrored one `num_flips` times. The evaluated training subset is not counted. A trial is validated
    `at_least` times if it has as many epochs, whatever that costs; in every epoch if the scheduler or `train.patience`
    depends on the validation Dice.
    """
    if spec.evaluate.every is not None:
        return spec
    patch = prod(spec.batch.fitted_patch_size_px)
    trained = 3 * patch * spec.batch.size * spec.train.steps_per_epoch
    val = set(split.val)
    validated = num_flips * sum(case.mask.size for case in dataset.cases if case.id in val)
    is_watched = spec.scheduler.name == "plateau" or spec.train.patience is not None
    times = spec.train.epochs if is_watched else max(1, spec.train.epochs * trained // (10 * validated))
    every = -(-spec.train.epochs // times)  # spread evenly, the last epoch among them
    every = max(1, min(every, spec.train.epochs // at_least))
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"every": every})})


def _check_memory(spec: Spec, parameters: int, compute: Compute) -> None:
    """Refuses a network whose weights, gradients and moments (float32) alone exceed the device's memory."""
    needed = 4 * parameters * (5 if spec.train.ema_decay else 4)
    available = memory_bytes(compute.device)
    if available is not None and needed > available:
        raise SettingError(
            f"model '{spec.model}': training {parameters:,} parameters takes {needed / 2**30:.0f} GiB, "
            f"but {compute.device} has {available / 2**30:.0f} GiB"
        )


def _check_norms(spec: Spec, model: nn.Module, stride: int) -> None:
    """Refuses batches that leave one value per channel at the deepest level: torch cannot normalise it."""
    deepest = prod(-(-size // stride) for size in spec.batch.fitted_patch_size_px)
    is_batch = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    grouped = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    widest = max(grouped, key=lambda norm: norm.num_channels, default=None)
    is_instance = widest is not None and widest.num_groups == widest.num_channels
    if (is_batch or is_instance) and spec.batch.size * deepest == 1:
        patch = " x ".join(map(str, spec.batch.fitted_patch_size_px))
        raise SettingError(
            f"model '{spec.model}': one patch of {patch} is one voxel at the deepest level, but its norm needs more "
            "than one value per channel: set a larger batch.size or batch.patch_size_px, or model.norm=none"
        )


def _check_parts(spec: Spec, model: nn.Module, dataset: Dataset) -> list[str]:
    """Makes loss, optimizer and scheduler once, for the model on the meta device, so that they refuse wrong settings
    before anything is trained. Returns remarks for the user.
    """
    remarks = []
    make_loss(spec.loss, outputs_of(dataset))
    make_scheduler(make_optimizer(model, spec), spec)
    rates = schedules.rates(spec.scheduler.name, spec.scheduler.args, spec.optimizer.lr, spec.train.epochs)
    collapse = schedules.early_collapse(rates)
    if collapse is not None:
        remarks.append(
            f"scheduler '{spec.scheduler}': from epoch {collapse + 1} on the rate is below a thousandth of the first, "
            f"too low to learn much"
        )
    if spec.scheduler.name == "plateau" and spec.evaluate.every != 1:
        raise SettingError("scheduler 'plateau' needs the validation Dice of every epoch: set evaluate.every=1")
    return remarks
