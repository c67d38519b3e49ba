"""What a trial will cost, measured: a few steps and one evaluated case on a throw-away job; nothing is written."""

import time
from dataclasses import dataclass

import torch

from dlx.build import Resolved, make_job
from dlx.data.voxels import VoxelStore
from dlx.engine.fit import Progress, begin_epoch

WARM_UP_STEPS, TIMED_STEPS = 2, 3


@dataclass(frozen=True)
class Cost:
    """Seconds of a step and of evaluating a voxel's worth, and of a whole trial."""

    step_s: float
    train_s: float
    evaluate_s: float

    @property
    def trial_s(self) -> float:
        return self.train_s + self.evaluate_s


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
