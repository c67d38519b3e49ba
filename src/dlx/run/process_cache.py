"""Objects that a process reuses in later trials: captured jobs, so that each shape is captured once, and the voxels on
its devices.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import torch

from dlx.data.batches.voxels import VoxelStore
from dlx.engine.capture import Captured
from dlx.engine.fit import Job
from dlx.run.stores import Stores, put_on_device, stays_on_host
from dlx.trial.build import make_job, shape_key
from dlx.trial.resolve import Resolved

MAX_KEPT = 2  # a dropout sweep has two shapes: p = 0 (the control) and p > 0


class JobPool:
    """Jobs by shape, the latest last. Only captured jobs are kept; others are cheap to make."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Job] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def make(self, resolved: Resolved, store: VoxelStore, seed: int) -> Job:
        """A new job for a trial, which reuses the captured step of an earlier job of the same shape if there is one.

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
        """Keeps the job of a trial that has ended or diverged; `make` resets its state."""
        if not isinstance(job.step.work, Captured):
            return
        self._kept[shape_key(resolved)] = job
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


@dataclass
class ProcessCache:
    """The jobs and voxels that a process reuses."""

    jobs: JobPool = field(default_factory=JobPool)
    placed: dict[tuple[str, str], VoxelStore] = field(default_factory=dict)

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
