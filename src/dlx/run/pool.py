"""Captured jobs kept from one trial of a worker to the next, so that trials of one shape are captured once."""

from collections import OrderedDict

import torch

from dlx.build import make_job, shape_key
from dlx.data.voxels import VoxelStore
from dlx.engine.capture import Captured
from dlx.engine.fit import Job
from dlx.resolve import Resolved

MOST_KEPT = 2  # a sweep's control and its other variants: dropout at p = 0 is a shape of its own


class JobPool:
    """Jobs by shape, the latest last. Only captured ones are kept: another is made anew in no time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Job] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def make(self, resolved: Resolved, store: VoxelStore, seed: int) -> Job:
        """A trial's job at its start, on the captured step of an earlier one where there is one of its shape.

        That one is the pool's no longer: a trial that fails takes it along.
        """
        like = self._kept.pop(shape_key(resolved), None) if self._kept else None
        if like is None and self._kept and _is_short_of_memory(resolved.compute.device):
            self._kept.clear()
            torch.cuda.empty_cache()
        return make_job(resolved, store, seed, like)

    def keep(self, resolved: Resolved, job: Job) -> None:
        """Takes a job back whose trial has ended, diverged ones too: whatever is in it is set back."""
        if not isinstance(job.step.work, Captured):
            return
        self._kept[shape_key(resolved)] = job
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)


def _is_short_of_memory(device: torch.device) -> bool:
    """Less than half of the device's memory is free: what is kept may be more than what is left."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free < total / 2
