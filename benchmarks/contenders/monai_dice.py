"""MONAI's loop on a folder of volumes, evaluated now and then: the peer of the time-to-Dice benchmark.

Always: its readers and transforms (deterministic ones cached), its random crops, ThreadDataLoader, its DiceCELoss,
float32, a constant rate, 16 slices a step, `unet2` at width 16; dlx's split, and the code dlx measures Dice with.

Two recipes:
- plain: four levels, slices of 64 x 64 anywhere, Adam with its default betas, the rate that dlx has.
- equal: what dlx's default recipe found out by trials: three levels, slices of 36 x 52 (x, y), half of them on the
  foreground (found beforehand), AdamW with its decay and betas. Only the schedule of the rate is not taken over.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.plain import PlainUNet2, count_parameters

WIDTH, CLASSES = 16, 3
LEVELS = {"plain": 4, "equal": 3}
PATCH_XY = {"plain": (64, 64), "equal": (36, 52)}  # the second is what dlx fits to these volumes
VOLUMES, CROPS = 4, 4  # volumes a step, slices of each


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "task", help="JSON: folder, train, val, recipe, seed, device, threads, target, look_every_s, limit_s"
    )
    task = json.loads(parser.parse_args().task)
    started = float(os.environ.get("BENCHMARK_STARTED", time.time()))
    warnings.filterwarnings("ignore")
    torch.set_num_threads(task["threads"])
    torch.manual_seed(task["seed"])
    print(json.dumps(train(task, started)))


def train(task: dict[str, Any], started: float) -> dict[str, Any]:
    """Trains until a look finds the target or the time is over. Looks that came too early are not counted in the times
    (as if the moment had been known), but for the one that found it."""
    device = torch.device(task["device"])
    loader, looked_at = load(task, crops(task["recipe"]), VOLUMES)
    model = PlainUNet2(1, CLASSES, WIDTH, LEVELS[task["recipe"]]).to(device)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    if task["recipe"] == "equal":
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=1e-2)
    from monai.losses import DiceCELoss

    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    looking_s, next_look, steps, total, looks = 0.0, task["look_every_s"], 0, 0.0, []
    begun = time.time()
    while True:
        for batch in loader:
            image, label = batch["image"].to(device), batch["label"].to(device)
            optimizer.zero_grad()
            loss = loss_of(model(image), label)
            loss.backward()
            optimizer.step()
            total += loss.item()
            steps += 1
            if time.time() - begun - looking_s < next_look:
                continue
            next_look += task["look_every_s"]
            looking = time.time()
            dice = mean_dice(model, looked_at, device, 2 ** (LEVELS[task["recipe"]] - 1))
            looks.append([time.time() - started - looking_s, dice])
            looking_s += time.time() - looking
            is_found = dice >= task["target"]
            if is_found or time.time() - started - looking_s >= task["limit_s"]:
                return {
                    "seed": task["seed"],
                    "reached_s": looks[-1][0] if is_found else None,
                    "dice": dice,
                    "looks": looks,
                    "steps": steps,
                    "wall_s": time.time() - started,
                    "parameters": count_parameters(model),
                }


def load(task: dict[str, Any], changes: list[Any], batch: int) -> tuple[Any, list[dict[str, Any]]]:
    """Batches of the training cases after `changes`, and the validation cases, whole. What comes before the first
    random change is cached."""
    from monai import transforms as mt
    from monai.data import CacheDataset, ThreadDataLoader
    from monai.utils import set_determinism

    set_determinism(task["seed"])
    keys = ["image", "label"]
    prepare = [
        mt.LoadImaged(keys),
        mt.EnsureChannelFirstd(keys),
        mt.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        mt.EnsureTyped(keys, track_meta=False),
    ]
    train, val = (files(Path(task["folder"]), task[side]) for side in ("train", "val"))
    cached = CacheDataset(train, mt.Compose(prepare + changes), num_workers=None, progress=False)
    loader = ThreadDataLoader(cached, batch_size=batch, num_workers=0, shuffle=True)
    return loader, list(CacheDataset(val, mt.Compose(prepare), num_workers=None, progress=False))


def crops(recipe: str) -> list[Any]:
    """Random slices of a volume: anywhere, or as many on the foreground as off it."""
    from monai import transforms as mt

    keys, size = ["image", "label"], (*PATCH_XY[recipe], 1)
    pad, squeeze = mt.SpatialPadd(keys, spatial_size=size), mt.SqueezeDimd(keys, dim=-1)
    if recipe == "plain":
        return [pad, mt.RandSpatialCropSamplesd(keys, roi_size=size, num_samples=CROPS, random_size=False), squeeze]
    indices = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
    return [
        pad,
        mt.FgBgToIndicesd("label"),
        mt.RandCropByPosNegLabeld(keys, label_key="label", spatial_size=size, num_samples=CROPS, **indices),
        mt.SelectItemsd(keys),
        squeeze,
    ]


def files(folder: Path, names: list[str]) -> list[dict[str, str]]:
    return [
        {"image": str(folder / f"imagesTr/{name}.nii.gz"), "label": str(folder / f"labelsTr/{name}.nii.gz")}
        for name in names
    ]


def mean_dice(model: nn.Module, cases: list[dict[str, Any]], device: torch.device, stride: int) -> float:
    """Hard Dice of whole volumes, a class's mean over the cases first, by the code that dlx's own figure comes from."""
    from dlx.scoring.overlap import dice_from_counts, overlap_counts, summarize

    model.eval()
    counts = []
    with torch.inference_mode():
        for case in cases:
            image = case["image"].to(device).movedim(-1, 0)  # (z, C, x, y)
            height, width = image.shape[2:]
            pad = nn.functional.pad(image, (0, -width % stride, 0, -height % stride))
            prediction = model(pad).argmax(1)[:, :height, :width]
            counts.append(overlap_counts(prediction, case["label"][0].long().to(device).movedim(-1, 0), CLASSES))
    model.train()
    return summarize(dice_from_counts(torch.stack(counts).cpu())).mean or 0.0


if __name__ == "__main__":
    main()
