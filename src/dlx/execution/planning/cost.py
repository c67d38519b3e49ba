"""Estimates time and memory of trials from a few steps and one evaluated case of a temporary job. Writes no file."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dlx.data.batches.voxels import VoxelStore
from dlx.engine.fit import TrialProgress, begin_epoch
from dlx.execution.planning.plan import Plan
from dlx.execution.trials.stores import put_on_device
from dlx.execution.trials.trial import Task
from dlx.system.memory import peak_bytes, reset_peak
from dlx.trial.build import make_job
from dlx.trial.resolve import Resolved

# The first steps choose kernels and fill caches; the median of three disregards one slow step.
WARM_UP_STEPS, TIMED_STEPS = 2, 3


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a trial in training and in evaluation: on a GPU the memory that torch allocated, on a CPU that of
    the whole process, including voxels and libraries.
    """

    training: int
    evaluation: int


@dataclass(frozen=True)
class Cost:
    """Seconds of one step and of a whole trial, evaluation included; peak memory if it can be measured."""

    step_s: float
    trial_s: float
    memory: Memory | None


@dataclass(frozen=True)
class StudyCost:
    """The cost of a study's missing trials: their number, epochs and seconds; `step_s` and `memory` by variant (memory
    if it can be measured).
    """

    num_missing: int
    epochs: int
    seconds: float
    step_s: dict[str, float]
    memory: dict[str, Memory]


def cost_of(plan: Plan) -> StudyCost:
    """Measures one trial of each kind and sums the estimates; variants of equal cost are measured once.

    The estimate assumes that trials that run at once are as fast as one alone.
    """
    costs: dict[str, Cost] = {}
    by_label: dict[str, Cost] = {}
    missing = plan.missing()
    for task in (*plan.trials[: len(plan.study.variants)], *missing):
        label, resolved = task.trial.label, task.resolved
        if label not in by_label:
            key = _kind(resolved)
            if key not in costs:
                costs[key] = measure_cost(
                    resolved, put_on_device(plan.stores[resolved.dataset.fingerprint], resolved.compute.device)
                )
            by_label[label] = costs[key]
    left = [_epochs_left(task, plan) for task in missing]
    shares = [epochs / task.resolved.spec.train.epochs for epochs, task in zip(left, missing, strict=True)]
    each = [by_label[task.trial.label].trial_s * share for task, share in zip(missing, shares, strict=True)]
    return StudyCost(
        num_missing=len(missing),
        epochs=sum(left),
        seconds=sum(each) / plan.max_parallel,
        step_s={label: cost.step_s for label, cost in by_label.items()},
        memory={label: cost.memory for label, cost in by_label.items() if cost.memory is not None},
    )


def _epochs_left(task: Task, plan: Plan) -> int:
    """The epochs of a trial after those that an earlier run has trained."""
    return task.resolved.spec.train.epochs - plan.trained_epochs


def _kind(resolved: Resolved) -> str:
    """The settings on which a trial's cost depends: all except schedules, optimizer arguments and the value of p."""
    settings = resolved.settings(0)
    settings["dropout"] = settings["dropout"] | {"p": settings["dropout"]["p"] > 0}
    settings["optimizer"] = settings["optimizer"]["name"]
    return json.dumps({key: value for key, value in settings.items() if key != "scheduler"}, sort_keys=True)


def measure_cost(resolved: Resolved, store: VoxelStore) -> Cost:
    """Times a step (median of a few, after warming up) and the evaluation of one case, and scales both to a trial.

    Memory is the peak of these steps, and of evaluating `largest_cases`.
    """
    torch.set_num_threads(resolved.compute.threads)
    device = resolved.compute.device
    is_measured = _reset_peak(device)
    job = make_job(resolved, store, seed=0)
    begin_epoch(job, TrialProgress(), 1)
    times = []
    for index in range(WARM_UP_STEPS + TIMED_STEPS):
        started = time.perf_counter()
        job.step(index % job.step.source.num_steps)
        job.compute.synchronize()
        times.append(time.perf_counter() - started)
    step_s = sorted(times[WARM_UP_STEPS:])[TIMED_STEPS // 2]
    training = _peak(device)
    _reset_peak(device)
    job.evaluator.measure(job.evaluated_model, largest_cases(store, (*job.val_cases, *job.train_cases)))
    evaluation = _peak(device)
    case = job.val_cases[0]
    started = time.perf_counter()
    job.evaluator.measure(job.evaluated_model, [case])
    voxel_s = (time.perf_counter() - started) / store.voxels(case)
    spec = resolved.spec
    validations = -(-spec.train.epochs // (spec.evaluate.every or 1))
    each = sum(store.voxels(case) for case in (*job.val_cases, *job.subset_cases))
    final = sum(store.voxels(case) for case in (*job.val_cases, *job.train_cases))
    return Cost(
        step_s=step_s,
        trial_s=step_s * spec.train.epochs * spec.train.steps_per_epoch + voxel_s * (validations * each + final),
        memory=Memory(training, evaluation) if is_measured and training and evaluation else None,
    )


def largest_cases(store: VoxelStore, cases: Sequence[int]) -> list[int]:
    """The case with most voxels for the network and the one that is measured on most, which may be the same.

    They differ where cases were resampled: one with fine voxels is small for the network, but its prediction is large.
    """
    return sorted({max(cases, key=store.voxels), max(cases, key=store.measured_voxels)})


def _reset_peak(device: torch.device) -> bool:
    """Resets the peak memory; False if it cannot be measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    return device.type == "cpu" and reset_peak()


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()
