"""A captured step, with the CPU's counterpart of a graph: the step itself, run again. CUDA's own is in test_gpu.py."""

import gc
import re
import warnings
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch

from dlx.cli.output.display import follow
from dlx.engine import checkpoint
from dlx.engine.capture import WARM_UP_STEPS, Captured, CudaGraphs, Eager
from dlx.engine.fit import TrialProgress, begin_epoch, fit
from dlx.engine.waits import HostWaitError
from dlx.execution.planning.plan import make_plan
from dlx.execution.runner import run_plan
from dlx.execution.trials.process_cache import MAX_KEPT, ProcessCache
from dlx.execution.trials.trial import CaptureFailed, TrialEnded
from dlx.records.schema import EpochRecord
from dlx.settings import registry
from dlx.study.axes import Variant
from dlx.study.study import Study
from dlx.trial.build import make_job, shape_key
from small import make_store, small_job, small_resolved, small_spec
from step_settings import STEP_SETTINGS

EXACT_LR = 2.0**-7  # the same in float32, in which a captured step reads it
CHANGES = {name: change for name, change in STEP_SETTINGS.items() if not name.startswith("model ")}
CHANGES |= {"halved each epoch": {"scheduler": "exponential:gamma=0.5"}}


class Rehearsal:
    """Runs what would be captured; counts how often it was warmed up and captured."""

    def __init__(self):
        self.num_warm_up = self.num_captures = self.num_released = 0

    def warm_up(self, run, times):
        for _ in range(times):
            run()
        self.num_warm_up += times

    def capture(self, run, noise):
        self.num_captures += 1
        return run

    def release(self, noise):
        self.num_released += len(noise)


def capture(job, graphs=None, **how):
    graphs = graphs or Rehearsal()
    noise = [job.noise, *([job.step.augmenter.noise] if job.step.augmenter else [])]
    job.step.work = Captured(job.model, job.optimizer, noise, graphs, **how)
    return graphs


def results(job, progress=None):
    return [e.result for e in fit(job, progress or TrialProgress()) if isinstance(e, EpochRecord)]


def weights(job):
    return checkpoint.weights_hash(job.model)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_captured_step_gives_what_the_plain_one_gives(change):
    short = {"train": {"epochs": 2, "steps_per_epoch": 3}, "evaluate": {"every": 2, "train_subset": 0}}
    asked = ({"optimizer": {"lr": EXACT_LR}}, short, change)
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


def test_a_restored_checkpoint_is_captured_again_and_continues_as_before():
    asked = {"optimizer": {"lr": EXACT_LR}, "dropout": {"p": 0.25}}
    whole = small_job(asked)
    expected = results(whole)
    job, progress = small_job(asked), TrialProgress()
    graphs = capture(job)
    for event in fit(job, progress):
        if isinstance(event, EpochRecord):
            break
    saved = checkpoint.snapshot(job, {})
    next(event for event in fit(job, progress) if isinstance(event, EpochRecord))  # trains on, past the checkpoint
    checkpoint.restore(saved, job)
    assert results(job, TrialProgress(epoch=1)) == expected[1:]
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


def test_a_diverged_trial_leaves_nothing_in_the_average_of_the_next():
    asked = ({"optimizer": {"lr": EXACT_LR}}, {"train": {"ema_decay": 0.5}})
    resolved = small_resolved(*asked)
    store = make_store(resolved)
    alone = make_job(resolved, store, 7)
    expected = results(alone)
    used = make_job(resolved, store, 3)
    capture(used)
    results(used)
    with torch.no_grad():
        for parameter in (*used.model.parameters(), *used.ema.parameters()):
            parameter.fill_(torch.nan)
    again = make_job(resolved, store, 7, like=used)
    assert results(again) == expected
    assert checkpoint.weights_hash(again.evaluated_model) == checkpoint.weights_hash(alone.evaluated_model)


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
    store, pool = make_store(resolved), ProcessCache()
    plain = pool.make_job(resolved, store, 0)
    pool.keep(resolved, plain)
    assert len(pool.jobs) == 0
    graphs = capture(plain)
    results(plain)
    pool.keep(resolved, plain)
    other = small_resolved(lr, {"dropout": {"p": 0.6}})
    again = pool.make_job(other, store, 1)
    assert again.step is plain.step
    assert len(pool.jobs) == 0
    assert results(again) == results(make_job(other, store, 1))
    assert graphs.num_captures == 1
    pool.keep(other, again)
    control = pool.make_job(small_resolved(lr), store, 1)  # p = 0: another shape
    assert control.step is not plain.step
    assert len(pool.jobs) == 1


