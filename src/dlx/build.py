"""From a Spec to something that runs: arguments bound, data opened, sizes fitted, the trial named, the Job made."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlx import registry, schedules
from dlx.arguments import bind_part
from dlx.data.cases import Dataset
from dlx.data.dataset import open_dataset
from dlx.data.sampler import PatchPlan, PatchSource, box_extent, fit_patch_size
from dlx.data.split import Split, load_groups, split_cases
from dlx.data.voxels import VoxelStore
from dlx.engine import checkpoint
from dlx.engine.device import Compute, choose_compute, memory_bytes
from dlx.engine.evaluate import Evaluator
from dlx.engine.fit import Job
from dlx.engine.randomness import weights_from
from dlx.engine.step import TrainStep
from dlx.errors import SettingError
from dlx.losses import SumLoss
from dlx.records import RESULTS_VERSION
from dlx.specs import Part, Spec


@dataclass(frozen=True)
class Resolved:
    """A Spec with nothing left to choose: every argument filled in, the data known, the device chosen."""

    spec: Spec
    dataset: Dataset
    split: Split
    compute: Compute
    parameters: int
    remarks: tuple[str, ...] = ()

    def settings(self, seed: int) -> dict[str, Any]:
        """All that can change the trial's numbers, as JSON; what cannot (paths, device numbers) is left out."""
        spec = self.spec.model_dump(mode="json")
        spec["data"]["source"] = {"fingerprint": self.dataset.fingerprint}
        spec["split"] = {"train": list(self.split.train), "val": list(self.split.val)}
        spec["compute"] = {
            "device": self.compute.device.type,
            "precision": self.compute.precision,
            "threads": self.compute.threads if self.compute.device.type == "cpu" else None,
        }
        if self.spec.train.init_from is not None:
            spec["train"]["init_from"] = hashlib.blake2b(Path(self.spec.train.init_from).read_bytes()).hexdigest()
        return {
            "results_version": RESULTS_VERSION,
            "seed": seed,
            "channels": list(self.dataset.channels),
            "classes": list(self.dataset.classes),
            **spec,
        }

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
            "loss": tuple(bind_part("loss", term) for term in spec.loss),
            "optimizer": optimizer,
            "scheduler": bind_part("scheduler", spec.scheduler),
        }
    )


