"""(a) The notes' loop: contiguous memory, sorted Lovász, Adam, a patch cut with numpy at each step, the loss read at
each step; float32, and for the row of equal precision the same under autocast."""

from typing import Any

import torch

from benchmarks.plain import LOSSES, count_parameters, make_network, make_optimizer
from benchmarks.workload import Step, Workload, main


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    device = torch.device(workload.device)
    images, masks = workload.volumes()
    boxes = workload.boxes()
    model = make_network(workload).to(device)
    optimizer = make_optimizer(workload, model)
    loss_of = LOSSES[workload.loss]
    total = 0.0

    def step(index: int) -> None:
        nonlocal total
        image, mask = (tensor.to(device) for tensor in workload.cut(images, masks, boxes[index]))
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
