"""What only a CUDA device can show; skipped where there is none (`make test-gpu` runs these alone)."""

import pytest
import torch

from dlx.build import make_job, shape_key
from dlx.data.voxels import VoxelStore
from dlx.engine.capture import Captured, Eager
from dlx.engine.fit import Progress, begin_epoch, fit
from dlx.records import EpochRecord
from dlx.resolve import resolve
from dlx.run.stores import make_store
from small import small_resolved, small_spec

pytestmark = pytest.mark.gpu
CUDA = {"compute": {"device": "cuda", "precision": "float32"}}


def cuda_job(*changes, on_host=False, seed=0):
    resolved = resolve(small_spec(CUDA, *changes))
    if on_host:
        wanted = {*resolved.split.train, *resolved.split.val}
        store = VoxelStore([case for case in resolved.dataset.cases if case.id in wanted])
    else:
        store = make_store(resolved)
    return make_job(resolved, store, seed)


def losses(job, epochs=1):
    results = [event.result for event in fit(job, Progress()) if isinstance(event, EpochRecord)]
    return [result.loss for result in results]


def test_weights_and_batches_are_the_cpus():
    cuda = cuda_job()
    resolved = small_resolved()
    cpu = make_job(resolved, make_store(resolved), 0)
    ours, theirs = Progress(), Progress()
    begin_epoch(cuda, ours, 1)
    begin_epoch(cpu, theirs, 1)
    assert ours.batches_hash == theirs.batches_hash
    for name, tensor in cpu.model.state_dict().items():
        assert torch.equal(tensor, cuda.model.state_dict()[name].cpu())
    for step in range(4):
        image, mask = cuda.step.source.batch(step)
        expected_image, expected_mask = cpu.step.source.batch(step)
        assert torch.equal(image.cpu(), expected_image)
        assert torch.equal(mask.cpu(), expected_mask)


def test_voxels_on_the_host_give_the_same_batches_and_losses():
    assert losses(cuda_job(on_host=True)) == pytest.approx(losses(cuda_job()), rel=1e-5)


def test_validation_equals_the_cpus():
    # float32 convolutions of the two differ by rounding (TF32 is off by default): a voxel on the fence may change side
    cuda = cuda_job()
    resolved = small_resolved()
    cpu = make_job(resolved, make_store(resolved), 0)
    ours = cuda.evaluator.measure(cuda.model, cuda.val_cases).counts
    theirs = cpu.evaluator.measure(cpu.model, cpu.val_cases).counts
    assert (ours - theirs).abs().max() <= 0.002 * theirs.sum()


def test_bf16_trains():
    values = losses(cuda_job({"compute": {"precision": "bf16"}}))
    assert all(value == value for value in values)


def test_dropout_noise_is_drawn_on_the_device_and_repeats():
    change = {"dropout": {"p": 0.5}}
    assert losses(cuda_job(change)) == pytest.approx(losses(cuda_job(change)), rel=1e-4)


def test_a_captured_step_gives_what_the_plain_one_gives():
    change = {"optimizer": {"lr": 2.0**-7}}  # the same in float32, in which a captured step reads it
    captured, plain = cuda_job(change), cuda_job(change)
    assert isinstance(captured.step.work, Captured)
    plain.step.work = Eager(plain.step.run)
    assert losses(captured) == pytest.approx(losses(plain), rel=1e-4)
    assert captured.step.work.num_captures == 1


def test_dropout_masks_change_from_replay_to_replay():
    job = cuda_job({"dropout": {"p": 0.5}, "optimizer": {"lr": 1e-12}, "train": {"steps_per_epoch": 4}})
    begin_epoch(job, Progress(), 1)
    for at in range(4):
        job.step(at)
    job.step.source.cases.copy_(job.step.source.cases[:1].expand_as(job.step.source.cases))
    job.step.source.starts.copy_(job.step.source.starts[:1].expand_as(job.step.source.starts))
    for at in range(4):  # the same batch, and weights that hardly move: what differs is the mask
        job.step(at)
    assert len(set(job.step.losses.tolist())) == 4


def test_trials_that_differ_in_p_or_schedule_share_one_capture():
    first = resolve(small_spec(CUDA, {"dropout": {"p": 0.2}}))
    second = resolve(small_spec(CUDA, {"dropout": {"p": 0.6}, "scheduler": "cosine"}))
    assert shape_key(first) == shape_key(second)
    store = make_store(first)
    used = make_job(first, store, 0)
    losses(used)
    again = make_job(second, store, 1, like=used)
    alone = losses(make_job(second, store, 1))
    assert losses(again) == pytest.approx(alone, rel=1e-4)
    assert again.step.work.num_captures == 1
