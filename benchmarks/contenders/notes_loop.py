"""(a) The notes' loop: contiguous memory, sorted Lovász, Adam, a patch cut with numpy at each step, the loss read at
each step; float32, and for the row of equal precision the same under autocast."""

from typing import Any

import torch

from benchmarks.plain import LOSSES, PlainUNet2, count_parameters
from benchmarks.workload import Step, Workload, main


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    device = torch.device(workload.device)
    images, masks = workload.volumes()
    boxes = workload.boxes()
    model = PlainUNet2(workload.channels, workload.classes, workload.width).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4)
    loss_of = LOSSES[workload.loss]
    total = 0.0

    def step(index: int) -> None:
        nonlocal total
        subject, box = boxes[index]
        cube = torch.from_numpy(images[(subject, slice(None), *box)])  # (C, d, h, w)
        image = cube.transpose(0, 1).contiguous().to(device)
        mask = torch.from_numpy(masks[(subject, *box)].astype("int64")).to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=workload.is_bf16):
            logits = model(image)
        loss = loss_of(logits, mask)
        loss.backward()
        optimizer.step()
        total += loss.item()

    return step, {"parameters": count_parameters(model)}


if __name__ == "__main__":
    main(make_step)