def test_a_pool_keeps_the_latest_shapes():
    pool, jobs = ProcessCache(), {}
    for width in (2, 3, 4):
        resolved = small_resolved({"model": {"width": width}})
        jobs[width] = pool.make_job(resolved, make_store(resolved), 0)
        capture(jobs[width])
        pool.keep(resolved, jobs[width])
    assert len(pool.jobs) == MAX_KEPT == 2
    for width, is_kept in ((2, False), (3, True), (4, True)):
        resolved = small_resolved({"model": {"width": width}})
        assert (pool.make_job(resolved, make_store(resolved), 1).step is jobs[width].step) == is_kept


def test_on_a_cpu_the_step_runs_as_it_is():
    job = small_job()
    assert isinstance(job.step.work, Eager)
    begin_epoch(job, TrialProgress(), 1)
    job.step(0)
    assert torch.isfinite(job.step.losses[0])


class Waiting(torch.nn.Module):
    """A loss of a user's that reads a number of the device's, which no graph can hold."""

    def forward(self, logits, mask):
        loss = torch.nn.functional.cross_entropy(logits, mask)
        return loss / max(loss.item(), 1.0)


def waiting_job(graphs=None, **how):
    job = small_job({"optimizer": {"lr": 0.01}, "dropout": {"p": 0.3}, "augment": {"noise": 0.1}})
    job.step.loss = Waiting()
    if graphs is not None:
        capture(job, graphs, **how)
    return job


class FailingGraphs(Rehearsal):
    """Warms up without being refused anything, and cannot capture: as with a fault that only a capture shows."""

    def capture(self, run, noise):
        run()  # what a capture leaves behind is taken back
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("graphs", "make", "words"),
    [
        (Rehearsal(), waiting_job, r"aten\._local_scalar_dense.* \(in test_capture.py, line \d+\)"),
        (FailingGraphs(), lambda g: (job := small_job(), capture(job, g))[0], "operation not permitted when stream"),
    ],
    ids=["waits for the host", "fails in the capture"],
)
def test_a_step_that_cannot_be_captured_runs_as_it_is_and_says_why(graphs, make, words):
    job = make(graphs)
    plain = waiting_job() if make is waiting_job else small_job()
    assert results(job) == results(plain)
    assert weights(job) == weights(plain)
    assert re.search(words, job.step.work.obstacle)
    assert graphs.num_captures == 0
    assert graphs.num_warm_up <= WARM_UP_STEPS  # it is tried once


def test_generators_are_freed_from_a_capture_that_failed():
    graphs = FailingGraphs()
    job = small_job({"augment": {"noise": 0.1}})
    capture(job, graphs)
    results(job)
    assert graphs.num_released == 2  # dropout's and the augmentation's


def test_a_capture_that_is_required_and_fails_is_an_error():
    job = waiting_job(Rehearsal(), is_required=True)
    with pytest.raises(HostWaitError, match="_local_scalar_dense"):
        results(job)


def test_an_error_of_the_network_itself_is_raised_and_not_taken_for_a_capture_s():
    job = small_job()
    capture(job)
    job.step.loss = lambda logits, mask: logits[..., 0] @ mask
    with pytest.raises(RuntimeError):
        results(job)


