"""(b) The same loop as a good engineer tunes it: DataLoader with workers, pinned memory, bf16 autocast, channels-last,
fused Adam, and torch.compile where it is asked for (`BENCHMARK_COMPILE=1`)."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import Workload, from_command_line, synchronizer, time_steps

workload = from_command_line()

import torch  # noqa: E402
from plain import LOSSES, PlainUNet2  # noqa: E402


class Cubes(torch.utils.data.Dataset):
    """A cube a step, as slices."""

    def __init__(self, workload: Workload) -> None:
        images, masks = workload.volumes()
        self.images, self.masks = torch.from_numpy(images), torch.from_numpy(masks)
        self.corners, self.side = workload.corners(), workload.side

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        subject, d, h, w = self.corners[index]
        side = self.side
        box = (slice(d, d + side), slice(h, h + side), slice(w, w + side))
        return self.images[(subject, slice(None), *box)].transpose(0, 1).contiguous(), self.masks[
            (subject, *box)
        ].long()


def main() -> None:
    torch.set_num_threads(workload.threads)
    device = torch.device(workload.device)
    is_cuda = device.type == "cuda"
    model = PlainUNet2(workload.channels, workload.classes, workload.width)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4, fused=True)
    loss_of = LOSSES[workload.loss]
    forward = torch.compile(model) if os.environ.get("BENCHMARK_COMPILE") else model
    loader = torch.utils.data.DataLoader(
        Cubes(workload), batch_size=None, num_workers=1, pin_memory=is_cuda, prefetch_factor=2
    )
    batches = iter(loader)

    def step(_: int) -> None:
        image, mask = next(batches)
        image = image.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        mask = mask.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=workload.precision == "bf16"):
            logits = forward(image)
        loss = loss_of(logits, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    parameters = sum(p.numel() for p in model.parameters())
    time_steps(workload, step, synchronizer(workload.device), precision=workload.precision, parameters=parameters)


if __name__ == "__main__":
    main()
