"""What every contender of the step benchmark trains: random volumes, one cube of one subject a step, as slices.

A contender is a module of `contenders/` with `make_step(workload)`, which gives a step and what is to be known of it;
run as a process it times its steps by `main` and prints one line of JSON.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Step = Callable[[int], Any]
MakeStep = Callable[["Workload"], tuple[Step, dict[str, Any]]]


@dataclass(frozen=True)
class Workload:
    """The notes' step by default: 64 slices of 64 x 64, two channels, four classes, width 64."""

    width: int = 64
    slices: int = 64  # a step's batch: the depth of its cube
    side: int = 64  # of each slice
    channels: int = 2
    classes: int = 4
    subjects: int = 3
    volume: int = 96  # voxels a side of each subject's volume
    loss: str = "lovasz+focal"
    precision: str = "bf16"
    variant: str = ""  # of a contender: compile, own, stock
    warm_up: int = 1
    steps: int = 4  # that are timed, at most; fewer where they take longer than this:
    enough_s: float = 12.0
    block: int = 1  # steps between two waits for the device: on a GPU a wait a step would measure the wait
    device: str = "cpu"
    threads: int = 2

    @property
    def count(self) -> int:
        """All steps, the warm-up too."""
        return self.warm_up + self.steps

    @property
    def is_bf16(self) -> bool:
        return self.precision == "bf16"

    def volumes(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, C, D, H, W) float32 and masks (n, D, H, W) uint8, random but the same for all."""
        random = np.random.default_rng(0)
        shape = (self.subjects, self.volume, self.volume, self.volume)
        images = random.standard_normal((self.subjects, self.channels, *shape[1:]), dtype=np.float32)
        return images, random.integers(0, self.classes, shape, dtype=np.uint8)

    def boxes(self) -> list[tuple[int, tuple[slice, slice, slice]]]:
        """Subject and cube of each step."""
        random = np.random.default_rng(1)
        extent = (self.slices, self.side, self.side)
        boxes = []
        for _ in range(self.count):
            subject = int(random.integers(self.subjects))
            corner = [int(random.integers(0, self.volume - size + 1)) for size in extent]
            d, h, w = (slice(start, start + size) for start, size in zip(corner, extent, strict=True))
            boxes.append((subject, (d, h, w)))
        return boxes


def main(make_step: MakeStep) -> None:
    """Times the workload on the command line and prints what was measured as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    workload = Workload(**json.loads(parser.parse_args().workload))
    import torch

    torch.set_num_threads(workload.threads)
    step, facts = make_step(workload)
    print("\n" + json.dumps({**time_steps(workload, step), "precision": workload.precision, **facts}))
    sys.stdout.flush()


def as_text(workload: Workload) -> str:
    return json.dumps(asdict(workload))


def time_steps(workload: Workload, step: Step) -> dict[str, Any]:
    """Seconds a step (the mean of each block), from the process's start to the first step's end, and peak memory."""
    synchronize = synchronizer(workload.device)
    for index in range(workload.warm_up):
        step(index)
        synchronize()
        if index == 0:
            cold_s = time.time() - float(os.environ.get("BENCHMARK_STARTED", time.time()))
    times = []
    for first in range(workload.warm_up, workload.count, workload.block):
        block = range(first, min(first + workload.block, workload.count))
        synchronize()
        started = time.perf_counter()
        for index in block:
            step(index)
        synchronize()
        times.append((time.perf_counter() - started) / len(block))
        if sum(times) * workload.block >= workload.enough_s:
            break
    measured = {"step_s": statistics.median(times), "times_s": times, "cold_s": cold_s, "peak_mib": peak_mib()}
    if workload.device.startswith("cuda"):
        import torch

        measured["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return measured


def peak_mib() -> float:
    """The largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def synchronizer(device: str) -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None
