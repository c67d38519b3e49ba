"""What a worker says of itself, and whether trials may run there."""

from dataclasses import dataclass

import torch

import dlx
from dlx.engine.device import describe_device
from dlx.execution.workers.devices import cuda_names
from dlx.study.results import RESULTS_VERSION


@dataclass(frozen=True)
class WorkerFacts:
    """The software and hardware of a worker."""

    dlx: str
    results_version: int
    torch: str
    processor: str
    gpus: tuple[str, ...]


def facts() -> WorkerFacts:
    """Those of this process; runs on a worker."""
    processor = describe_device(torch.device("cpu"))
    return WorkerFacts(dlx.__version__, RESULTS_VERSION, torch.__version__, processor, cuda_names())


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


def _unlike(what: str, values: set[str]) -> list[str]:
    if len(values) < 2:
        return []
    return [
        f"workers have unlike {what} ({', '.join(sorted(values))}): trials of one seed can differ in the last bits; "
        "each record says where it ran"
    ]
