"""From a Resolved to its Job: the objects of one trial on its device, new or those of an earlier trial reset."""

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlx.data.batches.augment import Augmenter
from dlx.data.batches.sampler import PatchSampler, PatchSource, box_extent
from dlx.data.batches.voxels import VoxelStore
from dlx.engine.average import WeightAverage
from dlx.engine.capture import Captured
from dlx.engine.device import Compute, prepare_backend
from dlx.engine.evaluate import Evaluator
from dlx.engine.fit import Job
from dlx.engine.group import Group
from dlx.engine.randomness import weights_from
from dlx.engine.step import TrainStep
from dlx.models.layers.dropout import dropout_modules
from dlx.models.own.network import OwnNetwork, set_memory_format
from dlx.scoring.outputs import Outputs
from dlx.settings.own.code import vouch
from dlx.settings.spec import AugmentSpec, Spec
from dlx.system.ranks import ALONE, Ranks
from dlx.trial.factories import (
    make_model,
    make_optimizer,
    make_scheduler,
    make_training_loss,
    model_geometry,
    outputs_of,
)
from dlx.trial.resolve import Resolved


def make_job(
    resolved: Resolved, store: VoxelStore, seed: int, like: Job | None = None, group: Group | None = None
) -> Job:
    """The objects of one trial before its first step. Its weights are drawn from the seed's stream, on the host so that
    they do not depend on the device; then those of `train.init_from` replace them.

    `like` is a finished job of the same `shape_key`: its network, optimizer and captured step are reset and reused.
    `group` are the ranks that train the trial together.
    """
    spec, compute = resolved.spec, resolved.compute
    store = store.windowed(resolved.windows)
    prepare_backend(compute)
    model = _network_at_start(resolved, seed)
    if like is None:
        model = place_network(model, compute)
        if group is not None and spec.compute.sync_batchnorm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model, group.on_device)  # type: ignore[no-untyped-call]
        step = _make_step(resolved, store, model, group)
    else:
        step = like.step
        _set_back(step, model, make_optimizer(model, spec))
    scheduler = make_scheduler(step.optimizer, spec)
    job = _assemble(resolved, store, seed, step, scheduler)
    if like is not None:
        job.take_noise(like.noise)
    elif compute.captures:
        augment = [] if step.augmenter is None else [step.augmenter.noise]
        is_required = spec.compute.capture is True
        step.work = Captured(step.model, step.optimizer, [job.noise, *augment], is_required=is_required)
    return job


def place_network(model: nn.Module, compute: Compute) -> nn.Module:
    """The network on the device, in the memory format in which it is fast there."""
    dims, _ = model_geometry(model)
    memory_format = compute.memory_format(dims)
    if isinstance(model, OwnNetwork):
        set_memory_format(model)
        memory_format = torch.preserve_format
    placed: nn.Module = model.to(compute.device, memory_format=memory_format)  # type: ignore[call-overload]
    return placed


def shape_key(resolved: Resolved) -> str:
    """What a captured step depends on: equal for trials that differ only in seed, rates, schedule or a p above 0."""
    settings = resolved.settings(0)
    settings["dropout"] = settings["dropout"] | {"p": settings["dropout"]["p"] > 0}
    settings["optimizer"] = settings["optimizer"] | {"lr": None, "group_lr": None}
    settings["train"] = settings["train"] | {"epochs": None, "patience": None, "init_from": None}
    left_out = ("scheduler", "init", "evaluate", "results_version", "seed")
    evaluate = resolved.spec.evaluate
    measured = {"soft_dice": evaluate.soft_dice, "probes": evaluate.probes}
    return json.dumps({key: value for key, value in settings.items() if key not in left_out} | measured, sort_keys=True)


def _network_at_start(resolved: Resolved, seed: int) -> nn.Module:
    """The trial's network with its first weights, on the host. A worker loads code of the user's own here."""
    if resolved.code is not None:
        vouch(resolved.code)
    with weights_from(seed):
        model = make_model(resolved.spec, resolved.dataset)
    if resolved.initial is not None:
        model.load_state_dict(resolved.initial.tensors, strict=False)
    return model


