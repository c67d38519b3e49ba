"""(c) MONAI as its fast-training guide says: deterministic transforms cached on the device, random crops there, a
ThreadDataLoader without workers, AMP. With its own default settings it is float32 on a CPU, where MONAI has no AMP; the
row in bf16 has autocast and channels-last. The loop reads the loss at each step, as the guide's does.

Network, loss and optimizer are those of all contenders: MONAI brings the data, its caching and its transforms.
"""

import warnings
from typing import Any

import torch

from benchmarks.plain import LOSSES, channels_last, count_parameters, make_network, make_optimizer
from benchmarks.workload import Step, Workload, main


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    warnings.filterwarnings("ignore")
    import monai
    from monai.data import CacheDataset, ThreadDataLoader
    from monai.transforms import Compose, EnsureTyped, RandSpatialCropd

    device = torch.device(workload.device)
    images, masks = workload.volumes()
    cases = [{"image": image, "label": mask[None]} for image, mask in zip(images, masks, strict=True)]
    transforms = Compose(
        [
            EnsureTyped(keys=["image", "label"], device=device, track_meta=False),
            RandSpatialCropd(keys=["image", "label"], roi_size=workload.extent, random_size=False),
        ]
    )
    volumes = workload.patches if workload.patch else 1  # a step
    # one long epoch: the end of an epoch is not timed for any contender
    repeats = -(-workload.count * volumes // len(cases))
    dataset = CacheDataset(cases * repeats, transforms, num_workers=None, copy_cache=False, progress=False)
    batches = iter(ThreadDataLoader(dataset, batch_size=volumes, num_workers=0, shuffle=True))
    memory_format = channels_last(workload) if workload.is_bf16 else torch.contiguous_format
    model = make_network(workload).to(device, memory_format=memory_format)
    optimizer = make_optimizer(workload, model)
    loss_of = LOSSES[workload.loss]
    total = 0.0

    def step(_: int) -> None:
        nonlocal total
        batch = next(batches)
        image, mask = batch["image"], batch["label"][:, 0].long()
        if not workload.patch:
            image, mask = image[0].transpose(0, 1), mask[0]  # the cube's slices become the batch
        image = image.contiguous(memory_format=memory_format)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=workload.is_bf16):
            logits = model(image)
        loss = loss_of(logits, mask)
        loss.backward()
        optimizer.step()
        total += loss.item()

    return step, {"parameters": count_parameters(model), "version": monai.__version__}


if __name__ == "__main__":
    main(make_step)
