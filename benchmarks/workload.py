"""What every contender of the step benchmark trains: random volumes, of which a step takes the slices of one cube of
one subject (2D) or patches of random subjects (3D).

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

Box = tuple[int, tuple[slice, slice, slice]]
Step = Callable[[int], Any]
MakeStep = Callable[["Workload"], tuple[Step, dict[str, Any]]]


@dataclass(frozen=True)
class Workload:
    """The notes' step by default: 64 slices of 64 x 64, two channels, four classes, width 64. With `patch` it is 3D."""

    width: int = 64
    slices: int = 64  # a step's batch: the depth of its cube
    side: int = 64  # of each slice
    patch: tuple[int, ...] = ()  # 3D: (D, H, W) of each patch; `slices` and `side` then mean nothing
    patches: int = 2  # 3D: a step's batch
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
    def dims(self) -> int:
        return len(self.patch) or 2

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """(B, C, H, W) or (B, C, D, H, W)."""
        if self.patch:
            return (self.patches, self.channels, *self.patch)
        return (self.slices, self.channels, self.side, self.side)

    @property
    def is_bf16(self) -> bool:
        return self.precision == "bf16"

    def volumes(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, C, D, H, W) float32 and masks (n, D, H, W) uint8, random but the same for all."""
        random = np.random.default_rng(0)
        shape = (self.subjects, self.volume, self.volume, self.volume)
        images = random.standard_normal((self.subjects, self.channels, *shape[1:]), dtype=np.float32)
        return images, random.integers(0, self.classes, shape, dtype=np.uint8)

    @property
    def extent(self) -> tuple[int, ...]:
        """The box that is cut from a volume: a cube, or a patch."""
        return self.patch or (self.slices, self.side, self.side)

    def boxes(self) -> list[list[Box]]:
        """Subject and box of what each step cuts: one cube, or its patches."""
        random = np.random.default_rng(1)
        boxes = []
        for _ in range(self.count):
            of_step = []
            for _ in range(self.patches if self.patch else 1):
                subject = int(random.integers(self.subjects))
                corner = [int(random.integers(0, self.volume - size + 1)) for size in self.extent]
                d, h, w = (slice(start, start + size) for start, size in zip(corner, self.extent, strict=True))
                of_step.append((subject, (d, h, w)))
            boxes.append(of_step)
        return boxes

    def cut(self, images: np.ndarray, masks: np.ndarray, boxes: list[Box]) -> tuple[Any, Any]:
        """A step's image (B, C, *S) float32 and mask (B, *S) int64, as tensors: a cube's slices, or patches."""
        import torch

        if not self.patch:
            ((subject, box),) = boxes
            cube = torch.from_numpy(images[(subject, slice(None), *box)])  # (C, d, h, w)
            return cube.transpose(0, 1).contiguous(), torch.from_numpy(masks[(subject, *box)].astype("int64"))
        image = np.stack([images[(subject, slice(None), *box)] for subject, box in boxes])
        mask = np.stack([masks[(subject, *box)] for subject, box in boxes])
        return torch.from_numpy(image), torch.from_numpy(mask.astype("int64"))


def main(make_step: MakeStep) -> None:
    """Times the workload on the command line and prints what was measured as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    workload = from_text(parser.parse_args().workload)
    import torch

    torch.set_num_threads(workload.threads)
    step, facts = make_step(workload)
    print("\n" + json.dumps({**time_steps(workload, step), "precision": workload.precision, **facts}))
    sys.stdout.flush()


def as_text(workload: Workload) -> str:
    return json.dumps(asdict(workload))


def from_text(text: str) -> Workload:
    fields = json.loads(text)
    return Workload(**{**fields, "patch": tuple(fields["patch"])})


# The step in 3D: patches as nnU-Net plans them for the hippocampus set. No level is two voxels deep, where torch's own
# gradients in bf16 are wrong on a CPU (docs/log.md), so that the peers can run in bf16 too.
STEP_3D = Workload(
    width=16, patch=(40, 56, 40), channels=1, classes=3, loss="dice+ce", warm_up=2, steps=10, enough_s=60.0
)


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
