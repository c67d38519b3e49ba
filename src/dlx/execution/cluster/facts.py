"""What a worker says of itself, and whether trials may run there."""

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

import dlx
from dlx.engine.device import describe_device
from dlx.execution.workers.devices import cuda_names
from dlx.settings.text import counted
from dlx.study.results import RESULTS_VERSION
from dlx.system.cpu_cores import available_cores


class SharedCores(NamedTuple):
    """Cores that workers share: a machine, or a part of one."""

    host: str
    affinity: tuple[int, ...]
    cores: int


@dataclass(frozen=True)
class WorkerFacts:
    """The software and hardware of a worker. `affinity` are the numbers of the cores that it may use. `cores` is how
    many they are, or the CPU quota of its container if that is lower.
    """

    dlx: str
    results_version: int
    torch: str
    processor: str
    gpus: tuple[str, ...]
    host: str
    affinity: tuple[int, ...]
    cores: int


def facts() -> WorkerFacts:
    """Those of this process; runs on a worker."""
    processor = describe_device(torch.device("cpu"))
    affinity = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    return WorkerFacts(
        dlx=dlx.__version__,
        results_version=RESULTS_VERSION,
        torch=torch.__version__,
        processor=processor,
        gpus=cuda_names(),
        host=socket.gethostname(),
        affinity=affinity,
        cores=available_cores(),
    )


def misfit(found: WorkerFacts, expected: WorkerFacts, num_threads: int) -> str | None:
    """Why a worker may not run trials of a command with the expected facts; None if it may.

    `num_threads` is how many tasks it runs at once.
    """
    if (found.dlx, found.results_version) != (expected.dlx, expected.results_version):
        return f"has dlx {found.dlx}, the command {expected.dlx}: install the same"
    if num_threads != 1:
        return (
            f"runs {num_threads} tasks at once, and trials run one at a time in a process: start it with --nthreads 1"
        )
    return None


def unlikeness(found: list[WorkerFacts]) -> list[str]:
    """Remarks on workers whose results can differ in the last bits."""
    return [
        *_unlike("processors", {one.processor for one in found}),
        *_unlike("GPUs", {", ".join(sorted(set(one.gpus))) or "none" for one in found}),
        *_unlike("versions of torch", {one.torch for one in found}),
    ]


def crowding(found: Sequence[WorkerFacts], threads: int) -> dict[SharedCores, str]:
    """A remark for each machine, or part of one, that has fewer cores than its workers' trials have threads."""
    places = Counter(SharedCores(one.host, one.affinity, one.cores) for one in found)
    return {
        place: f"{place.host}: {num_workers} workers with {counted(threads, 'thread')} each share "
        f"{counted(place.cores, 'core')}, so trials slow each other down: start fewer workers there"
        for place, num_workers in sorted(places.items())
        if num_workers > 1 and num_workers * threads > place.cores
    }


def _unlike(what: str, values: set[str]) -> list[str]:
    if len(values) < 2:
        return []
    return [
        f"workers have unlike {what} ({', '.join(sorted(values))}): trials of one seed can differ in the last bits; "
        "each record says where it ran"
    ]
