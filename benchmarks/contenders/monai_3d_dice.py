"""MONAI in 3D on a folder of volumes, as its tutorials train the hippocampus set: a peer of the Dice over time.

The settings are those of `modules/dynunet_pipeline` of Project-MONAI/tutorials for task 04: DynUNet with instance norm
and one supervised coarser level, a random crop of 40 x 56 x 40 of each of nine volumes a step, two of three centred on
the foreground, augmentation, Dice with cross-entropy, SGD with momentum 0.99, gradients clipped to norm 12, sliding
windows that overlap by half. The tutorial trains for 500 epochs at a constant rate of 0.1, then fine-tunes for 50 at
0.001 with a new optimizer; here the last eleventh of the limit is that second stage (its crops, one of two on the
foreground in the tutorial, stay as in the first). Float32, MONAI's default. Its looks are without mirroring; at the
limit a second one is mirrored, as the tutorial's validation is.
"""

import argparse
import json
import os
import time
import warnings
from itertools import chain, combinations
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contenders.looking import Looks
from benchmarks.contenders.monai_dice import load
from benchmarks.plain import count_parameters, mean_dice

PATCH = (40, 56, 40)
BATCH = 9
RATE, FINE_TUNING_RATE = 0.1, 0.001
FINE_TUNING_FROM = 10 / 11  # of the limit: 500 of 550 epochs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", help="JSON: folder, train, val, classes, seed, device, threads, limit_s")
    task = json.loads(parser.parse_args().task)
    started = float(os.environ.get("BENCHMARK_STARTED", time.time()))
    warnings.filterwarnings("ignore")
    torch.set_num_threads(task["threads"])
    train(task, Looks(started, task["limit_s"]))


def train(task: dict[str, Any], looks: Looks) -> None:
    """Trains until the time is over; each look prints the result so far."""
    import monai
    from monai.losses import DiceCELoss

    device = torch.device(task["device"])
    loader, cases = load(task, augmentation(), BATCH)
    model = make_model(task["classes"]).to(device)
    optimizer = make_optimizer(model, RATE)
    fine_tunes = False
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    facts = {"parameters": count_parameters(model), "version": monai.__version__}
    steps = 0
    while not looks.is_over:
        for batch in loader:
            if not fine_tunes and looks.trained_s >= FINE_TUNING_FROM * looks.limit_s:
                optimizer, fine_tunes = make_optimizer(model, FINE_TUNING_RATE), True
            image, label = batch["image"].to(device), batch["label"].to(device)
            optimizer.zero_grad()
            levels = model(image).unbind(1)
            loss = torch.stack([0.5**level * loss_of(logits, label) for level, logits in enumerate(levels)]).sum()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 12)
            optimizer.step()
            steps += 1
            if looks.is_due:
                looks.look(lambda mirrors: measure(model, cases, task, mirrors=mirrors), {**facts, "steps": steps})
            if looks.is_over:
                break


def make_optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.99, weight_decay=3e-5, nesterov=True)


def make_model(classes: int) -> nn.Module:
    from monai.networks.nets import DynUNet

    strides = [[1] * 3, *[[2] * 3] * 3]  # down to 5 x 7 x 5
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        kernel_size=[[3] * 3] * 4,
        strides=strides,
        upsample_kernel_size=strides[1:],
        norm_name="instance",
        deep_supervision=True,
        deep_supr_num=1,
    )


def augmentation() -> list[Any]:
    """A random crop of a volume, two of three centred on the foreground, and its random changes."""
    from monai import transforms as mt

    keys = ["image", "label"]
    return [
        mt.SpatialPadd(keys, spatial_size=PATCH),
        mt.RandCropByPosNegLabeld(
            keys, label_key="label", spatial_size=PATCH, pos=2, neg=1, num_samples=1, image_key="image"
        ),
        mt.RandZoomd(
            keys, prob=0.15, min_zoom=0.9, max_zoom=1.2, mode=("trilinear", "nearest"), align_corners=(True, None)
        ),
        mt.RandGaussianNoised("image", prob=0.15, std=0.01),
        mt.RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.5, 1.15), sigma_y=(0.5, 1.15), sigma_z=(0.5, 1.15)),
        mt.RandScaleIntensityd("image", prob=0.15, factors=0.3),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
    ]


def measure(model: nn.Module, cases: list[dict[str, Any]], task: dict[str, Any], *, mirrors: bool) -> float:
    """Mean hard Dice of whole volumes, predicted window by window."""
    device = torch.device(task["device"])
    model.eval()
    pairs = []
    with torch.inference_mode():
        for case in cases:
            logits = predict(model, case["image"].to(device)[None], mirrors=mirrors)
            pairs.append((logits.argmax(1)[0].cpu(), case["label"][0].long()))
    model.train()
    return mean_dice(pairs, task["classes"])


def predict(model: nn.Module, image: Tensor, *, mirrors: bool) -> Tensor:
    """The mean of the probabilities over no flip, or all flips of the three axes."""
    from monai.inferers import sliding_window_inference

    axes = list(chain.from_iterable(combinations((2, 3, 4), count) for count in range(4))) if mirrors else [()]
    return torch.stack(
        [
            sliding_window_inference(image.flip(flips), PATCH, 4, model, overlap=0.5, mode="gaussian")
            .softmax(1)
            .flip(flips)
            for flips in axes
        ]
    ).mean(0)


if __name__ == "__main__":
    main()
