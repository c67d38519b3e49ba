"""What a trial will cost, measured: a few steps and one evaluated case on a throw-away job; nothing is written."""

import json
import time
from dataclasses import dataclass

import torch

from dlx.data.voxels import VoxelStore
from dlx.engine.fit import Progress, begin_epoch
from dlx.run.plan import Plan
from dlx.run.stores import put_on_device
from dlx.system.memory import peak_bytes, reset_peak
from dlx.trial.build import make_job
from dlx.trial.resolve import Resolved

WARM_UP_STEPS, TIMED_STEPS = 2, 3


@dataclass(frozen=True)
class Memory:
    """The most bytes that a trial holds while it trains and while it evaluates: of a GPU's memory what torch allocated,
    on a CPU all that the process has (the voxels and the libraries, too).
    """

    training: int
    evaluation: int


@dataclass(frozen=True)
class Cost:
    """Seconds of one step, and of a whole trial's training and evaluation; the most memory that each took."""

    step_s: float
    train_s: float
    evaluate_s: float
    memory: Memory | None

    @property
    def trial_s(self) -> float:
        return self.train_s + self.evaluate_s


@dataclass(frozen=True)
class StudyCost:
    """What is missing of a study will take, in trials, epochs and seconds; `step_s` and `memory` by variant (memory
    where it can be measured).
    """

    num_missing: int
    epochs: int
    seconds: float
    step_s: dict[str, float]
    memory: dict[str, Memory]


def cost_of(plan: Plan) -> StudyCost:
    """Probes one trial of each kind (variants that differ in what costs no time are probed once) and adds them up.

    Trials that run at once are taken to run as fast as alone.
    """
    costs: dict[str, Cost] = {}
    by_label: dict[str, Cost] = {}
    missing = plan.missing()
    for planned in (*plan.trials[: len(plan.study.variants)], *missing):
        label, resolved = planned.trial.label, planned.resolved
        if label not in by_label:
            key = _kind(resolved)
            if key not in costs:
                costs[key] = measure_cost(
                    resolved, put_on_device(plan.stores[resolved.dataset.fingerprint], resolved.compute.device)
                )
            by_label[label] = costs[key]
    seconds = sum(by_label[planned.trial.label].trial_s for planned in missing) / plan.max_parallel
    return StudyCost(
        num_missing=len(missing),
        epochs=sum(planned.resolved.spec.train.epochs for planned in missing),
        seconds=seconds,
        step_s={label: cost.step_s for label, cost in by_label.items()},
        memory={label: cost.memory for label, cost in by_label.items() if cost.memory is not None},
    )


def _kind(resolved: Resolved) -> str:
    """What a trial's cost depends on: its settings but for rates, schedules and the value of p."""
    settings = resolved.settings(0)
    settings["dropout"] = settings["dropout"] | {"p": settings["dropout"]["p"] > 0}
    settings["optimizer"] = settings["optimizer"]["name"]
    return json.dumps({key: value for key, value in settings.items() if key != "scheduler"}, sort_keys=True)


def measure_cost(resolved: Resolved, store: VoxelStore) -> Cost:
    """Times the step (median of a few, after warming up) and the evaluation of one case, and scales both up. Memory is
    that of these steps, and of evaluating the largest case.
    """
    torch.set_num_threads(resolved.compute.threads)
    device = resolved.compute.device
    is_measured = _reset_peak(device)
    job = make_job(resolved, store, seed=0)
    begin_epoch(job, Progress(), 1)
    times = []
    for index in range(WARM_UP_STEPS + TIMED_STEPS):
        started = time.perf_counter()
        job.step(index % job.step.source.num_steps)
        job.compute.synchronize()
        times.append(time.perf_counter() - started)
    step_s = sorted(times[WARM_UP_STEPS:])[TIMED_STEPS // 2]
    training = _peak(device)
    _reset_peak(device)
    largest = max((*job.val_cases, *job.train_cases), key=store.voxels)
    job.evaluator.measure(job.evaluated_model, [largest])
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
        train_s=step_s * spec.train.epochs * spec.train.steps_per_epoch,
        evaluate_s=voxel_s * (validations * each + final),
        memory=Memory(training, evaluation) if is_measured and training and evaluation else None,
    )


def _reset_peak(device: torch.device) -> bool:
    """Resets the peak of memory in use; False where it is not measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    return device.type == "cpu" and reset_peak()


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()
