"""What a process keeps from one trial to the next: captured jobs, so that trials of one shape are captured once, and
the voxels on its devices.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import torch

from dlx.data.voxels import VoxelStore
from dlx.engine.capture import Captured
from dlx.engine.fit import Job
from dlx.run.stores import Stores, put_on_device, stays_on_host
from dlx.trial.build import make_job, shape_key
from dlx.trial.resolve import Resolved

MAX_KEPT = 2  # a sweep's control and its other variants: dropout at p = 0 is a shape of its own


class JobPool:
    """Jobs by shape, the latest last. Only captured ones are kept: another is made anew in no time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Job] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def make(self, resolved: Resolved, store: VoxelStore, seed: int) -> Job:
        """A trial's job at its start, on the captured step of an earlier one where there is one of its shape.

        The job leaves the pool; if the trial fails, the job is discarded.
        """
        like = self._kept.pop(shape_key(resolved), None) if self._kept else None
        if like is None and self._kept and _is_short_of_memory(resolved.compute.device):
            self._kept.clear()
            torch.cuda.empty_cache()
        return make_job(resolved, store, seed, like)

    def clear(self) -> None:
        """Discards all jobs."""
        self._kept.clear()

    def keep(self, resolved: Resolved, job: Job) -> None:
        """Takes a job back whose trial has ended, diverged ones too: whatever is in it is set back."""
        if not isinstance(job.step.work, Captured):
            return
        self._kept[shape_key(resolved)] = job
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


@dataclass
class ProcessCache:
    """The jobs and the voxels that a process keeps."""

    jobs: JobPool = field(default_factory=JobPool)
    placed: dict[tuple[str, str], VoxelStore] = field(default_factory=dict)

    def store(self, resolved: Resolved, stores: Stores) -> VoxelStore:
        """A trial's voxels on its device, moved there once; if they do not fit, those of other trials are discarded."""
        device, voxels = resolved.compute.device, stores[resolved.dataset.fingerprint]
        key = (resolved.dataset.fingerprint, str(device))
        if key not in self.placed:
            if self.placed and stays_on_host(voxels, device) is not None:
                self.placed.clear()
                self.jobs.clear()  # they hold voxels too
                torch.cuda.empty_cache()
            self.placed[key] = put_on_device(voxels, device)
        return self.placed[key]


def _is_short_of_memory(device: torch.device) -> bool:
    """Less than half of the device's memory is free: what is kept may be more than what is left."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free < total / 2
