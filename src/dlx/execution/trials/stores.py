"""The voxels of a study in memory: on the host, shared with worker processes, and on each device if they fit."""

import os
import shutil
import sys
from collections.abc import Iterable

import torch

from dlx.data.batches.voxels import VoxelStore, store_bytes
from dlx.system.errors import DataError
from dlx.system.memory import host_memory_bytes
from dlx.trial.resolve import Resolved

Stores = dict[str, VoxelStore]  # by the data's fingerprint

SHARED_MEMORY = "/dev/shm"
SPARE_BYTES = 1 << 20  # margin for rounding each tensor up to whole pages, and for other files


def host_stores(resolved: Iterable[Resolved]) -> Stores:
    """A store for each prepared data set, with all cases on which a trial trains or validates.

    Raises DataError if they would not fit the host's memory.
    """
    wanted: dict[str, set[str]] = {}
    datasets = {}
    for one in resolved:
        datasets[one.dataset.fingerprint] = one.dataset
        wanted.setdefault(one.dataset.fingerprint, set()).update((*one.split.train, *one.split.val))
    cases = {fingerprint: dataset.cases_of(wanted[fingerprint]) for fingerprint, dataset in datasets.items()}
    needed, memory = sum(store_bytes(some) for some in cases.values()), host_memory_bytes()
    if memory is not None and needed > memory:
        raise DataError(
            f"the voxels of {sum(map(len, cases.values()))} cases take {needed / 2**30:.3g} GiB of memory, of which "
            f"there are {memory / 2**30:.3g} GiB: use fewer cases, or larger voxels (data.spacing_mm)"
        )
    return {fingerprint: VoxelStore(some) for fingerprint, some in cases.items()}


def put_on_device(store: VoxelStore, device: torch.device) -> VoxelStore:
    """The store on the device; on the host if it needs more than half of the device's free memory."""
    return store if stays_on_host(store, device) is not None else store.to(device)


def lack_of_shared_memory(stores: Stores) -> str | None:
    """Why the voxels cannot be shared with worker processes, and what to do; None if they can.

    On Linux torch keeps shared tensors in /dev/shm, which has 64 MiB by default in a container; elsewhere in files.
    """
    if sys.platform != "linux":
        return None
    size = sum(store.nbytes for store in stores.values())
    try:
        room = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return f"the voxels cannot be put into shared memory: {SHARED_MEMORY} is missing"
    if not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return f"the voxels cannot be put into shared memory: {SHARED_MEMORY} is not writable"
    if size + SPARE_BYTES <= room:
        return None
    return (
        f"the voxels ({-(-size >> 20)} MiB) do not fit into shared memory: {SHARED_MEMORY} has {room >> 20} MiB free; "
        "make it larger (in a container: --shm-size)"
    )


def stays_on_host(store: VoxelStore, device: torch.device) -> str | None:
    """A remark on why a store is not moved to the device; None if it is."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if store.nbytes <= free // 2:
        return None
    return f"the voxels ({store.nbytes >> 20} MiB) stay in host memory: {free >> 20} MiB are free on {device}"
