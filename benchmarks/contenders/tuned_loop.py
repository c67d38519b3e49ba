"""(b) The same loop as a good engineer tunes it: DataLoader with a worker, pinned memory, bf16 autocast, channels-last,
fused Adam, no wait for the loss, and torch.compile in the variant `compile` (on a CPU that takes a C++ compiler)."""

import shutil
from typing import Any

import torch

from benchmarks.plain import LOSSES, PlainUNet2, count_parameters
from benchmarks.workload import Step, Workload, main


class Cubes(torch.utils.data.Dataset):
    """A cube a step, as slices."""

    def __init__(self, workload: Workload) -> None:
        images, masks = workload.volumes()
        self.images, self.masks = torch.from_numpy(images), torch.from_numpy(masks)
        self.boxes = workload.boxes()

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        subject, box = self.boxes[index]
        image = self.images[(subject, slice(None), *box)].transpose(0, 1).contiguous()
        return image, self.masks[(subject, *box)].long()


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    device = torch.device(workload.device)
    model = PlainUNet2(workload.channels, workload.classes, workload.width)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4, fused=True)
    loss_of = LOSSES[workload.loss]
    forward = model
    if workload.variant == "compile":
        if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise SystemExit("torch.compile needs a C++ compiler, and none is here")
        forward = torch.compile(model)
    loader = torch.utils.data.DataLoader(
        Cubes(workload), batch_size=None, num_workers=1, pin_memory=device.type == "cuda", prefetch_factor=2
    )
    batches = iter(loader)

    def step(_: int) -> None:
        image, mask = next(batches)
        image = image.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
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