def _make_step(resolved: Resolved, store: VoxelStore, model: nn.Module, group: Group | None) -> TrainStep:
    ranks = ALONE if group is None else group.ranks
    for dropout in dropout_modules(model):
        dropout.ranks = ranks
    spec, compute = resolved.spec, resolved.compute
    decay = spec.train.ema_decay
    train = tuple(store.index[case] for case in resolved.split.train)
    dims, _ = model_geometry(model)
    outputs = outputs_of(resolved.dataset)
    plan = _patch_sampler(spec, store, train, outputs)
    return TrainStep(
        model,
        make_training_loss(spec, outputs, model).to(compute.device),
        make_optimizer(model, spec),
        PatchSource(store, plan, spec.batch, dims, compute.device, spec.train.steps_per_epoch, ranks),
        compute,
        clip_grad_norm=spec.optimizer.clip_grad_norm,
        average=None if decay is None else WeightAverage(model, decay),
        augmenter=_make_augmenter(resolved, ranks),
        with_soft_dice=spec.evaluate.soft_dice,
        with_probes=spec.evaluate.probes,
        outputs=outputs,
        group=group,
    )


def _make_augmenter(resolved: Resolved, ranks: Ranks) -> Augmenter | None:
    spec = resolved.spec
    if spec.augment == AugmentSpec():
        return None
    channels, steps = len(resolved.dataset.channels), spec.train.steps_per_epoch
    return Augmenter(
        spec.augment,
        steps,
        spec.batch.fitted_size,
        channels,
        spec.batch.fitted_patch_size_px,
        resolved.compute.device,
        resolved.patch_voxel_size,
        ranks,
    )


def _set_back(step: TrainStep, start: nn.Module, settings: Optimizer) -> None:
    """Copies the weights of `start` and the rates of `settings` and zeroes the moments; all tensors stay in place."""
    step.model.load_state_dict(start.state_dict())
    for group, asked in zip(step.optimizer.param_groups, settings.param_groups, strict=True):
        group["lr"] = asked["lr"]
        group.pop("initial_lr", None)  # the next scheduler writes its own
    for entries in step.optimizer.state.values():
        for entry in entries.values():
            if isinstance(entry, Tensor):
                entry.zero_()
    if step.average is not None:
        step.average.restart()


def _assemble(resolved: Resolved, store: VoxelStore, seed: int, step: TrainStep, scheduler: Any) -> Job:
    spec, dataset, compute = resolved.spec, resolved.dataset, resolved.compute
    train = tuple(store.index[case] for case in resolved.split.train)
    val = tuple(store.index[case] for case in resolved.split.val)
    evaluator = make_evaluator(spec, outputs_of(dataset), step.model, store, compute)
    return Job(
        seed=seed,
        model=step.model,
        optimizer=step.optimizer,
        scheduler=scheduler,
        step=step,
        evaluator=evaluator,
        compute=compute,
        epochs=spec.train.epochs,
        train_cases=train,
        val_cases=val,
        subset_cases=evenly_spaced(train, spec.evaluate.train_subset),
        class_names=dataset.classes,
        dropout_p=None if spec.dropout.own_rates else spec.dropout.p,
        evaluate_every=spec.evaluate.every or 1,
        patience=spec.train.patience,
        average=step.average,
    )


def make_evaluator(spec: Spec, outputs: Outputs, model: nn.Module, store: VoxelStore, compute: Compute) -> Evaluator:
    """The evaluator of a trial's network, or one of the same geometry, on the voxels of a store."""
    dims, stride = model_geometry(model)
    return Evaluator(
        store=store,
        compute=compute,
        outputs=outputs,
        dims=dims,
        stride=stride,
        slice_axis=spec.batch.fitted_slice_axis,
        window=spec.batch.fitted_patch_size_px,
        batch_size=spec.evaluate.batch_size,
        overlap_fraction=spec.evaluate.overlap_fraction,
        with_soft_dice=spec.evaluate.soft_dice,
        mirrored_axes=spec.mirrored_axes(dims),
    )


def evenly_spaced(cases: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`count` of the cases, at equal distances in their order; all of them if there are no more."""
    if count >= len(cases):
        return cases
    return tuple(cases[(2 * position + 1) * len(cases) // (2 * count)] for position in range(count))


def _patch_sampler(spec: Spec, store: VoxelStore, train: tuple[int, ...], outputs: Outputs) -> PatchSampler:
    whole = [tuple((0, size) for size in store.shapes[case]) for case in train]
    boxes = [store.boxes[case] for case in train] if spec.data.crop else whole
    batch = spec.batch
    return PatchSampler(
        box_extent(batch.fitted_patch_size_px, batch),
        train,
        tuple(boxes),  # type: ignore[arg-type]
        batch.foreground_fraction,
        batch.foreground_by,
        outputs.regions,
        outputs.has_ignored,
    )
