"""What every contender of the step benchmark trains: random volumes, one cube of one subject a step, as slices."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Workload:
    """The notes' step by default: 64 slices of 64 x 64, two channels, four classes, width 64."""

    width: int = 64
    side: int = 64  # of the cube: as many slices of side x side
    channels: int = 2
    classes: int = 4
    subjects: int = 3
    volume: int = 96  # voxels a side of each subject's volume
    loss: str = "lovasz+focal"
    precision: str = "bf16"
    warm_up: int = 2
    steps: int = 4
    device: str = "cpu"
    threads: int = 2

    def volumes(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, C, D, H, W) float32 and masks (n, D, H, W) uint8, random but the same for all."""
        random = np.random.default_rng(0)
        shape = (self.subjects, self.volume, self.volume, self.volume)
        images = random.standard_normal((self.subjects, self.channels, *shape[1:]), dtype=np.float32)
        return images, random.integers(0, self.classes, shape, dtype=np.uint8)

    def corners(self) -> list[tuple[int, int, int, int]]:
        """Subject and corner of each step's cube."""
        random = np.random.default_rng(1)
        room = self.volume - self.side + 1
        count = self.warm_up + self.steps
        return [(int(random.integers(self.subjects)), *random.integers(0, room, 3).tolist()) for _ in range(count)]


def from_command_line() -> Workload:
    """The workload that the orchestrator wrote on the command line; sets threads before torch is imported."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    workload = Workload(**json.loads(parser.parse_args().workload))
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    return workload


def as_text(workload: Workload) -> str:
    return json.dumps(asdict(workload))


def time_steps(
    workload: Workload, step: Callable[[int], None], synchronize: Callable[[], None], **facts: object
) -> None:
    """Runs and times the steps, and prints what the orchestrator reads; `cold_s` counts from the process's start."""
    times = []
    cold = 0.0
    for index in range(workload.warm_up + workload.steps):
        synchronize()
        started = time.perf_counter()
        step(index)
        synchronize()
        if index == 0:
            cold = time.time() - float(os.environ.get("BENCHMARK_STARTED", time.time()))
        if index >= workload.warm_up:
            times.append(time.perf_counter() - started)
    json.dump({"step_s": times, "cold_s": cold, **facts}, sys.stdout)


def synchronizer(device: str) -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None
