"""What only a CUDA device can show; skipped where there is none (`make test-gpu` runs these alone)."""

from contextlib import contextmanager

import pytest
import torch

from dlx.data.batches.voxels import VoxelStore
from dlx.engine import checkpoint
from dlx.engine.capture import Captured, Eager
from dlx.engine.fit import TrialProgress, begin_epoch, fit
from dlx.records.schema import EpochRecord
from dlx.trial.build import make_job, shape_key
from small import make_store, small_resolved
from step_settings import STEP_SETTINGS

pytestmark = pytest.mark.gpu
CUDA = {"compute": {"device": "cuda", "precision": "float32"}}


def cuda_job(*changes, on_host=False, seed=0):
    resolved = small_resolved(CUDA, *changes)
    if on_host:
        wanted = {*resolved.split.train, *resolved.split.val}
        store = VoxelStore([case for case in resolved.dataset.cases if case.id in wanted])
    else:
        store = make_store(resolved)
    return make_job(resolved, store, seed)


def losses(job, epochs=1):
    results = [event.result for event in fit(job, TrialProgress()) if isinstance(event, EpochRecord)]
    return [result.loss for result in results]


def test_weights_and_batches_are_the_cpus():
    cuda = cuda_job()
    resolved = small_resolved()
    cpu = make_job(resolved, make_store(resolved), 0)
    ours, theirs = TrialProgress(), TrialProgress()
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


@contextmanager
def waits_refused():
    """Within, whatever makes the host wait for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps_of(job, num_steps=4):
    """The losses of one epoch's first steps, none of which but the first (that is captured) may wait."""
    begin_epoch(job, TrialProgress(), 1)
    job.step(0)
    job.step(1)  # captured here where the first step is probed
    with waits_refused():
        for step in range(2, num_steps):
            job.step(step)
    return job.step.losses[:num_steps].tolist()


SHORT = {"optimizer": {"lr": 2.0**-7}, "train": {"steps_per_epoch": 4}}  # a rate that is the same in float32
every_setting = pytest.mark.parametrize("change", STEP_SETTINGS.values(), ids=STEP_SETTINGS)


@every_setting
def test_a_captured_step_gives_what_the_plain_one_gives_and_neither_waits(change):
    captured, plain = cuda_job(SHORT, change), cuda_job(SHORT, change)
    plain.step.work = Eager()
    assert isinstance(captured.step.work, Captured)
    assert steps_of(captured) == pytest.approx(steps_of(plain), rel=1e-4)
    assert captured.step.work.obstacle is None
    assert captured.step.work.num_captures == 1


@every_setting
def test_two_equal_runs_are_equal_bit_for_bit(change):
    first, second = cuda_job(SHORT, change), cuda_job(SHORT, change)
    assert steps_of(first) == steps_of(second)
    assert checkpoint.weights_hash(first.evaluated_model) == checkpoint.weights_hash(second.evaluated_model)


class Waiting(torch.nn.Module):
    """A loss of a user's that reads a number of the device's."""

    def forward(self, logits, mask):
        loss = torch.nn.functional.cross_entropy(logits, mask)
        return loss / max(loss.item(), 1.0)


class FailsInCapture(torch.nn.Module):
    """A loss that waits in a way that only a capture refuses."""

    def forward(self, logits, mask):
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return torch.nn.functional.cross_entropy(logits, mask)


@pytest.mark.parametrize("loss", [Waiting(), FailsInCapture()], ids=["waits", "fails in the capture"])
def test_a_step_that_cannot_be_captured_runs_as_it_is_with_all_its_generators(loss):
    change = {"dropout": {"p": 0.3}, "augment": {"noise": 0.1}}
    tried, plain = cuda_job(SHORT, change), cuda_job(SHORT, change)
    tried.step.loss = plain.step.loss = loss
    plain.step.work = Eager()
    assert losses(tried) == losses(plain)
    assert tried.step.work.obstacle
    torch.rand(3, device="cuda")  # torch's default generator draws, too
    assert losses(cuda_job(SHORT, change))  # and another trial is captured


def test_the_second_gpu_trains_as_the_first():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    first, second = (cuda_job(SHORT, {"compute": {"device": f"cuda:{index}"}}) for index in (0, 1))
    other = steps_of(second)
    assert second.step.work.num_captures == 1
    torch.cuda.set_device(0)
    assert other == pytest.approx(steps_of(first), rel=1e-4)


def test_a_snapshot_is_page_locked_and_waits_once():
    job, buffers = cuda_job(SHORT), checkpoint.HostBuffers()
    steps_of(job)
    saved = checkpoint.snapshot(job, {}, buffers)
    assert all(tensor.is_pinned() for name, tensor in saved.tensors.items() if name.startswith("model."))
    assert all(torch.equal(saved.tensors[f"model.{n}"], t.cpu()) for n, t in job.model.state_dict().items())


def test_dropout_masks_change_from_replay_to_replay():
    job = cuda_job({"dropout": {"p": 0.5}, "optimizer": {"lr": 1e-12}, "train": {"steps_per_epoch": 4}})
    begin_epoch(job, TrialProgress(), 1)
    for at in range(4):
        job.step(at)
    job.step.source.cases.copy_(job.step.source.cases[:1].expand_as(job.step.source.cases))
    job.step.source.starts.copy_(job.step.source.starts[:1].expand_as(job.step.source.starts))
    for at in range(4):  # the same batch, and weights that hardly move: what differs is the mask
        job.step(at)
    assert len(set(job.step.losses.tolist())) == 4


def test_trials_that_differ_in_p_or_schedule_share_one_capture():
    first = small_resolved(CUDA, {"dropout": {"p": 0.2}})
    second = small_resolved(CUDA, {"dropout": {"p": 0.6}, "scheduler": "cosine"})
    assert shape_key(first) == shape_key(second)
    store = make_store(first)
    used = make_job(first, store, 0)
    losses(used)
    again = make_job(second, store, 1, like=used)
    alone = losses(make_job(second, store, 1))
    assert losses(again) == pytest.approx(alone, rel=1e-4)
    assert again.step.work.num_captures == 1