def test_a_graph_without_operations_is_an_error(monkeypatch):
    @contextmanager
    def nothing_captured(*_, **__):
        yield
        warnings.warn("The CUDA Graph is empty. This usually means ...", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", nothing_captured)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as outside the tests
        with pytest.raises(UserWarning, match="The CUDA Graph is empty"):
            CudaGraphs().capture(lambda: None, [])


def test_what_a_failed_warm_up_started_ends_before_anything_else_runs(monkeypatch):
    waits = []

    class Stream:
        def wait_stream(self, other):
            waits.append((self, other))

    current, beside = Stream(), Stream()
    monkeypatch.setattr(torch.cuda, "Stream", lambda: beside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    with pytest.raises(ZeroDivisionError):
        CudaGraphs().warm_up(lambda: 1 / 0, 1)
    assert waits == [(beside, current), (current, beside)]


def refs_to(job):
    """The network, its weights, the optimizer's moments and the voxels, as far as the job alone holds them."""
    tensors = [*job.model.parameters(), *job.model.buffers(), job.evaluator.store.images]
    tensors += [entry for state in job.optimizer.state.values() for entry in state.values()]
    tensors += [] if job.ema is None else list(job.ema.parameters())
    return [weakref.ref(thing) for thing in (job, job.step, job.model, job.evaluator.store, *tensors)]


class Recorded(Rehearsal):
    """Replays nothing, as a graph holds no Python object."""

    def capture(self, run, noise):
        run()
        return lambda: None


@pytest.mark.parametrize("scheduler", sorted(registry.PARTS["scheduler"]))
@pytest.mark.parametrize("change", [{}, {"train": {"ema_decay": 0.9}}, {"evaluate": {"probes": True}}], ids=str)
@pytest.mark.parametrize("is_captured", [False, True])
def test_a_dropped_job_is_freed_without_the_cycle_collector(scheduler, change, is_captured):
    name = {"step": "step:step_size=1", "multistep": "multistep:milestones=[1]"}.get(scheduler, scheduler)
    job = small_job({"train": {"epochs": 1, "steps_per_epoch": 2}, "scheduler": name, "dropout": {"p": 0.3}}, change)
    if is_captured:
        capture(job, Recorded())
    gc.disable()
    try:
        list(fit(job, TrialProgress()))
        known = refs_to(job)
        del job
        left = [ref() for ref in known if ref() is not None]
    finally:
        gc.enable()
    assert not left


def test_trials_of_one_process_share_voxels_and_one_capture(tmp_path, monkeypatch):
    graphs = Rehearsal()
    monkeypatch.setattr("dlx.engine.capture.CudaGraphs", lambda: graphs)
    study = Study(name="s", variants=(Variant(label="unet2", spec=small_spec()),), seeds=(0, 1, 2))
    plan = make_plan(study, tmp_path, cache_dir=None, keep_cache=False)
    trials = [
        replace(p, resolved=replace(p.resolved, compute=replace(p.resolved.compute, captures=True)))
        for p in plan.trials
    ]
    events = [event for _, event in run_plan(replace(plan, trials=tuple(trials)))]
    ended = [event.record for event in events if isinstance(event, TrialEnded)]
    assert [record.status for record in ended] == ["done"] * 3
    assert all(record.run.is_captured for record in ended)
    assert graphs.num_captures == 1


def test_a_trial_that_cannot_be_captured_says_so_once_and_in_its_record(tmp_path, monkeypatch):
    graphs = FailingGraphs()
    monkeypatch.setattr("dlx.engine.capture.CudaGraphs", lambda: graphs)
    study = Study(name="s", variants=(Variant(label="unet2", spec=small_spec()),), seeds=(0,))
    plan = make_plan(study, tmp_path, cache_dir=None, keep_cache=False)
    compute = replace(plan.first.compute, captures=True)
    trials = [replace(p, resolved=replace(p.resolved, compute=compute)) for p in plan.trials]
    events = [event for _, event in run_plan(replace(plan, trials=tuple(trials)))]
    (failed,) = [event for event in events if isinstance(event, CaptureFailed)]
    (ended,) = [event.record for event in events if isinstance(event, TrialEnded)]
    assert "not permitted" in failed.obstacle
    assert (ended.status, ended.run.is_captured, ended.run.capture_obstacle) == ("done", False, failed.obstacle)


def test_one_note_for_all_trials_says_why_steps_are_not_captured():
    shown = []

    class Display:
        class console:  # noqa: N801
            print = staticmethod(lambda line, **_: shown.append(line))

        def show(self, index, event):
            raise AssertionError(event)

    failed = [CaptureFailed("aten.nonzero.default: the host waits for the result (in network.py, line 12)")] * 3
    follow(enumerate(failed), Display())
    (line,) = shown
    assert "aten.nonzero" in line
    assert "network.py, line 12" in line


def test_voxels_that_do_not_fit_beside_kept_ones_take_their_place(monkeypatch):
    resolved = small_resolved()
    stores = {resolved.dataset.fingerprint: make_store(resolved)}
    cache, pool_job = ProcessCache(), small_job()
    capture(pool_job)
    cache.keep(resolved, pool_job)
    cache.store(resolved, stores)
    on_gpu = replace(resolved, compute=replace(resolved.compute, device=torch.device("cuda", 0)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 2**30))
    assert cache.store(on_gpu, stores).device == torch.device("cpu")  # nothing fits there: they stay on the host
    assert [device for _, device in cache.placed] == ["cuda:0"]
    assert len(cache.jobs) == 0
