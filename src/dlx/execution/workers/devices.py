"""Chooses the device on which each worker process trains."""

from collections.abc import Sequence

import torch

from dlx.engine.device import describe_device
from dlx.trial.resolve import Resolved


def cuda_names() -> tuple[str, ...]:
    """The names of the CUDA devices that torch sees."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(describe_device(torch.device("cuda", index)) for index in range(count))


def device_of_worker(resolved: Resolved, names: Sequence[str], worker: int) -> torch.device:
    """The device on which worker number `worker` (from 0) runs a trial."""
    return pick_device(resolved.spec.compute.device, resolved.compute.device, names, worker)


def pick_device(asked: str, chosen: torch.device, names: Sequence[str], worker: int) -> torch.device:
    """Assigns CUDA devices to workers in turn if the settings name none (`auto`, `cuda`); else the chosen device.

    `names` are the names of all CUDA devices. Only devices with the name of the chosen one are used: the name is part
    of a trial's id, and results of different devices are never paired.
    """
    if chosen.type != "cuda" or asked not in ("auto", "cuda"):
        return chosen
    alike = [index for index, name in enumerate(names) if name == names[chosen.index]]
    return torch.device("cuda", alike[worker % len(alike)])
