"""Which of a machine's devices each worker process trains on."""

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
    """Worker 0, 1, 2 ... take the CUDA devices in turn where the settings leave open which (`auto`, `cuda`).

    `names` are those of all CUDA devices. Only devices of the chosen one's name are taken: a trial is named by it, and
    numbers of unlike devices are never paired.
    """
    if chosen.type != "cuda" or asked not in ("auto", "cuda"):
        return chosen
    alike = [index for index, name in enumerate(names) if name == names[chosen.index]]
    return torch.device("cuda", alike[worker % len(alike)])
