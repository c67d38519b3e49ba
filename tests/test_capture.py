"""A captured step, with the CPU's counterpart of a graph: the step itself, run again. CUDA's own is in test_gpu.py."""

import pytest
import torch

from dlx.build import make_job, shape_key
from dlx.engine import checkpoint
from dlx.engine.capture import WARM_UP_STEPS, Captured, Eager
from dlx.engine.fit import Progress, begin_epoch, fit
from dlx.records import EpochRecord
from dlx.run.pool import MOST_KEPT, JobPool
from dlx.run.stores import make_store
from small import small_job, small_resolved

EXACT_LR = 2.0**-7  # the same in float32, in which a captured step reads it


class Rehearsal:
    """Runs what would be captured; counts how often it was warmed up and captured."""

    def __init__(self):
        self.num_warm_up = self.num_captures = 0

    def warm_up(self, run, times):
        for _ in range(times):
            run()
        self.num_warm_up += times

    def capture(self, run, noise):
        self.num_captures += 1
        return run


def capture(job):
    graphs = Rehearsal()
    noise = [job.noise, *([job.step.augmenter.noise] if job.step.augmenter else [])]
    job.step.work = Captured(job.step.run, job.model, job.optimizer, noise, graphs)
    return graphs


def results(job, progress=None):
    return [e.result for e in fit(job, progress or Progress()) if isinstance(e, EpochRecord)]


def weights(job):
    return checkpoint.weights_hash(job.model)


CHANGES = {
    "adamw": {},
    "adam": {"optimizer": {"name": "adam", "weight_decay": 0.01}},
    "sgd": {"optimizer": {"name": "sgd"}},
    "sgd without momentum": {"optimizer": {"name": "sgd:momentum=0"}},
    "dropout": {"dropout": {"p": 0.5}},
    "clipping": {"optimizer": {"clip_grad_norm": 0.1}},
    "two rates": {"optimizer": {"group_lr": {"encoder": 2.0**-9}}},
    "halved each epoch": {"scheduler": "exponential:gamma=0.5"},
    "augmentation": {"augment": {"flip": 0.5, "rotate_deg": 20, "scale": 0.2, "intensity": 0.1, "noise": 0.1}},
    "soft dice": {"evaluate": {"soft_dice": True}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_captured_step_gives_what_the_plain_one_gives(change):
    asked = ({"optimizer": {"lr": EXACT_LR}}, change)
    plain, captured = small_job(*asked), small_job(*asked)
    graphs = capture(captured)
    assert results(captured) == results(plain)
    assert weights(captured) == weights(plain)
    assert graphs.num_captures == 1
    assert graphs.num_warm_up == WARM_UP_STEPS


def test_rates_are_numbers_to_schedulers_and_checkpoints():
    job = small_job()
    capture(job)
    results(job)
    assert all(type(group["lr"]) is float for group in job.optimizer.param_groups)


def test_a_restored_checkpoint_is_captured_anew_and_goes_on_as_before():
    asked = {"optimizer": {"lr": EXACT_LR}, "dropout": {"p": 0.25}}
    whole = small_job(asked)
    expected = results(whole)
    job, progress = small_job(asked), Progress()
    graphs = capture(job)
    for event in fit(job, progress):
        if isinstance(event, EpochRecord):
            break
    saved = checkpoint.snapshot(job.model, None, job.optimizer, job.scheduler, {})
    next(event for event in fit(job, progress) if isinstance(event, EpochRecord))  # trains on, past the checkpoint
    checkpoint.restore(saved, job.model, None, job.optimizer, job.scheduler)
    assert results(job, Progress(epoch=1)) == expected[1:]
    assert weights(job) == weights(whole)
    assert graphs.num_captures == 2


VALUES = [
    ({"dropout": {"p": 0.25}}, {"dropout": {"p": 0.5}}),
    ({"optimizer": {"lr": 2.0**-6}}, {"scheduler": "cosine"}),
    ({"optimizer": {"name": "sgd", "lr": EXACT_LR}}, {"optimizer": {"name": "sgd", "lr": EXACT_LR / 4}}),
    ({"scheduler": "step:step_size=1,gamma=0.5"}, {"optimizer": {"group_lr": {"head": EXACT_LR / 2}}}),
]


@pytest.mark.parametrize(("first", "second"), VALUES)
def test_a_trial_of_the_same_shape_takes_the_step_over_and_nothing_else(first, second):
    lr = {"optimizer": {"lr": EXACT_LR}}
    one, other = small_resolved(lr, first), small_resolved(lr, second)
    assert shape_key(one) == shape_key(other)
    store = make_store(one)
    alone = make_job(other, store, 7)
    expected = results(alone)
    used = make_job(one, store, 3)
    graphs = capture(used)
    results(used)
    again = make_job(other, store, 7, like=used)
    assert results(again) == expected
    assert weights(again) == weights(alone)
    assert graphs.num_captures == 1


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": {"p": 0.5}},
        {"model": "unet2:width=8,levels=2"},
        {"optimizer": {"weight_decay": 0.1}},
        {"batch": {"size": 2}},
        {"loss": "ce"},
        {"train": {"steps_per_epoch": 5}},
    ],
)
def test_what_a_capture_holds_fast_makes_another_shape(change):
    assert shape_key(small_resolved()) != shape_key(small_resolved(change))


def test_a_pool_keeps_captured_jobs_alone_and_hands_each_shape_its_own():
    lr = {"optimizer": {"lr": EXACT_LR}}
    resolved = small_resolved(lr, {"dropout": {"p": 0.3}})
    store, pool = make_store(resolved), JobPool()
    plain = pool.make(resolved, store, 0)
    pool.keep(resolved, plain)
    assert len(pool) == 0
    graphs = capture(plain)
    results(plain)
    pool.keep(resolved, plain)
    other = small_resolved(lr, {"dropout": {"p": 0.6}})
    again = pool.make(other, store, 1)
    assert again.step is plain.step
    assert len(pool) == 0
    assert results(again) == results(make_job(other, store, 1))
    assert graphs.num_captures == 1
    pool.keep(other, again)
    control = pool.make(small_resolved(lr), store, 1)  # p = 0: another shape
    assert control.step is not plain.step
    assert len(pool) == 1


def test_a_pool_keeps_the_latest_shapes():
    pool, jobs = JobPool(), {}
    for width in (2, 3, 4):
        resolved = small_resolved({"model": {"width": width}})
        jobs[width] = pool.make(resolved, make_store(resolved), 0)
        capture(jobs[width])
        pool.keep(resolved, jobs[width])
    assert len(pool) == MOST_KEPT == 2
    for width, is_kept in ((2, False), (3, True), (4, True)):
        resolved = small_resolved({"model": {"width": width}})
        assert (pool.make(resolved, make_store(resolved), 1).step is jobs[width].step) == is_kept


def test_on_a_cpu_the_step_runs_as_it_is():
    job = small_job()
    assert isinstance(job.step.work, Eager)
    begin_epoch(job, Progress(), 1)
    job.step(0)
    assert torch.isfinite(job.step.losses[0])
