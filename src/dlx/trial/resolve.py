"""From a Spec and its data to a Resolved: arguments bound, sizes fitted, everything checked, the trial id computed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlx.data.batches.sampler import slice_sizes
from dlx.data.cases import Dataset
from dlx.data.checks.remarks import remark_on
from dlx.data.intensities.ct import Windows, describe_windows, windows_of
from dlx.data.intensities.measures import ChannelIntensities
from dlx.data.intensities.whiten import describe_correlations
from dlx.data.layouts.listing import name_some
from dlx.data.splits.choose import split_cases
from dlx.data.splits.groups import load_groups
from dlx.data.splits.split import Split
from dlx.engine import checkpoint
from dlx.engine.checkpoint import InitialWeights
from dlx.engine.device import ChooseCompute, Compute, choose_compute
from dlx.models.network import is_deeply_supervised
from dlx.models.own.network import OwnNetwork
from dlx.settings.binding import bind_part, bind_parts, identifying_settings
from dlx.settings.own.code import OwnCode, vouched_code
from dlx.settings.part import Part
from dlx.settings.spec import Spec
from dlx.study.continued import Continued
from dlx.study.metrics import MIN_POINTS
from dlx.study.results import RESULTS_VERSION
from dlx.system.errors import SettingError
from dlx.training import schedules
from dlx.trial.evaluation_memory import fit_evaluation_batch
from dlx.trial.factories import make_loss, make_model, make_optimizer, make_scheduler, model_geometry, outputs_of
from dlx.trial.fit_batch import fit_batch, fit_network, fit_slice_axis, voxel_size_of_patch
from dlx.trial.memory import Fitted
from dlx.trial.own_network import check_own_network, naming_own_code
from dlx.trial.precision import fit_precision
from dlx.trial.ranks import check_ranks
from dlx.trial.revisions import revisions
from dlx.trial.sanity import (
    spell_size,
    warn_of_dropout,
    warn_of_mirroring,
    warn_of_patches,
    warn_of_settings_without_effect,
    warn_of_threads,
)


@dataclass(frozen=True)
class Resolved:
    """A Spec with every argument filled in and every default chosen, with its data, split and device."""

    spec: Spec
    dataset: Dataset
    split: Split
    compute: Compute
    parameters: int
    code: OwnCode | None = None  # of a network of the user's own
    initial: InitialWeights | None = None  # from `train.init_from`
    continued: Continued | None = None  # the trials of an earlier run that those of each seed continue
    windows: Windows = ()  # of the channels, if they are clipped and scaled by statistics of the training cases
    remarks: tuple[str, ...] = ()
    intensities: tuple[tuple[ChannelIntensities, ...], ...] = ()  # of each case; a dry run shows them
    step_fraction: float | None = None  # of the device's memory, for a step; None if small or not to be measured
    evaluation_fraction: float | None = None  # the same, for what is evaluated at once
    patch_voxel_size: tuple[float, ...] = ()  # along the axes of a patch, in any unit
    rounding_error: float | None = None  # the largest of images kept as float16, as a share of their noise

    def settings(self, seed: int) -> dict[str, Any]:
        """Every setting that can change the trial's numbers, as JSON: without paths and device numbers, for example."""
        spec = identifying_settings(self.spec)
        if self.spec.dropout.p == 0.0:  # kind and place then change no number: all sweeps share one control
            spec["dropout"] = {"p": 0.0} | ({"own_rates": True} if self.spec.dropout.own_rates else {})
        spec["data"]["source"] = {"fingerprint": self.dataset.fingerprint}
        for key in ("orientation", "spacing_mm"):  # the fingerprint says what they changed
            spec["data"].pop(key, None)
        for limit in ("max_voxels", "max_patches"):
            spec["batch"].pop(limit, None)  # size and patch_size_px say what it changed
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
        ranks = self.spec.compute
        if ranks.num_ranks > 1:  # sums over ranks are rounded otherwise
            spec["compute"]["num_ranks"] = ranks.num_ranks
            if ranks.sync_batchnorm:
                spec["compute"]["sync_batchnorm"] = True
        if self.initial is not None:
            spec["train"]["init_from"] = self.initial.digest
        if self.continued is not None:
            spec["train"]["continue_from"] = self.continued.settings(seed)
        revised = revisions(self.spec, self.dataset, self.compute, self.patch_voxel_size)
        return {
            "results_version": RESULTS_VERSION,
            **({"revisions": revised} if revised else {}),
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
        return settings_id(self.settings(seed))


ResolvedTrials = dict[tuple[str, int | None], Resolved]  # of a study, by the variant's label and the fold


def settings_id(settings: dict[str, Any]) -> str:
    """BLAKE2b (128 bits, hexadecimal) of a trial's settings as JSON with sorted keys."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def resolve(
    spec: Spec,
    dataset: Dataset,
    *,
    min_validations: int = MIN_POINTS,
    fits_batch: bool = True,
    choose: ChooseCompute = choose_compute,
) -> Resolved:
    """Checks everything that can be checked before the first step, and chooses what the spec leaves open.

    `dataset` is opened from `spec.data`, whose path is absolute. `min_validations`: how often at least a trial is
    validated if `evaluate.every` is not given. `fits_batch`: the default `evaluate.batch_size` is halved until it fits
    the memory. `choose` is that of the machine on which the trial is to run.
    """
    spec = bind_parts(spec)
    compute = choose(spec.compute)
    groups = load_groups(spec.split, spec.data.path)
    split = _split(spec, dataset, groups)
    spec, chosen = fit_network(spec, dataset)
    spec = _with_normalizer(spec, dataset)
    windows = _windows(spec, dataset, split)
    with torch.device("meta"), naming_own_code(spec.model):
        model = make_model(spec, dataset)
    compute = fit_precision(spec, model, compute)
    spec, fitted, step_fraction = _fit(spec, model, dataset, split, compute, min_validations)
    spec, reduced, evaluation_fraction = fit_evaluation_batch(spec, model, dataset, split, compute, reduces=fits_batch)
    if isinstance(model, OwnNetwork):
        dropout, own_remarks = check_own_network(spec, model, dataset, split)
        spec, chosen = spec.model_copy(update={"dropout": dropout}), [*chosen, *own_remarks]
    else:
        _check_norms(spec, model, dataset, split)
    part_remarks = [*_check_parts(spec, model, dataset), *check_ranks(spec, model, compute)]
    initial, start_remarks = _initial_weights(spec, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _check_memory(spec, parameters, compute)
    remarks = [
        *compute.remarks,
        *dataset.remarks,
        *chosen,
        *fitted,
        *describe_correlations(dataset.cases),
        *describe_windows(windows, dataset.channels, len(split.train)),
        *remark_on(dataset, split, groups),
        *_warnings(spec, model, dataset, split, compute),
        *part_remarks,
        *reduced,
        *start_remarks,
        *split.remarks,
    ]
    errors = [case.rounding_error for case in dataset.cases if case.rounding_error is not None and not case.is_wide]
    return Resolved(
        spec=spec,
        dataset=dataset,
        split=split,
        compute=compute,
        parameters=parameters,
        code=vouched_code(spec.model) if spec.model.is_own else None,
        initial=initial,
        windows=windows,
        remarks=tuple(remarks),
        intensities=tuple(case.intensities for case in dataset.cases),
        step_fraction=step_fraction,
        evaluation_fraction=evaluation_fraction,
        patch_voxel_size=voxel_size_of_patch(spec, dataset),
        rounding_error=max(errors, default=None),
    )


def _split(spec: Spec, dataset: Dataset, groups: Mapping[str, str]) -> Split:
    has_own_folds = spec.split.fold is not None and spec.split.file is None
    return split_cases(
        [case.id for case in dataset.cases],
        {case.id: case.value_hash for case in dataset.cases},
        groups,
        spec.split,
        prepared_hashes={case.id: case.prepared_hash for case in dataset.cases if case.prepared_hash},
        classes={case.id: dataset.classes_of(case) for case in dataset.cases} if has_own_folds else {},
    )


def _fit(
    spec: Spec, model: nn.Module, dataset: Dataset, split: Split, compute: Compute, min_validations: int
) -> Fitted:
    """The spec with slice axis, patches and interval of validation as numbers, in this order: each depends on those
    before it.
    """
    dims, _ = model_geometry(model)
    spec, axis_remarks = fit_slice_axis(spec, dataset, split, dims)
    _check_axes(spec, dims)
    _check_patch(spec, dims)
    spec, batch_remarks, memory_fraction = fit_batch(spec, model, dataset, split, compute)
    spec = _fit_evaluation(spec, dataset, split, min_validations, 2 ** len(spec.mirrored_axes(dims)))
    return Fitted(spec, [*axis_remarks, *batch_remarks], memory_fraction)


def _warnings(spec: Spec, model: nn.Module, dataset: Dataset, split: Split, compute: Compute) -> list[str]:
    """Those of `trial.sanity`."""
    return [
        *warn_of_patches(spec, dataset, split, model_geometry(model)[0]),
        *warn_of_settings_without_effect(spec),
        *warn_of_mirroring(spec, model_geometry(model)[0]),
        *(warn_of_dropout(model, len(dataset.channels)) if spec.dropout.p > 0 or spec.dropout.own_rates else ()),
        *(warn_of_threads(compute.threads, compute.cores) if compute.device.type == "cpu" else ()),
    ]


def _with_normalizer(spec: Spec, dataset: Dataset) -> Spec:
    """The spec with the normaliser that was chosen for these data in place of `auto`."""
    if spec.data.normalize.name != "auto":
        return spec
    chosen = bind_part("normalizer", Part.model_validate(dataset.normalize))
    return spec.model_copy(update={"data": spec.data.model_copy(update={"normalize": chosen})})


def _windows(spec: Spec, dataset: Dataset, split: Split) -> Windows:
    return windows_of(spec.data.normalize, dataset.channels, dataset.cases_of(split.train))


def _initial_weights(spec: Spec, model: nn.Module) -> tuple[InitialWeights | None, list[str]]:
    """The weights of `train.init_from`, and a remark on them."""
    path = spec.train.init_from
    if path is None:
        return None, []
    initial, total = checkpoint.initial_weights(model, Path(path)), len(model.state_dict())
    missing = f"; not in it or of another shape: {name_some(initial.missing)}" if initial.missing else ""
    return initial, [f"{total - len(initial.missing)} of {total} tensors from {path}{missing}"]


def _check_axes(spec: Spec, dims: int) -> None:
    """SettingError if an axis is named that patches of the network do not have."""
    asked = {"augment.flip_axes": spec.augment.flip_axes or (), "evaluate.mirror": spec.mirrored_axes(dims)}
    for key, axes in asked.items():
        if axes and max(axes) >= dims:
            raise SettingError(f"{key}: patches of a {dims}D network have the axes 0 to {dims - 1} (got {max(axes)})")


def _check_patch(spec: Spec, dims: int) -> None:
    """SettingError for a patch or a batch of other dimensions than the network's."""
    asked = spec.batch.patch_size_px
    if asked is not None and len(asked) != dims:
        raise SettingError(
            f"batch.patch_size_px: expected {dims} sizes for the {dims}D network '{spec.model.name}' (got {len(asked)})"
        )
    if spec.batch.kind == "block" and dims == 3:
        raise SettingError("batch.kind: 'block' is for 2D networks; a 3D network needs 'patches'")


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
    trained = 3 * patch * spec.batch.fitted_size * spec.train.steps_per_epoch
    validated = num_flips * sum(case.mask.size for case in dataset.cases_of(split.val))
    is_watched = spec.scheduler.name == "plateau" or spec.train.patience is not None
    times = spec.train.epochs if is_watched else max(1, spec.train.epochs * trained // (10 * validated))
    every = -(-spec.train.epochs // times)  # spread evenly, the last epoch among them
    every = max(1, min(every, spec.train.epochs // at_least))
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"every": every})})


def _check_memory(spec: Spec, parameters: int, compute: Compute) -> None:
    """Refuses a network whose weights, gradients and moments (float32) alone exceed the device's memory."""
    needed = 4 * parameters * (5 if spec.train.ema_decay else 4)
    available = compute.memory
    if available is not None and needed > available:
        raise SettingError(
            f"model '{spec.model}': training {parameters:,} parameters takes {needed / 2**30:.0f} GiB, "
            f"but {compute.device} has {available / 2**30:.0f} GiB"
        )


def _check_norms(spec: Spec, model: nn.Module, dataset: Dataset, split: Split) -> None:
    """Refuses sizes that leave a norm one value per channel at the deepest level: torch cannot normalise it.

    Batch norm takes the values of a whole batch in training, and none in evaluation; instance norm takes those of one
    patch, window or slice.
    """
    dims, stride = model_geometry(model)
    patch = spec.batch.fitted_patch_size_px
    seen = [("one patch", patch)]
    if dims == 2:  # evaluation takes whole slices
        shapes = [case.mask.shape for case in dataset.cases_of([*split.train, *split.val])]
        seen += [("an evaluated slice", size) for size in slice_sizes(shapes, spec.batch.fitted_slice_axis)]
    what, smallest = min(seen, key=lambda one: num_deepest(one[1], stride))
    if has_instance_norm(model) and num_deepest(smallest, stride) == 1:
        limit = " or batch.max_voxels" if spec.batch.size == "auto" else ""
        larger = f"a larger batch.patch_size_px{limit}, " if smallest == patch else ""
        deep = " (with a smaller model.deep_supervision)" if is_deeply_supervised(model) else ""
        raise SettingError(
            f"model '{spec.model.name}': {what} of {spell_size(smallest)} is one voxel at the deepest level, but "
            f"instance norm needs more than one: set {larger}fewer model.levels{deep} or another model.norm"
        )
    is_batch = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if is_batch and spec.batch.fitted_size * num_deepest(patch, stride) == 1:
        raise SettingError(
            f"model '{spec.model.name}': one patch of {spell_size(patch)} is one voxel at the deepest level, but its "
            "norm needs more than one value per channel: set a larger batch.size or batch.patch_size_px, or "
            "model.norm=none"
        )


def has_instance_norm(model: nn.Module) -> bool:
    """Whether a norm takes the values of one channel of one sample. With few channels any group norm has a group for
    each, so the widest one decides.
    """
    if any(isinstance(module, nn.modules.instancenorm._InstanceNorm) for module in model.modules()):
        return True
    grouped = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    widest = max(grouped, key=lambda norm: norm.num_channels, default=None)
    return widest is not None and widest.num_groups == widest.num_channels


def num_deepest(size: Sequence[int], stride: int) -> int:
    """The number of voxels at the deepest level of a network, whose input is padded to a multiple of its stride."""
    return prod(-(-one // stride) for one in size)


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
