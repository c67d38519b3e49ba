"""(b) The same loop as a good engineer tunes it: DataLoader with a worker, pinned memory, bf16 autocast, channels-last,
fused Adam, no wait for the loss, and torch.compile in the variant `compile` (on a CPU that takes a C++ compiler)."""

import shutil
from typing import Any

import torch

from benchmarks.plain import LOSSES, channels_last, count_parameters, make_network, make_optimizer
from benchmarks.workload import Step, Workload, main


class Batches(torch.utils.data.Dataset):
    """A step's batch."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.images, self.masks = workload.volumes()
        self.boxes = workload.boxes()

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.workload.cut(self.images, self.masks, self.boxes[index])


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    device = torch.device(workload.device)
    model = make_network(workload).to(device, memory_format=channels_last(workload))
    optimizer = make_optimizer(workload, model, fused=True)
    loss_of = LOSSES[workload.loss]
    forward = model
    if workload.variant == "compile":
        if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise SystemExit("torch.compile needs a C++ compiler, and none is here")
        forward = torch.compile(model)
    loader = torch.utils.data.DataLoader(
        Batches(workload), batch_size=None, num_workers=1, pin_memory=device.type == "cuda", prefetch_factor=2
    )
    batches = iter(loader)

    def step(_: int) -> None:
        image, mask = next(batches)
        image = image.to(device, non_blocking=True).contiguous(memory_format=channels_last(workload))
        mask = mask.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=workload.is_bf16):
            logits = forward(image)
        loss = loss_of(logits, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step, {"parameters": count_parameters(model)}


if __name__ == "__main__":
    main(make_step)
