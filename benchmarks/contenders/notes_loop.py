"""(a) The notes' loop: float32, contiguous memory, sorted Lovász, Adam, a patch cut with numpy at each step."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import from_command_line, synchronizer, time_steps

workload = from_command_line()

import torch  # noqa: E402
from plain import LOSSES, PlainUNet2  # noqa: E402

torch.set_num_threads(workload.threads)
device = torch.device(workload.device)
images, masks = workload.volumes()
corners = workload.corners()
model = PlainUNet2(workload.channels, workload.classes, workload.width).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4)
loss_of = LOSSES[workload.loss]
total = 0.0


def step(index: int) -> None:
    global total
    subject, d, h, w = corners[index]
    side = workload.side
    cube = images[subject, :, d : d + side, h : h + side, w : w + side]
    image = torch.from_numpy(cube).transpose(0, 1).contiguous().to(device)
    mask = torch.from_numpy(masks[subject, d : d + side, h : h + side, w : w + side].astype("int64")).to(device)
    optimizer.zero_grad()
    loss = loss_of(model(image), mask)
    loss.backward()
    optimizer.step()
    total += loss.item()


time_steps(
    workload,
    step,
    synchronizer(workload.device),
    precision="float32",
    parameters=sum(p.numel() for p in model.parameters()),
)