def resolve(
    spec: Spec,
    *,
    cache_dir: Path | None = None,
    verify_data: bool = False,
    progress: Callable[[int, int], None] | None = None,
    datasets: dict[str, Dataset] | None = None,
) -> Resolved:
    """Checks everything that can be checked before the first step, and chooses what was left open.

    `datasets` keeps opened data by their settings, so that the trials of a study read them once.
    """
    spec = bind_spec(spec)
    compute = choose_compute(spec.compute)
    key = spec.data.model_dump_json()
    datasets = {} if datasets is None else datasets
    if key not in datasets:
        datasets[key] = open_dataset(spec.data, cache_dir=cache_dir, verify=verify_data, progress=progress)
    dataset = datasets[key]
    folder = spec.data.source.args.get("path")
    split = split_cases(
        [case.id for case in dataset.cases],
        {case.id: case.content_hash for case in dataset.cases},
        load_groups(spec.split, Path(folder) if folder else None),
        spec.split,
    )
    with torch.device("meta"):
        model = make_model(spec, dataset)
    dims, stride = model_geometry(model)
    spec = _fit_patch(spec, dataset, split, dims, stride)
    spec = _fit_evaluation(spec, dataset, split)
    remarks = [*dataset.remarks, *_check_parts(spec, model, dataset)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _check_memory(spec, parameters, compute)
    return Resolved(spec, dataset, split, compute, parameters, (*remarks, *split.remarks))


def make_model(spec: Spec, dataset: Dataset) -> nn.Module:
    """The spec's network for the data's channels and classes, on torch's current default device."""
    factory = registry.load("model", spec.model.name)
    model: nn.Module = factory(len(dataset.channels), len(dataset.classes), spec.dropout, **spec.model.args)
    return model


def model_geometry(model: nn.Module) -> tuple[int, int]:
    """A model's number of spatial dimensions and the multiple its input sizes are padded to."""
    return int(model.dims), int(model.stride)  # type: ignore[arg-type]


def make_loss(terms: tuple[Part, ...], num_classes: int) -> nn.Module:
    """The sum of the named losses."""
    return SumLoss([registry.load("loss", term.name)(num_classes, **term.args) for term in terms])


def parameter_groups(model: nn.Module, spec: Spec) -> list[dict[str, Any]]:
    """The optimiser's groups: encoder, decoder, head, each with its rate; SettingError for a group there is not."""
    groups: dict[str, list[nn.Parameter]] = model.parameter_groups()  # type: ignore[operator]
    for name in spec.optimizer.group_lr:
        if name not in groups:
            raise SettingError(
                f"optimizer.group_lr: '{spec.model.name}' has no group '{name}' (known: {', '.join(groups)})"
            )
    return [
        {
            "name": name,
            "params": parameters,
            "lr": spec.optimizer.group_lr.get(name, spec.optimizer.lr),
            "weight_decay": spec.optimizer.weight_decay,
        }
        for name, parameters in groups.items()
        if parameters
    ]


def make_job(resolved: Resolved, store: VoxelStore, seed: int) -> Job:
    """The live objects of one trial, at its start: weights drawn from the seed's stream (on the host, so that they
    do not depend on the device), then taken from `train.init_from` where that is given.
    """
    spec, dataset, compute = resolved.spec, resolved.dataset, resolved.compute
    with weights_from(seed):
        model = make_model(spec, dataset)
    if spec.train.init_from is not None:
        model.load_state_dict(fitting_weights(model, Path(spec.train.init_from))[0], strict=False)
    dims, stride = model_geometry(model)
    model = model.to(compute.device, memory_format=compute.memory_format(dims))  # type: ignore[call-overload]
    optimizer = registry.load("optimizer", spec.optimizer.name.name)(
        parameter_groups(model, spec), **spec.optimizer.name.args
    )
    scheduler = registry.load("scheduler", spec.scheduler.name)(optimizer, spec.train.epochs, **spec.scheduler.args)
    decay = spec.train.ema_decay
    average = get_ema_multi_avg_fn(decay) if decay else None  # type: ignore[no-untyped-call]
    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if decay else None
    train = tuple(store.index[case] for case in resolved.split.train)
    val = tuple(store.index[case] for case in resolved.split.val)
    assert spec.batch.patch_size_px is not None
    source = PatchSource(
        store, _patch_plan(spec, store, train), spec.batch, dims, compute.device, spec.train.steps_per_epoch
    )
    num_classes = len(dataset.classes)
    step = TrainStep(
        model,
        make_loss(spec.loss, num_classes).to(compute.device),
        optimizer,
        source,
        compute,
        clip_grad_norm=spec.optimizer.clip_grad_norm,
        ema=ema,
        with_soft_dice=spec.evaluate.soft_dice,
        num_classes=num_classes,
    )
    evaluator = Evaluator(
        store=store,
        compute=compute,
        num_classes=num_classes,
        dims=dims,
        stride=stride,
        slice_axis=spec.batch.slice_axis,
        window=spec.batch.patch_size_px,
        batch_size=spec.evaluate.batch_size,
        overlap_fraction=spec.evaluate.overlap_fraction,
        with_soft_dice=spec.evaluate.soft_dice,
    )
    return Job(
        seed=seed,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        step=step,
        evaluator=evaluator,
        compute=compute,
        epochs=spec.train.epochs,
        train_cases=train,
        val_cases=val,
        subset_cases=evenly_spaced(train, spec.evaluate.train_subset),
        class_names=dataset.classes,
        dropout_p=spec.dropout.p,
        evaluate_every=spec.evaluate.every or 1,
        patience=spec.train.patience,
        ema=ema,
    )


def evenly_spaced(cases: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`count` of the cases, spread over their order; all of them where there are no more."""
    if count >= len(cases):
        return cases
    return tuple(cases[(2 * position + 1) * len(cases) // (2 * count)] for position in range(count))


def fitting_weights(model: nn.Module, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """A checkpoint's weights whose name and shape fit the model, and the names of the model's that are not among them.

    Averaged weights are preferred where the checkpoint has them. SettingError where nothing fits.
    """
    saved = checkpoint.read(path)
    averaged = {
        name.removeprefix("module."): tensor for name, tensor in saved.part("ema").items() if name != "n_averaged"
    }
    own = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in (averaged or saved.part("model")).items()
        if name in own and own[name].shape == tensor.shape
    }
    if not any(tensor.ndim > 1 for tensor in fitting.values()):  # a bias or a counter alone is no match
        raise SettingError(f"{path}: none of its weights fit this network")
    return fitting, sorted(set(own) - set(fitting))


def _fit_patch(spec: Spec, dataset: Dataset, split: Split, dims: int, stride: int) -> Spec:
    asked = spec.batch.patch_size_px
    if asked is not None and len(asked) != dims:
        raise SettingError(f"batch.patch_size_px has {len(asked)} sizes, but '{spec.model.name}' is a {dims}D network")
    if spec.batch.kind == "block" and dims == 3:
        raise SettingError("batch.kind 'block' takes the slices of a cube; a 3D network needs 'patches'")
    trained = [case.mask.shape for case in dataset.cases if case.id in set(split.train)]
    if dims == 2:
        trained = [tuple(size for axis, size in enumerate(shape) if axis != spec.batch.slice_axis) for shape in trained]
    fitted = fit_patch_size(asked, trained, stride)
    return spec.model_copy(update={"batch": spec.batch.model_copy(update={"patch_size_px": fitted})})


def _fit_evaluation(spec: Spec, dataset: Dataset, split: Split) -> Spec:
    """How often to validate where that is left open: so often that it costs at most a tenth of training.

    Both are counted in voxels that pass the network, a training voxel thrice (forward and backward). What watches
    the validation Dice of every epoch (plateau, patience) needs it in every epoch.
    """
    if spec.evaluate.every is not None:
        return spec
    assert spec.batch.patch_size_px is not None
    patch = prod(spec.batch.patch_size_px)
    trained = 3 * patch * spec.batch.size * spec.train.steps_per_epoch
    validated = sum(case.mask.size for case in dataset.cases if case.id in set(split.val))
    is_watched = spec.scheduler.name == "plateau" or spec.train.patience is not None
    times = spec.train.epochs if is_watched else max(1, spec.train.epochs * trained // (10 * validated))
    every = max(1, -(-spec.train.epochs // times))  # spread evenly, the last epoch among them
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


def _check_parts(spec: Spec, model: nn.Module, dataset: Dataset) -> list[str]:
    """Makes loss, optimiser and scheduler once for the model on the meta device: what they refuse is refused here,
    before anything trains. Returns remarks for the user."""
    remarks = []
    make_loss(spec.loss, len(dataset.classes))
    if spec.train.init_from is not None:
        _, missing = fitting_weights(model, Path(spec.train.init_from))
        remarks.append(
            f"weights from {spec.train.init_from}; not in it or of another shape: {', '.join(missing) or 'none'}"
        )
    optimizer = registry.load("optimizer", spec.optimizer.name.name)(
        parameter_groups(model, spec), **spec.optimizer.name.args
    )
    registry.load("scheduler", spec.scheduler.name)(optimizer, spec.train.epochs, **spec.scheduler.args)
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


def _patch_plan(spec: Spec, store: VoxelStore, train: tuple[int, ...]) -> PatchPlan:
    assert spec.batch.patch_size_px is not None
    whole = [tuple((0, size) for size in store.shapes[case]) for case in train]
    boxes = [store.boxes[case] for case in train] if spec.data.crop else whole
    extent = box_extent(spec.batch.patch_size_px, spec.batch)
    return PatchPlan(extent, train, tuple(boxes), spec.batch.foreground_fraction)  # type: ignore[arg-type]
