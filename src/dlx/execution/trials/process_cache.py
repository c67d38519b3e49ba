"""Objects that a process reuses in later trials: captured jobs, so that each shape is captured once, and the voxels on
its devices.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import torch

from dlx.data.batches.voxels import VoxelStore
from dlx.engine.capture import Captured
from dlx.engine.fit import Job
from dlx.engine.group import Group
from dlx.execution.trials.stores import Stores, put_on_device, stays_on_host
from dlx.trial.build import make_job, shape_key
from dlx.trial.resolve import Resolved

MAX_KEPT = 2  # a dropout sweep has two shapes: p = 0 (the control) and p > 0


@dataclass
class ProcessCache:
    """The captured jobs, by shape, the latest last, and the voxels that a process reuses."""

    group: Group | None = None  # the ranks that train the trials of this process with it
    jobs: OrderedDict[str, Job] = field(default_factory=OrderedDict)
    placed: dict[tuple[str, str], VoxelStore] = field(default_factory=dict)

    def make_job(self, resolved: Resolved, store: VoxelStore, seed: int) -> Job:
        """A new job for a trial, which reuses the captured step of an earlier job of the same shape if there is one.

        That job leaves the cache: if the trial fails, its state is unknown.
        """
        like = self.jobs.pop(shape_key(resolved), None) if self.jobs else None
        if like is None and self.jobs and _is_short_of_memory(resolved.compute.device):
            self.jobs.clear()
            torch.cuda.empty_cache()
        return make_job(resolved, store, seed, like, self.group)

    def keep(self, resolved: Resolved, job: Job) -> None:
        """Keeps the job of a trial that has ended or diverged, if it is captured: others are cheap to make."""
        if not isinstance(job.step.work, Captured):
            return
        self.jobs[shape_key(resolved)] = job
        while len(self.jobs) > MAX_KEPT:
            self.jobs.popitem(last=False)

    def store(self, resolved: Resolved, stores: Stores) -> VoxelStore:
        """A trial's voxels on its device, moved there once; if they do not fit, those of other trials are discarded."""
        device, voxels = resolved.compute.device, stores[resolved.dataset.fingerprint]
        key = (resolved.dataset.fingerprint, str(device))
        if key not in self.placed:
            if self.placed and stays_on_host(voxels, device) is not None:
                self.placed.clear()
                self.jobs.clear()  # jobs refer to voxels
                torch.cuda.empty_cache()
            self.placed[key] = put_on_device(voxels, device)
        return self.placed[key]


def _is_short_of_memory(device: torch.device) -> bool:
    """True if less than half of the device's memory is free."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free < total / 2
