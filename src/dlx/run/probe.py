"""What a trial will cost, measured: a few steps and one evaluated case on a throw-away job; nothing is written."""

import json
import time
from dataclasses import dataclass

import torch

from dlx.build import make_job
from dlx.data.voxels import VoxelStore
from dlx.engine.fit import Progress, begin_epoch
from dlx.resolve import Resolved
from dlx.run.plan import Plan
from dlx.run.stores import place

WARM_UP_STEPS, TIMED_STEPS = 2, 3


@dataclass(frozen=True)
class Cost:
    """Seconds of one step, and of a whole trial's training and evaluation."""

    step_s: float
    train_s: float
    evaluate_s: float

    @property
    def trial_s(self) -> float:
        return self.train_s + self.evaluate_s


@dataclass(frozen=True)
class StudyCost:
    """What is missing of a study will take, in trials, epochs and seconds; `step_s` by variant."""

    num_missing: int
    epochs: int
    seconds: float
    step_s: dict[str, float]


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
                costs[key] = probe(resolved, place(plan.stores[resolved.dataset.fingerprint], resolved.compute.device))
            by_label[label] = costs[key]
    seconds = sum(by_label[planned.trial.label].trial_s for planned in missing) / plan.max_parallel
    return StudyCost(
        num_missing=len(missing),
        epochs=sum(planned.resolved.spec.train.epochs for planned in missing),
        seconds=seconds,
        step_s={label: cost.step_s for label, cost in by_label.items()},
    )


def _kind(resolved: Resolved) -> str:
    """What a trial's cost depends on: its settings but for rates, schedules and the value of p."""
    settings = resolved.settings(0)
    settings["dropout"] = settings["dropout"] | {"p": settings["dropout"]["p"] > 0}
    settings["optimizer"] = settings["optimizer"]["name"]
    return json.dumps({key: value for key, value in settings.items() if key != "scheduler"}, sort_keys=True)


def probe(resolved: Resolved, store: VoxelStore) -> Cost:
    """Times the step (median of a few, after warming up) and the evaluation of one case, and scales both up."""
    torch.set_num_threads(resolved.compute.threads)
    job = make_job(resolved, store, seed=0)
    begin_epoch(job, Progress(), 1)
    times = []
    for index in range(WARM_UP_STEPS + TIMED_STEPS):
        started = time.perf_counter()
        job.step(index % job.step.source.num_steps)
        job.compute.synchronize()
        times.append(time.perf_counter() - started)
    step_s = sorted(times[WARM_UP_STEPS:])[TIMED_STEPS // 2]
    case = job.val_cases[0]
    job.evaluator.measure(job.evaluated_model, [case])
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
    )
