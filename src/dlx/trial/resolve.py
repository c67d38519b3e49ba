"""From a Spec to a Resolved: arguments bound, data opened, sizes fitted, everything checked, the trial named."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlx.data.cases import Dataset
from dlx.data.dataset import open_dataset
from dlx.data.intensities import ChannelIntensities
from dlx.data.layouts.listing import name_some
from dlx.data.remarks import remark_on
from dlx.data.sampler import fit_patch_size
from dlx.data.split import Split, load_groups, split_cases
from dlx.data.whiten import describe_correlations
from dlx.engine import checkpoint
from dlx.engine.checkpoint import InitialWeights
from dlx.engine.device import Compute, available_cores, choose_compute, memory_bytes
from dlx.settings.binding import bind_part, named_part, named_settings
from dlx.settings.spec import Spec
from dlx.study.metrics import MIN_POINTS
from dlx.study.results import RESULTS_VERSION
from dlx.system.errors import SettingError
from dlx.training import schedules
from dlx.trial.evaluation_memory import fit_evaluation_batch
from dlx.trial.factories import make_loss, make_model, make_optimizer, make_scheduler, model_geometry
from dlx.trial.sanity import odd_dropout, odd_patches, odd_threads


@dataclass(frozen=True)
class Resolved:
    """A Spec with nothing left to choose: every argument filled in, the data known, the device chosen."""

    spec: Spec
    dataset: Dataset
    split: Split
    compute: Compute
    parameters: int
    initial: InitialWeights | None = None  # what `train.init_from` held when it was read
    remarks: tuple[str, ...] = ()
    intensities: tuple[tuple[ChannelIntensities, ...], ...] = ()  # of each case, for a dry run to show

    def settings(self, seed: int) -> dict[str, Any]:
        """All that can change the trial's numbers, as JSON; what cannot (paths, device numbers) is left out."""
        spec = _named(self.spec)
        if self.spec.dropout.p == 0.0:  # then neither kind nor place changes a number: one control serves all sweeps
            spec["dropout"] = {"p": 0.0}
        spec["data"]["source"] = {"fingerprint": self.dataset.fingerprint}
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
        """The same, small enough to be sent to a worker: a VoxelStore holds the voxels from here on."""
        return replace(self, dataset=replace(self.dataset, cases=()))

    def trial_id(self, seed: int) -> str:
        """The trial's name: a hash of its settings."""
        text = json.dumps(self.settings(seed), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def bind_spec(spec: Spec) -> Spec:
    """The spec with the arguments of all its parts checked and filled in; SettingError names what does not fit."""
    optimizer = spec.optimizer.model_copy(update={"name": bind_part("optimizer", spec.optimizer.name)})
    data = spec.data.model_copy(
        update={
            "source": bind_part("data", spec.data.source),
            "normalize": bind_part("normalizer", spec.data.normalize),
        }
    )
    return spec.model_copy(
        update={
            "data": data,
            "model": bind_part("model", spec.model),
            "init": bind_part("initializer", spec.init),
            "loss": tuple(bind_part("loss", term) for term in spec.loss),
            "optimizer": optimizer,
            "scheduler": bind_part("scheduler", spec.scheduler),
        }
    )


def _named(spec: Spec) -> dict[str, Any]:
    """A bound spec as it names a trial: without what was added later and stands at its default."""
    named = named_settings(spec)
    named["data"]["normalize"] = named_part("normalizer", spec.data.normalize)
    named["optimizer"]["name"] = named_part("optimizer", spec.optimizer.name)
    named["loss"] = [named_part("loss", term) for term in spec.loss]
    parts = {
        "model": ("model", spec.model),
        "init": ("initializer", spec.init),
        "scheduler": ("scheduler", spec.scheduler),
    }
    return named | {key: named_part(kind, part) for key, (kind, part) in parts.items() if key in named}


def resolve(
    spec: Spec,
    *,
    cache_dir: Path | None = None,
    verify_data: bool = False,
    keep_cache: bool = True,
    progress: Callable[[int, int], None] | None = None,
    datasets: dict[str, Dataset] | None = None,
    min_validations: int = MIN_POINTS,
    fits_batch: bool = True,
) -> Resolved:
    """Checks everything that can be checked before the first step, and chooses what was left open.

    Prepared data go to `cache_dir` unless `keep_cache` is off. `datasets` keeps opened data by their settings, so that
    the trials of a study read them once. `min_validations` is how often a trial is validated at least where
    `evaluate.every` is left open; `fits_batch` halves the default `evaluate.batch_size` until it fits the memory.
    """
    spec = bind_spec(spec)
    compute = choose_compute(spec.compute)
    key = spec.data.model_dump_json()
    datasets = {} if datasets is None else datasets
    if key not in datasets:
        datasets[key] = open_dataset(
            spec.data, cache_dir=cache_dir, verify=verify_data, keep=keep_cache, progress=progress
        )
    dataset = datasets[key]
    folder = spec.data.source.args.get("path")
    groups = load_groups(spec.split, Path(folder) if folder else None)
    split = split_cases(
        [case.id for case in dataset.cases],
        {case.id: case.value_hash for case in dataset.cases},
        groups,
        spec.split,
        prepared_hashes={case.id: case.prepared_hash for case in dataset.cases if case.prepared_hash},
    )
    with torch.device("meta"):
        model = make_model(spec, dataset)
    dims, stride = model_geometry(model)
    compute = _fit_precision(spec, compute, dims)
    spec = _fit_patch(spec, dataset, split, dims, stride)
    spec = _fit_evaluation(spec, dataset, split, min_validations)
    _check_norms(spec, model, stride)
    spec, batch_remarks = fit_evaluation_batch(spec, model, dataset, split, compute) if fits_batch else (spec, [])
    remarks = [
        *compute.remarks,
        *dataset.remarks,
        *describe_correlations(dataset.cases),
        *remark_on(dataset, split, groups),
        *odd_patches(spec, dataset, split, dims),
        *(odd_dropout(model, len(dataset.channels)) if spec.dropout.p > 0 else ()),
        *(odd_threads(compute.threads, available_cores()) if compute.device.type == "cpu" else ()),
        *_check_parts(spec, model, dataset),
        *batch_remarks,
    ]
    initial = None
    if spec.train.init_from is not None:
        initial = checkpoint.initial_weights(model, Path(spec.train.init_from))
        total = len(model.state_dict())
        missing = f"; not in it or of another shape: {name_some(initial.missing)}" if initial.missing else ""
        remarks.append(f"{total - len(initial.missing)} of {total} tensors from {spec.train.init_from}{missing}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _check_memory(spec, parameters, compute)
    intensities = tuple(case.intensities for case in dataset.cases)
    return Resolved(spec, dataset, split, compute, parameters, initial, (*remarks, *split.remarks), intensities)


def _fit_precision(spec: Spec, compute: Compute, dims: int) -> Compute:
    """float32 for 3D networks on a CPU: oneDNN's bf16 gradients of 3D kernels are wrong there (docs/log.md)."""
    if dims == 2 or compute.device.type != "cpu" or compute.precision == "float32":
        return compute
    if spec.compute.precision == "bf16":
        raise SettingError("compute.precision: bf16 gradients of 3D convolutions are wrong on a CPU; use float32")
    return replace(compute, precision="float32")


def _fit_patch(spec: Spec, dataset: Dataset, split: Split, dims: int, stride: int) -> Spec:
    asked = spec.batch.patch_size_px
    if asked is not None and len(asked) != dims:
        raise SettingError(f"batch.patch_size_px has {len(asked)} sizes, but '{spec.model.name}' is a {dims}D network")
    if spec.batch.kind == "block" and dims == 3:
        raise SettingError("batch.kind 'block' takes the slices of a cube; a 3D network needs 'patches'")
    train = set(split.train)
    trained = [case.mask.shape for case in dataset.cases if case.id in train]
    if dims == 2:
        trained = [tuple(size for axis, size in enumerate(shape) if axis != spec.batch.slice_axis) for shape in trained]
    fitted = fit_patch_size(asked, trained, stride)
    return spec.model_copy(update={"batch": spec.batch.model_copy(update={"patch_size_px": fitted})})


def _fit_evaluation(spec: Spec, dataset: Dataset, split: Split, at_least: int) -> Spec:
    """How often to validate where that is left open: so often that the validation cases cost a tenth of training.

    Both are counted in voxels that pass the network, a training voxel thrice (forward and backward). A trial is
    validated `at_least` so many times (if it has as many epochs), whatever that costs, and the training subset that is
    measured beside is not counted. What watches the validation Dice (plateau, patience) gets it in every epoch.
    """
    if spec.evaluate.every is not None:
        return spec
    assert spec.batch.patch_size_px is not None
    patch = prod(spec.batch.patch_size_px)
    trained = 3 * patch * spec.batch.size * spec.train.steps_per_epoch
    val = set(split.val)
    validated = sum(case.mask.size for case in dataset.cases if case.id in val)
    is_watched = spec.scheduler.name == "plateau" or spec.train.patience is not None
    times = spec.train.epochs if is_watched else max(1, spec.train.epochs * trained // (10 * validated))
    every = -(-spec.train.epochs // times)  # spread evenly, the last epoch among them
    every = max(1, min(every, spec.train.epochs // at_least))
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"every": every})})


def _check_memory(spec: Spec, parameters: int, compute: Compute) -> None:
    """Refuses a network whose weights, gradients and moments (float32) alone are more than the device's memory."""
    needed = 4 * parameters * (5 if spec.train.ema_decay else 4)
    available = memory_bytes(compute.device)
    if available is not None and needed > available:
        raise SettingError(
            f"model '{spec.model}': {parameters:,} parameters take {needed / 2**30:.0f} GiB to train, "
            f"and {compute.device} has {available / 2**30:.0f} GiB"
        )


def _check_norms(spec: Spec, model: nn.Module, stride: int) -> None:
    """Refuses batches whose deepest features are one value a channel, of which torch makes no statistics."""
    assert spec.batch.patch_size_px is not None
    deepest = prod(-(-size // stride) for size in spec.batch.patch_size_px)
    is_batch = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    grouped = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    widest = max(grouped, key=lambda norm: norm.num_channels, default=None)
    is_instance = widest is not None and widest.num_groups == widest.num_channels
    if (is_batch or is_instance) and spec.batch.size * deepest == 1:
        patch = " x ".join(map(str, spec.batch.patch_size_px))
        raise SettingError(
            f"model '{spec.model}': one patch of {patch} ends as one voxel at the deepest level, and its norm needs "
            "more than one value a channel: make batch.size or batch.patch_size_px larger, or take norm=none"
        )


def _check_parts(spec: Spec, model: nn.Module, dataset: Dataset) -> list[str]:
    """Makes loss, optimiser and scheduler once for the model on the meta device: what they refuse is refused here,
    before anything trains. Returns remarks for the user."""
    remarks = []
    make_loss(spec.loss, len(dataset.classes))
    make_scheduler(make_optimizer(model, spec), spec)
    rates = schedules.rates(spec.scheduler.name, spec.scheduler.args, spec.optimizer.lr, spec.train.epochs)
    collapse = schedules.early_collapse(rates)
    if collapse is not None:
        remarks.append(
            f"scheduler '{spec.scheduler}': the rate is below a thousandth of its first from epoch {collapse + 1} on, "
            f"so hardly anything is learnt after that"
        )
    if spec.scheduler.name == "plateau" and spec.evaluate.every != 1:
        raise SettingError("scheduler 'plateau' watches every epoch's validation Dice: it needs evaluate.every = 1")
    return remarks
