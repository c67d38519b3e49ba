"""From a Resolved to its Job: the live objects of one trial, on its device."""

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlx.data.sampler import PatchPlan, PatchSource, box_extent
from dlx.data.voxels import VoxelStore
from dlx.engine.device import prepare_backend
from dlx.engine.evaluate import Evaluator
from dlx.engine.fit import Job
from dlx.engine.randomness import weights_from
from dlx.engine.step import TrainStep
from dlx.parts import make_loss, make_model, make_optimizer, make_scheduler, model_geometry
from dlx.resolve import Resolved
from dlx.specs import Spec


def make_job(resolved: Resolved, store: VoxelStore, seed: int) -> Job:
    """The live objects of one trial, at its start: weights drawn from the seed's stream (on the host, so that they
    do not depend on the device), then those that were taken from `train.init_from`, where that is given.
    """
    spec, dataset, compute = resolved.spec, resolved.dataset, resolved.compute
    prepare_backend(compute)
    with weights_from(seed):
        model = make_model(spec, dataset)
    if resolved.initial is not None:
        model.load_state_dict(resolved.initial.tensors, strict=False)
    dims, stride = model_geometry(model)
    model = model.to(compute.device, memory_format=compute.memory_format(dims))  # type: ignore[call-overload]
    optimizer = make_optimizer(model, spec)
    scheduler = make_scheduler(optimizer, spec)
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


def _patch_plan(spec: Spec, store: VoxelStore, train: tuple[int, ...]) -> PatchPlan:
    assert spec.batch.patch_size_px is not None
    whole = [tuple((0, size) for size in store.shapes[case]) for case in train]
    boxes = [store.boxes[case] for case in train] if spec.data.crop else whole
    extent = box_extent(spec.batch.patch_size_px, spec.batch)
    return PatchPlan(extent, train, tuple(boxes), spec.batch.foreground_fraction)  # type: ignore[arg-type]
