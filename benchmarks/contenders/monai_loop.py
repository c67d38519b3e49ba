"""(c) MONAI as its fast-training guide says: data cached on the device, random crops by its transforms, a
ThreadDataLoader without workers, AMP where bf16 is asked for."""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import from_command_line, synchronizer, time_steps

workload = from_command_line()
warnings.filterwarnings("ignore")

import monai  # noqa: E402
import torch  # noqa: E402
from monai.data import CacheDataset, ThreadDataLoader  # noqa: E402
from monai.transforms import Compose, EnsureTyped, RandSpatialCropd  # noqa: E402
from plain import LOSSES, PlainUNet2  # noqa: E402

torch.set_num_threads(workload.threads)
device = torch.device(workload.device)
images, masks = workload.volumes()
cases = [{"image": image, "label": mask[None]} for image, mask in zip(images, masks, strict=True)]
side = workload.side
transforms = Compose(
    [
        EnsureTyped(keys=["image", "label"], device=device, track_meta=False),
        RandSpatialCropd(keys=["image", "label"], roi_size=(side, side, side), random_size=False),
    ]
)
repeats = -(-(workload.warm_up + workload.steps) // len(cases))
dataset = CacheDataset(cases * repeats, transforms, cache_rate=1.0, num_workers=None, copy_cache=False, progress=False)
loader = ThreadDataLoader(dataset, batch_size=1, num_workers=0, shuffle=True)
batches = iter(loader)
model = PlainUNet2(workload.channels, workload.classes, workload.width).to(device)
if workload.precision == "bf16":
    model = model.to(memory_format=torch.channels_last)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4)
loss_of = LOSSES[workload.loss]
total = 0.0


def step(_: int) -> None:
    global total
    batch = next(batches)
    image = batch["image"][0].transpose(0, 1)
    mask = batch["label"][0, 0].long()
    if workload.precision == "bf16":
        image = image.contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=workload.precision == "bf16"):
        logits = model(image)
    loss = loss_of(logits, mask)
    loss.backward()
    optimizer.step()
    total += loss.item()


time_steps(
    workload,
    step,
    synchronizer(workload.device),
    precision=workload.precision,
    parameters=sum(p.numel() for p in model.parameters()),
    version=monai.__version__,
)
